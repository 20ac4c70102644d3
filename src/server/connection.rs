//! One client's connection, from its first byte to the last answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::Server;
use super::admission::Seat;
use super::dispatch::session_span;
use super::http::outgoing::Budget;
use super::listen::Token;
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::message::{self, Malformed};
use crate::rpc::{BatchReader, Framing, Message, Outbox, write_loop};
use crate::session::Client;

/// Requests of one client that acpbox itself may work on at once.
const CONCURRENT_REQUESTS: usize = 256;

/// How often a client that closed its side is looked for.
const DRAIN_CHECK: Duration = Duration::from_millis(25);

/// How long the message that was being worked on when a connection ended may take.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// How long one that gives way may take to read why.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client closed its side, and has all its answers.
    Done,
    /// The client is gone: nothing can be sent to it.
    Gone,
    /// It was let go for a newer one.
    GaveWay,
    /// acpbox was told to stop.
    Shutdown,
}

/// What stands between a connection and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// What `initialize` must carry as `_meta.acpbox.token`.
    pub token: Option<Token>,
    /// How long the client may take to send `initialize`; for ever if absent.
    pub patience: Option<Duration>,
    /// How it is connected, for people; for one of this process's own, empty.
    pub peer: String,
    /// How its messages are told apart; found out from the first byte if absent.
    pub framing: Option<Framing>,
    /// What it may have to give up before it is known; for one of this process's own, none.
    pub seat: Option<Weak<Seat>>,
    /// What waits for it behind this connection, if anything does.
    pub budget: Option<Arc<Budget>>,
}

/// A client's connection as handlers see it.
pub struct Connection {
    pub server: Arc<Server>,
    pub client: Arc<Client>,
    /// Requests that acpbox itself works on.
    pub tasks: TaskTracker,
    pub room: Arc<Semaphore>,
    /// Those requests by raw id, to be cancelled.
    running: Mutex<HashMap<Box<str>, CancellationToken>>,
    pub gate: Gate,
    /// Ends when the client is turned away.
    pub refused: CancellationToken,
}

/// Serves one client until it is done, gone, or `shutdown` is cancelled.
/// `is_gone` tells whether a client that sends nothing more still listens.
///
/// Its sessions live on; the caller decides what becomes of them.
pub async fn serve<R, W>(
    server: Arc<Server>,
    input: R,
    output: W,
    gate: Gate,
    shutdown: CancellationToken,
    is_gone: impl Fn() -> bool,
) -> Ending
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let patience = gate.patience;
    let (outbox, queue) = Outbox::new();
    let mut writing = tokio::spawn(write_loop(queue, output));
    let connection = Arc::new(Connection {
        client: Client::new(outbox),
        tasks: TaskTracker::new(),
        room: Arc::new(Semaphore::new(CONCURRENT_REQUESTS)),
        running: Mutex::default(),
        gate,
        refused: CancellationToken::new(),
        server,
    });
    let limits = &connection.server.host.config.limits;
    let decoder = match connection.gate.framing {
        Some(Framing::Lines) => Decoder::lines(limits.line_bytes),
        _ => Decoder::detecting(limits.line_bytes),
    };
    let mut reader = BatchReader::new(input, decoder);
    let client = &connection.client;
    let budget = connection.gate.budget.clone();
    let clients = &connection.server.observed.clients;
    let place = clients.enter(client, &connection.gate.peer, budget);
    let (number, peer) = (place.number, &connection.gate.peer);
    let span = tracing::error_span!("client", number, peer);
    // A task of its own: what has begun is done to its end, also when nobody is there
    // for the answer. A prompt that is half let in would keep the next from its turn,
    // and others would lack what they were to be shown.
    let closing = CancellationToken::new();
    let reading = {
        let (connection, closing) = (Arc::clone(&connection), closing.clone());
        async move { connection.read(&mut reader, &closing).await }
    };
    let mut reading = tokio::spawn(reading.instrument(span));
    let ending = tokio::select! {
        () = shutdown.cancelled() => Ending::Shutdown,
        () = client.outbox.closed() => Ending::Gone,
        () = connection.refused.cancelled() => Ending::Done,
        () = client.unfit.cancelled() => Ending::Gone,
        () = connection.expect_handshake(patience) => Ending::Done,
        () = connection.give_way() => Ending::GaveWay,
        _ = &mut reading => connection.drain(&shutdown, is_gone).await,
    };
    closing.cancel();
    tracing::debug!(client = number, ?ending, "a client's connection ends");
    if ending == Ending::Shutdown {
        // All of acpbox ends. What is owed to this client ends with a reason, which it
        // is to hear.
        connection.server.host.end_sessions().await;
    }
    client.gone.cancel();
    if ending == Ending::Gone {
        // Nothing waits for it to read.
        writing.abort();
    }
    if !reading.is_finished() {
        let finished = tokio::time::timeout(LAST_MESSAGE, &mut reading).await;
        if finished.is_err() {
            tracing::debug!(client = number, "its last message is still worked on");
        }
    }
    connection.stop_asking("the client is gone").await;
    for live in connection.server.host.registry.all() {
        live.detach(client);
    }
    // What it followed that is not live may be followed by nobody now.
    connection.server.host.registry.sweep();
    if let Some(parked) = client.parked() {
        parked.close().await;
    }
    drop(place);
    drop(connection);
    // What is queued is still written, as long as somebody reads it.
    let patience = match ending {
        Ending::Done => Duration::from_secs(10),
        Ending::Shutdown => Duration::from_millis(500),
        Ending::GaveWay => FAREWELL,
        Ending::Gone => Duration::ZERO,
    };
    let _ = tokio::time::timeout(patience, &mut writing).await;
    writing.abort();
    ending
}

