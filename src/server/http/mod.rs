//! HTTP: ACP's remote transport on `/acp`, as WebSocket ([`websocket`]) and as POST
//! with event streams ([`endpoint`]); [`access`] says who may talk to it at all.
//!
//! [`remote`] is a client of the second kind, [`outgoing`] what waits for one of its
//! streams, [`stream`] how that is sent; [`metrics`] is what a monitor reads.

pub mod access;
pub mod websocket;
pub mod endpoint;
pub mod remote;
pub mod outgoing;
pub mod stream;
pub mod metrics;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::admission::Seat;
use super::listen::{Accepted, TcpSocket, Token};
use crate::config::ServerSettings;
use access::Hosts;
use remote::Remotes;

/// What every connection of HTTP/2 by prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the headers of one request may take.
const HEADER_BYTES: usize = 32 * 1024;

/// Requests and streams of one connection of HTTP/2 at once.
const CONCURRENT_STREAMS: u32 = 256;

/// How a client is to introduce itself (RFC 6750).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"acpbox\"");

/// How long connections may take to end once acpbox stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long one that gives way for a newer one may take to read why.
const HASTE: Duration = Duration::from_millis(100);

/// Everything that is served at one address.
pub struct Site {
    pub server: Arc<Server>,
    pub settings: ServerSettings,
    pub token: Token,
    pub hosts: Hosts,
    /// `http` or `https`.
    pub scheme: &'static str,
    pub remotes: Remotes,
    /// The clients' connections.
    pub tasks: TaskTracker,
    /// Ends when nobody new is taken in.
    pub stop: CancellationToken,
    /// Ends when every connection is to end.
    pub shutdown: CancellationToken,
}

/// Its connection's seat. A WebSocket keeps it.
#[derive(Clone)]
pub struct Place(pub Arc<Seat>);

impl Site {
    pub fn new(
        server: Arc<Server>,
        socket: &TcpSocket,
        tasks: TaskTracker,
        stop: CancellationToken,
        shutdown: CancellationToken,
    ) -> Arc<Site> {
        let settings = server.host.config.server.clone();
        Arc::new(Site {
            token: socket.token().clone(),
            hosts: Hosts::new(socket.address(), socket.name(), &settings.hosts),
            scheme: socket.http_scheme(),
            remotes: Remotes::new(settings.connections),
            settings,
            server,
            tasks,
            stop,
            shutdown,
        })
    }

    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/acp", any(acp))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics::show))
            .merge(super::web::routes())
            .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing here") })
            .method_not_allowed_fallback(|| async {
                refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this method is not for here",
                )
            })
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                access::check,
            ))
            .with_state(Arc::clone(self))
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, router: Router, accepted: Accepted, seat: Arc<Seat>) {
        let (mut input, mut output) = (accepted.input, accepted.output);
        let timeout = self.settings.handshake_timeout;
        let beginning = tokio::select! {
            beginning = tokio::time::timeout(timeout, preface(&mut input)) => beginning,
            () = self.shutdown.cancelled() => return,
            () = seat.must_go() => {
                let farewell = farewell(&seat.why());
                let _ = tokio::time::timeout(HASTE, output.write_all(farewell.as_bytes())).await;
                return;
            }
        };
        let Ok(Some(beginning)) = beginning else {
            tracing::debug!(peer = accepted.peer, "no request came in time");
            return;
        };
        let input = Cursor::new(beginning).chain(input);
        let stream = TokioIo::new(tokio::io::join(input, output));
        let router = router.layer(Extension(Place(Arc::clone(&seat))));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_buf_size(HEADER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.keepalive)
            .keep_alive_timeout(self.settings.keepalive.saturating_mul(2))
            .max_concurrent_streams(CONCURRENT_STREAMS)
            .max_header_list_size(HEADER_BYTES as u32);
        let service = TowerToHyperService::new(router);
        let connection = builder.serve_connection_with_upgrades(stream, service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let patience = tokio::time::timeout(FAREWELL, connection.as_mut());
                patience.await.unwrap_or(Ok(()))
            }
            () = seat.must_go() => {
                connection.as_mut().graceful_shutdown();
                let patience = tokio::time::timeout(HASTE, connection.as_mut());
                patience.await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = accepted.peer, %error, "a connection of HTTP ended");
        }
    }
}

/// What a client that cannot be taken in is told, whatever it asks for.
pub fn farewell(why: &str) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}\n",
        why.len() + 1
    )
}

/// `/acp`: the kind of request tells which transport it is.
async fn acp(
    State(site): State<Arc<Site>>,
    place: Extension<Place>,
    request: axum::extract::Request,
) -> Response {
    if websocket::is_wanted(request.headers()) {
        websocket::upgrade(site, place.0, request).await
    } else {
        endpoint::answer(site, place.0.0, request).await
    }
}

/// A refusal as plain text that says why.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    pub fn new(status: StatusCode, why: impl Into<String>) -> Refused {
        let why = why.into();
        Refused { status, why }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.why)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}

fn refusal(status: StatusCode, why: impl Into<String>) -> Response {
    Refused::new(status, why).into_response()
}

/// Reads so much that one can tell whether it is HTTP/2: what it reads of a
/// connection may come one byte at a time. `None` if nothing comes at all.
async fn preface(input: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut beginning = Vec::with_capacity(PREFACE.len());
    while beginning.len() < PREFACE.len() && PREFACE.starts_with(&beginning) {
        let mut rest = input.take((PREFACE.len() - beginning.len()) as u64);
        if rest.read_buf(&mut beginning).await.ok()? == 0 {
            return None;
        }
    }
    Some(beginning)
}
