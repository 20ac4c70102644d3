//! ACP over a WebSocket: one message per text frame.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use axum::http::header::UPGRADE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tungstenite::error::{CapacityError, Error as WebSocketError};

use super::{Place, Site, refusal};
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::{BatchReader, Framing};
use crate::server::connection::{Ending, Gate, serve};

/// Names the connection, in responses and then in requests (ACP's remote transport).
pub const CONNECTION_ID: HeaderName = HeaderName::from_static("acp-connection-id");

/// What may be on its way between the socket and the connection, each way.
pub const BRIDGE_BYTES: usize = 64 * 1024;

/// Keepalives that may go unanswered before a client counts as lost.
const UNANSWERED: u32 = 3;

/// How long a client may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

pub fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Answers with 101 and serves the client. Without a token in the headers, which
/// browsers cannot set, it must be in `initialize`.
pub async fn upgrade(site: Arc<Site>, place: Place, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let is_authorized = match site.authorized(&parts.headers) {
        Ok(is_authorized) => is_authorized,
        Err(refused) => return refused.into_response(),
    };
    if site.stop.is_cancelled() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "acpbox is about to stop");
    }
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let gate = Gate {
        token: (!is_authorized).then(|| site.token.clone()),
        patience: Some(site.settings.handshake_timeout),
        peer: "WebSocket".to_owned(),
        framing: Some(Framing::Lines),
        seat: Some(Arc::downgrade(&place.0)),
        budget: None,
    };
    let id = uuid::Uuid::new_v4().to_string();
    let limit = site.server.host.config.limits.line_bytes;
    let task = site.tasks.token();
    let mut response = upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(async move |socket| {
            let ending = converse(&site, socket, gate).await;
            tracing::debug!(?ending, "a client's WebSocket ended");
            drop((place, task));
        });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(CONNECTION_ID, id);
    }
    response
}

async fn converse(site: &Arc<Site>, socket: WebSocket, gate: Gate) -> Ending {
    let (ours, theirs) = tokio::io::duplex(BRIDGE_BYTES);
    let (input, output) = tokio::io::split(theirs);
    let is_gone = AtomicBool::new(false);
    let serving = serve(
        Arc::clone(&site.server),
        input,
        output,
        gate,
        site.shutdown.clone(),
        || is_gone.load(Ordering::Relaxed),
    );
    let carrying = async {
        carry(site, socket, ours).await;
        is_gone.store(true, Ordering::Relaxed);
    };
    tokio::join!(serving, carrying).0
}

/// Why a WebSocket is closed: a code of RFC 6455 and what it means here.
type Reason = (u16, &'static str);

/// Carries messages both ways until one side ends.
async fn carry(site: &Site, socket: WebSocket, bridge: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (reading, writing) = tokio::io::split(bridge);
    let heard = Mutex::new(Instant::now());
    let reason = tokio::select! {
        reason = receive(&mut stream, writing, &heard) => reason,
        reason = send(site, &mut sink, reading, &heard) => reason,
    };
    let Some((code, reason)) = reason else { return };
    let farewell = async {
        let reason = Utf8Bytes::from_static(reason);
        let close = Message::Close(Some(CloseFrame { code, reason }));
        if sink.send(close).await.is_ok() {
            // Its answer, else what it has not read yet may be lost to a reset.
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// From the client. `None` if there is nobody to tell why it ends.
async fn receive(
    stream: &mut SplitStream<WebSocket>,
    mut writing: WriteHalf<DuplexStream>,
    heard: &Mutex<Instant>,
) -> Option<Reason> {
    while let Some(message) = stream.next().await {
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match message {
            Ok(Message::Text(text)) => {
                let line = as_line(text.as_str().as_bytes());
                if writing.write_all(&line).await.is_err() {
                    // The connection ended; what it still says is sent first.
                    return std::future::pending().await;
                }
            }
            // ACP's remote transport ignores them.
            Ok(Message::Binary(_)) => tracing::debug!("a binary frame is ignored"),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) => {
                // Our own goes out with the next read; then there is nothing more.
                let rest = async { while let Some(Ok(_)) = stream.next().await {} };
                let _ = tokio::time::timeout(FAREWELL, rest).await;
                return None;
            }
            Err(error) => return reason_of(error),
        }
    }
    None
}

/// To the client, and a ping where there is nothing to say.
async fn send(
    site: &Site,
    sink: &mut SplitSink<WebSocket, Message>,
    reading: ReadHalf<DuplexStream>,
    heard: &Mutex<Instant>,
) -> Option<Reason> {
    let settings = &site.settings;
    // What acpbox says itself has no bound but memory's: it was checked when it came.
    let mut reader = BatchReader::new(reading, Decoder::lines(usize::MAX));
    let mut frames = Vec::new();
    let mut ticks = tokio::time::interval(settings.keepalive);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        let is_more = tokio::select! {
            read = reader.read(&mut frames) => matches!(read, Ok(true)),
            _ = ticks.tick() => true,
        };
        if !is_more && frames.is_empty() {
            return Some((close_code::AWAY, "acpbox ends the connection"));
        }
        let silence = (heard.lock().unwrap_or_else(PoisonError::into_inner)).elapsed();
        let is_quiet = frames.is_empty();
        if is_quiet && silence > settings.keepalive.saturating_mul(UNANSWERED) {
            return Some((close_code::AWAY, "nothing was heard of you for too long"));
        }
        let sending = async {
            for frame in frames.drain(..) {
                let Frame::Message(line) = frame else {
                    continue;
                };
                let Ok(text) = Utf8Bytes::try_from(line) else {
                    tracing::error!("a message to a client is not UTF-8");
                    continue;
                };
                sink.feed(Message::Text(text)).await?;
            }
            if is_quiet {
                sink.feed(Message::Ping(axum::body::Bytes::new())).await?;
            }
            sink.flush().await
        };
        match tokio::time::timeout(settings.idle_timeout, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => return None,
            Err(_elapsed) => {
                tracing::info!("a WebSocket took nothing for too long (server.idle_timeout)");
                return None;
            }
        }
    }
}

/// A message as one line: a line end is white space wherever JSON may have one.
pub fn as_line(message: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(message.len() + 1);
    line.extend(message.iter().map(|&byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => byte,
    }));
    line.push(b'\n');
    line
}

fn reason_of(error: axum::Error) -> Option<Reason> {
    let error = error.into_inner();
    match error.downcast_ref::<WebSocketError>()? {
        WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Some((
            close_code::SIZE,
            "the message is over the limit (limits.line_bytes)",
        )),
        WebSocketError::Utf8(_) => Some((close_code::INVALID, "text must be UTF-8")),
        WebSocketError::Protocol(_) => Some((close_code::PROTOCOL, "this is no WebSocket")),
        _ => None,
    }
}