impl Connection {
    /// Does what the client asks for, until its input ends or `closing` is cancelled.
    async fn read<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        reader: &mut BatchReader<R>,
        closing: &CancellationToken,
    ) {
        let mut frames = Vec::new();
        loop {
            let read = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                read = reader.read(&mut frames) => read,
            };
            match read {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "reading from the client failed");
                    return;
                }
            }
            if let Some(framing) = reader.framing() {
                self.client.outbox.set_framing(framing);
            }
            for frame in std::mem::take(&mut frames) {
                if closing.is_cancelled() {
                    return;
                }
                match frame {
                    Frame::Message(line) => self.on_line(line).await,
                    Frame::TooLong { bytes } => {
                        let limit = self.server.host.config.limits.line_bytes;
                        let what = format!(
                            "Invalid Request: a message of {bytes} bytes is over the limit of {limit} (limits.line_bytes)"
                        );
                        self.complain("null", crate::acp::failure::INVALID_REQUEST, what)
                            .await;
                    }
                    Frame::Broken(why) => {
                        self.complain("null", -32700, format!("Parse error: {why}"))
                            .await;
                        return;
                    }
                }
            }
        }
    }

    async fn on_line(self: &Arc<Self>, line: Bytes) {
        let depth = self.server.host.config.limits.depth;
        match Message::parse(&line, depth) {
            Ok(parsed) if !parsed.versioned => {
                let what = "Invalid Request: `jsonrpc` must be \"2.0\"".to_owned();
                match parsed.body {
                    crate::rpc::Body::Request { id, .. } => {
                        self.complain(id, crate::acp::failure::INVALID_REQUEST, what)
                            .await;
                    }
                    _ => {
                        self.complain("null", crate::acp::failure::INVALID_REQUEST, what)
                            .await
                    }
                }
            }
            Ok(parsed) => {
                let span = session_span(&parsed.body);
                self.dispatch(parsed).instrument(span).await;
            }
            Err(malformed) if malformed.response => self.on_bad_response(&malformed).await,
            Err(Malformed { id, error, .. }) => {
                let _ = self.client.outbox.send(&message::error(&id, &error)).await;
            }
        }
    }

    /// Ends when a client has not introduced itself in time.
    async fn expect_handshake(&self, patience: Option<Duration>) {
        let Some(patience) = patience else {
            return std::future::pending().await;
        };
        tokio::time::sleep(patience).await;
        if self.client.offer().initialized {
            return std::future::pending().await;
        }
        let what = format!(
            "Invalid Request: no `initialize` came within {} s (server.handshake_timeout)",
            patience.as_secs_f32()
        );
        self.complain("null", crate::acp::failure::INVALID_REQUEST, what)
            .await;
    }

    /// Ends when a client that has not introduced itself must go, for a newer one.
    async fn give_way(&self) {
        let Some(seat) = self.gate.seat.as_ref().and_then(Weak::upgrade) else {
            return std::future::pending().await;
        };
        seat.must_go().await;
        let complaint = self.complain("null", crate::acp::failure::INTERNAL_ERROR, seat.why());
        let _ = tokio::time::timeout(FAREWELL, complaint).await;
    }

    pub(super) async fn complain(&self, id: &str, code: i32, what: String) {
        let error = jsonrpsee_types::ErrorObjectOwned::owned(code, what, None::<()>);
        let _ = self.client.outbox.send(&message::error(id, &error)).await;
    }

    /// Waits for the answers that are still due to a client that sends nothing more.
    async fn drain(&self, shutdown: &CancellationToken, is_gone: impl Fn() -> bool) -> Ending {
        // It cannot answer either, but it may well read on.
        self.client.gone.cancel();
        self.stop_asking("the client closed its side of the connection")
            .await;
        self.tasks.close();
        loop {
            let mut agents = self.server.host.registry.all();
            // It has no session, and may still be asked to log in.
            agents.extend(self.client.parked());
            let is_due = !self.tasks.is_empty()
                || self.client.is_lagging()
                || self.server.host.restarts.owes(&self.client)
                || agents.iter().any(|live| live.owes(&self.client));
            if !is_due {
                return Ending::Done;
            }
            if is_gone() {
                return Ending::Gone;
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ending::Shutdown,
                () = self.client.outbox.closed() => return Ending::Gone,
                () = tokio::time::sleep(DRAIN_CHECK) => {}
            }
        }
    }

    /// Lets everything fail closed that waits for this client's answers.
    async fn stop_asking(&self, reason: &str) {
        for live in self.server.host.registry.all() {
            live.stop_asking(&self.client, reason).await;
        }
    }

    /// Registers a request that acpbox works on itself.
    pub fn begin(&self, id: &str) -> CancellationToken {
        let token = CancellationToken::new();
        self.running().insert(id.into(), token.clone());
        token
    }

    pub fn end(&self, id: &str) {
        self.running().remove(id);
    }

    /// Cancels a request that acpbox works on itself. `false` if there is none of that id.
    pub fn cancel(&self, id: &str) -> bool {
        self.running()
            .get(id)
            .inspect(|token| token.cancel())
            .is_some()
    }

    /// Whether a request of this raw id is not answered yet.
    pub fn owes_answer(&self, id: &str) -> bool {
        let mut agents = self.server.host.registry.all();
        agents.extend(self.client.parked());
        self.running().contains_key(id) || agents.iter().any(|it| it.owes_answer(&self.client, id))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Box<str>, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
