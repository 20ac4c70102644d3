//! A connection to a server that has said what it is.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::task::JoinHandle;

use crate::acp::extension::{ServerInfo, ServerRetirement};
use crate::acp::methods;
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::message::{self, ANY_DEPTH, Body, Message, Outcome};
use crate::rpc::{BatchReader, Outbox, splice, write_loop};
use crate::session::handshake::own_info;

/// How long a server may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one that retires may take to end its sessions.
const RETIRING: Duration = Duration::from_secs(15);

/// How long what is queued may take to leave in the end.
const FAREWELL: Duration = Duration::from_millis(500);

pub(in crate::cli) struct Link {
    pub(super) reader: BatchReader<OwnedReadHalf>,
    /// Absent once nothing more is to be sent.
    pub(super) outbox: Option<Outbox>,
    /// What is to be sent before anything else.
    pub(super) first: Vec<String>,
    pub(super) info: ServerInfo,
    writing: JoinHandle<io::Result<()>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLink {
    /// Nobody listens there.
    #[error("no server runs")]
    Nobody,
    /// It let the connection go before it had said what it is, as one does that ends.
    #[error("{0}")]
    Leaving(String),
    #[error("{0}")]
    Unusable(String),
    /// It will not be of use to this version of acpbox, however long one waits.
    #[error("{0}")]
    Incompatible(String),
}

/// Why a request of the shim's own has no result.
enum NoResult {
    Ended(String),
    Error(String),
}

impl Link {
    /// Connects and introduces the client with the params of its `initialize`, or
    /// acpbox itself.
    pub(super) async fn open(socket: &Path, initialize: Option<&str>) -> Result<Link, NoLink> {
        let opening = Link::open_patiently(socket, initialize);
        tokio::time::timeout(PATIENCE, opening)
            .await
            .unwrap_or_else(|_| {
                let what = format!(
                    "the server at unix:{} does not answer within {} s",
                    socket.display(),
                    PATIENCE.as_secs()
                );
                Err(NoLink::Unusable(what))
            })
    }

    async fn open_patiently(socket: &Path, initialize: Option<&str>) -> Result<Link, NoLink> {
        let wrong = |what: String| {
            NoLink::Unusable(format!("the server at unix:{} {what}", socket.display()))
        };
        let unanswered = |why: NoResult| match why {
            NoResult::Error(what) => wrong(what),
            NoResult::Ended(what) => {
                NoLink::Leaving(format!("the server at unix:{} {what}", socket.display()))
            }
        };
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Err(NoLink::Nobody),
            // Its socket went while this waited to be taken in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                let what = "ended the connection before it took it in";
                return Err(unanswered(NoResult::Ended(what.to_owned())));
            }
            Err(error) => return Err(wrong(format!("cannot be reached: {error}"))),
        };
        let peer = stream
            .peer_cred()
            .map_err(|error| wrong(error.to_string()))?;
        if peer.uid() != rustix::process::getuid().as_raw() {
            return Err(wrong(format!("is another user's ({})", peer.uid())));
        }
        let (input, output) = stream.into_split();
        let (outbox, queue) = Outbox::new();
        let mut link = Link {
            // What the server itself writes is not bounded again: a reply that streamed
            // in many messages, each within the limit, comes in one at the end.
            reader: BatchReader::new(input, Decoder::lines(usize::MAX)),
            outbox: Some(outbox),
            first: Vec::new(),
            info: ServerInfo {
                version: String::new(),
                pid: 0,
                instance: String::new(),
                database: "".into(),
                config: "".into(),
                protocol: 0,
                spawned: false,
            },
            writing: tokio::spawn(write_loop(queue, output)),
        };
        let own =
            json!({ "protocolVersion": 1, "clientCapabilities": {}, "clientInfo": own_info() });
        let params = initialize.map_or_else(|| own.to_string(), str::to_owned);
        link.call(methods::INITIALIZE, &params)
            .await
            .map_err(unanswered)?;
        let info = link
            .call("_acpbox/server/info", "{}")
            .await
            .map_err(unanswered)?;
        link.info = serde_json::from_str(&info)
            .map_err(|error| wrong(format!("says something else of itself: {error}")))?;
        Ok(link)
    }

    /// The server's process.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.info.pid
    }

    /// Asks the server to end if nobody else uses it, and waits until it did.
    ///
    /// # Errors
    /// Why it goes on.
    pub(super) async fn retire(&mut self) -> Result<(), String> {
        let retirement = match self.call("_acpbox/server/retire", "{}").await {
            Ok(result) => serde_json::from_str::<ServerRetirement>(&result),
            Err(NoResult::Error(why)) => return Err(format!("it {why}")),
            // It cannot have been kept from answering by anything but its end.
            Err(NoResult::Ended(_)) => return Ok(()),
        };
        match retirement {
            Ok(ServerRetirement { retired: true, .. }) => {}
            Ok(refused) => return Err(refused.reason.unwrap_or_default()),
            Err(error) => return Err(error.to_string()),
        }
        let ended = async {
            let mut frames = Vec::new();
            while matches!(self.reader.read(&mut frames).await, Ok(true)) {
                frames.clear();
            }
        };
        let has_ended = tokio::time::timeout(RETIRING, ended).await;
        has_ended.map_err(|_| "it does not end though it said so".to_owned())
    }

    /// A request of the shim's own. Nothing else is expected meanwhile.
    async fn call(&mut self, method: &str, params: &str) -> Result<String, NoResult> {
        let id = own_id(method);
        let sent = self.send(&request(&id, method, params)).await;
        sent.map_err(NoResult::Ended)?;
        let mut frames = Vec::new();
        loop {
            if !matches!(self.reader.read(&mut frames).await, Ok(true)) {
                let what = format!("ended the connection during `{method}`");
                return Err(NoResult::Ended(what));
            }
            for frame in frames.drain(..) {
                let Frame::Message(line) = frame else {
                    continue;
                };
                let Ok(parsed) = Message::parse(&line, ANY_DEPTH) else {
                    continue;
                };
                match parsed.body {
                    Body::Response {
                        id: answered,
                        outcome: Outcome::Result(result),
                    } if answered == id => return Ok(result.to_owned()),
                    // One without an id says why nothing is answered.
                    Body::Response {
                        id: answered,
                        outcome: Outcome::Error(error),
                    } if answered == id || answered == "null" => {
                        let said = splice::member(error, "message").and_then(message::string);
                        let said = said.unwrap_or_default();
                        let what = format!("answers `{method}` with an error: {said}");
                        return Err(NoResult::Error(what));
                    }
                    _ => tracing::debug!("a message before the connection is made use of"),
                }
            }
        }
    }

    async fn send(&self, line: &str) -> Result<(), String> {
        let gone = || "ended the connection".to_owned();
        let outbox = self.outbox.as_ref().ok_or_else(gone)?;
        outbox.send(line).await.map_err(|_| gone())
    }

    /// Lets what is queued leave, for a moment.
    pub(super) async fn close(mut self) {
        self.outbox = None;
        let _ = tokio::time::timeout(FAREWELL, &mut self.writing).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

/// An id of the shim's own, raw, that no client gives; `for_what` tells it apart.
pub(super) fn own_id(for_what: &str) -> String {
    serde_json::Value::from(format!("acpbox-shim:{for_what}")).to_string()
}

pub(super) fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    [NotFound, ConnectionRefused, NotADirectory].contains(&error.kind())
}
