//! A small ACP client of an acpbox server: inside this process, behind a shim, or
//! at the other end of a stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::shim::{Link, Shim};
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::{BatchReader, Body, Message, Outbox, Outcome, message, write_loop};
use crate::server::{self, Gate, Server};

/// Room between client and server, in bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// How long a shim may take to pass on what was said last.
const FAREWELL: Duration = Duration::from_millis(500);

/// A connection to a server.
pub(super) struct Client {
    outbox: Outbox,
    reader: BatchReader<Box<dyn AsyncRead + Send + Unpin>>,
    depth: usize,
    last_id: u64,
    shutdown: CancellationToken,
    /// What serves it in this process.
    serving: Option<JoinHandle<()>>,
    farewell: Duration,
}

/// What the server sent. Ids, params, results and errors are raw JSON.
pub(super) enum Incoming {
    Request {
        id: String,
        method: String,
        params: String,
    },
    Notification {
        method: String,
        params: String,
    },
    Response {
        id: u64,
        outcome: Result<String, String>,
    },
}

/// The server ended the connection.
#[derive(Debug, thiserror::Error)]
#[error("the acpbox server ended the connection")]
pub(super) struct Ended;

impl Client {
    /// Starts serving on the runtime that this is called in.
    pub(super) fn connect(server: Arc<Server>) -> Client {
        let limits = &server.host.config.limits;
        let depth = limits.depth;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (input, output) = tokio::io::split(theirs);
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let serving = tokio::spawn(async move {
            server::serve(server, input, output, Gate::default(), token, || false).await;
        });
        let (reading, writing) = tokio::io::split(ours);
        Client {
            shutdown,
            serving: Some(serving),
            ..Client::over(reading, writing, depth)
        }
    }

    /// Uses a server that runs already, and finds it again.
    pub(super) fn through(shim: Shim, link: Link, depth: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (input, output) = tokio::io::split(theirs);
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let serving = tokio::spawn(async move {
            shim.serve(link, input, output, token, || false).await;
        });
        let (reading, writing) = tokio::io::split(ours);
        Client {
            shutdown,
            serving: Some(serving),
            farewell: FAREWELL,
            ..Client::over(reading, writing, depth)
        }
    }

    /// A client of the server at the other end. `depth` is how deep its messages
    /// may nest. Call within a tokio runtime.
    pub(super) fn over(
        reading: impl AsyncRead + Send + Unpin + 'static,
        writing: impl AsyncWrite + Send + Unpin + 'static,
        depth: usize,
    ) -> Client {
        let (outbox, queue) = Outbox::new();
        tokio::spawn(write_loop(queue, writing));
        Client {
            outbox,
            // What acpbox itself writes is not bounded again: a reply that streamed in
            // many messages, each within the limit, comes in one at the end.
            reader: BatchReader::new(Box::new(reading), Decoder::lines(usize::MAX)),
            depth,
            last_id: 0,
            shutdown: CancellationToken::new(),
            serving: None,
            farewell: Duration::ZERO,
        }
    }

    /// Sends a request; its answer comes under the id that is returned.
    pub(super) async fn request(&mut self, method: &str, params: &str) -> Result<u64, Ended> {
        self.last_id += 1;
        let line = message::request(self.last_id, method, params);
        self.outbox.send(&line).await.map_err(|_| Ended)?;
        Ok(self.last_id)
    }

    pub(super) async fn notify(&self, method: &str, params: &str) -> Result<(), Ended> {
        let line = message::notification(method, params);
        self.outbox.send(&line).await.map_err(|_| Ended)
    }

    /// Answers a request of the server's.
    pub(super) async fn respond(
        &self,
        id: &str,
        outcome: Result<&str, (i32, &str)>,
    ) -> Result<(), Ended> {
        let line = match outcome {
            Ok(result) => message::result(id, result),
            Err((code, what)) => {
                let error = jsonrpsee_types::ErrorObjectOwned::owned(code, what, None::<()>);
                message::error(id, &error)
            }
        };
        self.outbox.send(&line).await.map_err(|_| Ended)
    }

    /// Waits for messages: all that came at once. Safe to drop while it waits.
    pub(super) async fn receive(&mut self) -> Result<Vec<Incoming>, Ended> {
        let mut frames = Vec::new();
        if !matches!(self.reader.read(&mut frames).await, Ok(true)) {
            return Err(Ended);
        }
        let messages = frames.iter().filter_map(|frame| match frame {
            Frame::Message(line) => read(line, self.depth, self.last_id),
            Frame::TooLong { .. } | Frame::Broken(_) => None,
        });
        Ok(messages.collect())
    }

    /// Whether the server outlives this process.
    pub(super) fn is_shared(&self) -> bool {
        !self.farewell.is_zero()
    }

    /// Ends the connection; sessions live on.
    pub(super) async fn close(self) {
        drop(self.outbox);
        let Some(mut serving) = self.serving else {
            return;
        };
        let ended = tokio::time::timeout(self.farewell, &mut serving).await;
        if ended.is_err() {
            self.shutdown.cancel();
            let _ = serving.await;
        }
    }
}

/// `None` for what is no message: the server writes none such. An answer without
/// an id is to a request that was too long or too deep to be read: the latest.
fn read(line: &[u8], depth: usize, latest: u64) -> Option<Incoming> {
    // The server's own additions to a message may nest a little deeper.
    let parsed = Message::parse(line, depth.saturating_add(16)).ok()?;
    let raw = |params: Option<&str>| params.unwrap_or("{}").to_owned();
    Some(match parsed.body {
        Body::Request { id, method, params } => Incoming::Request {
            id: id.to_owned(),
            method: method.into_owned(),
            params: raw(params),
        },
        Body::Notification { method, params } => Incoming::Notification {
            method: method.into_owned(),
            params: raw(params),
        },
        Body::Response { id, outcome } => Incoming::Response {
            id: match id {
                "null" => latest,
                id => id.parse().ok()?,
            },
            outcome: match outcome {
                Outcome::Result(result) => Ok(result.to_owned()),
                Outcome::Error(error) => Err(error.to_owned()),
            },
        },
    })
}
