//! A client that sends by POST and reads event streams. To the rest of acpbox it is
//! a connection as any other; here its messages are told apart by where they go.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Site;
use super::outgoing::{Budget, Outgoing};
use super::websocket::BRIDGE_BYTES;
use crate::acp::methods;
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::message::{self, ANY_DEPTH, Body, Message, Outcome};
use crate::rpc::splice::{self, Edits};
use crate::rpc::{BatchReader, Framing};
use crate::server::connection::{Gate, serve};

/// Sessions of one client with a stream, or with something that waits for one.
const SESSION_STREAMS: usize = 1024;

/// Requests of one client, or to it, that may wait for their answers.
const OPEN_REQUESTS: usize = 4096;

/// All clients of one address.
pub struct Remotes {
    limit: usize,
    by_id: Mutex<HashMap<String, Arc<Remote>>>,
}

/// One client.
pub struct Remote {
    pub id: String,
    /// Its token came in `initialize` and not in a header. Its id, which nobody can
    /// guess, stands for the token from then on.
    pub is_trusted: bool,
    /// The way to acpbox; absent at the end.
    writing: tokio::sync::Mutex<Option<WriteHalf<DuplexStream>>>,
    routes: Mutex<Routes>,
    pub budget: Arc<Budget>,
    used: Mutex<Instant>,
    pub end: CancellationToken,
}

struct Routes {
    /// For what belongs to no session.
    connection: Arc<Outgoing>,
    sessions: HashMap<String, Arc<Outgoing>>,
    /// Where answers to the client go, by the raw id of its request.
    answers: HashMap<String, Asked>,
    /// Which session's stream a request to the client was put on, by its raw id.
    requests: HashMap<String, String>,
    /// Who waits for the answer to `initialize`.
    introduction: Option<oneshot::Sender<String>>,
}

/// A request of the client's.
#[derive(Clone, Default)]
pub struct Asked {
    /// Absent for the connection's own stream.
    pub session: Option<String>,
    /// The session that it lets the client follow, from now on.
    pub follows: Option<String>,
    /// The session that its result is to name, as the RFD shows it, since the client
    /// reads no stream of it yet.
    pub begins: Option<String>,
}

/// Where a message to the client goes.
enum Where {
    Stream(Arc<Outgoing>),
    /// Somebody waited for it.
    Taken,
    /// There is no room for another stream.
    Full,
}

/// Why nothing can be sent to acpbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The connection has ended.
    Ended,
    /// Too many requests wait for their answers.
    TooMany,
}

impl Remotes {
    /// So many clients at once, at most.
    pub fn new(limit: usize) -> Remotes {
        Remotes {
            limit,
            by_id: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Remote>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Remote>> {
        self.lock().get(id).cloned()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// What waits to be read by all clients, in bytes.
    pub fn held(&self) -> usize {
        self.lock()
            .values()
            .map(|remote| remote.budget.held())
            .sum()
    }
}

impl Site {
    /// Lets a client in whose first message, `initialize`, is about to come. Its
    /// answer comes through the channel. `None` if all places are taken.
    pub fn admit(
        self: &Arc<Self>,
        is_authorized: bool,
    ) -> Option<(Arc<Remote>, oneshot::Receiver<String>)> {
        let (ours, theirs) = tokio::io::duplex(BRIDGE_BYTES);
        let (reading, writing) = tokio::io::split(ours);
        let (sender, introduction) = oneshot::channel();
        let remote = Remote::new(!is_authorized, writing, sender);
        {
            let mut all = self.remotes.lock();
            if all.len() >= self.remotes.limit {
                return None;
            }
            all.insert(remote.id.clone(), Arc::clone(&remote));
        }
        let gate = Gate {
            token: (!is_authorized).then(|| self.token.clone()),
            patience: Some(self.settings.handshake_timeout),
            peer: "HTTP".to_owned(),
            framing: Some(Framing::Lines),
            seat: None,
        };
        let (site, served) = (Arc::clone(self), Arc::clone(&remote));
        self.tasks.spawn(async move {
            let (input, output) = tokio::io::split(theirs);
            let serving = serve(
                Arc::clone(&site.server),
                input,
                output,
                gate,
                site.shutdown.clone(),
                || served.end.is_cancelled(),
            );
            let routing = served.route(
                reading,
                site.settings
                    .idle_timeout
                    .max(site.settings.keepalive.saturating_mul(2)),
            );
            let (ending, ()) = tokio::join!(serving, routing);
            tracing::debug!(?ending, "a client's connection of event streams ended");
            site.remotes.lock().remove(&served.id);
        });
        Some((remote, introduction))
    }
}

impl Remote {
    fn new(
        is_trusted: bool,
        writing: WriteHalf<DuplexStream>,
        introduction: oneshot::Sender<String>,
    ) -> Arc<Remote> {
        let budget = Arc::<Budget>::default();
        Arc::new(Remote {
            id: uuid::Uuid::new_v4().to_string(),
            is_trusted,
            writing: tokio::sync::Mutex::new(Some(writing)),
            routes: Mutex::new(Routes {
                connection: Outgoing::new(&budget),
                sessions: HashMap::new(),
                answers: HashMap::new(),
                requests: HashMap::new(),
                introduction: Some(introduction),
            }),
            budget,
            used: Mutex::new(Instant::now()),
            end: CancellationToken::new(),
        })
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client is there.
    pub fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The stream of a session, or the connection's own. `None` if there are too many.
    pub fn outgoing(&self, session: Option<&str>) -> Option<Arc<Outgoing>> {
        match self.routes().outgoing(session, &self.budget) {
            Where::Stream(outgoing) => Some(outgoing),
            Where::Taken | Where::Full => None,
        }
    }

    /// The session whose stream this request to the client was put on.
    pub fn session_of(&self, id: &str) -> Option<String> {
        self.routes().requests.get(id).cloned()
    }

    /// Hands a message of the client's to acpbox, once there is room. `asked` goes
    /// with a request, `answered` is the id that a response has.
    pub async fn send(
        &self,
        message: &[u8],
        asked: Option<(&str, Asked)>,
        answered: Option<&str>,
    ) -> Result<(), Unsent> {
        if let Some((id, asked)) = asked {
            let mut routes = self.routes();
            if routes.answers.len() >= OPEN_REQUESTS {
                return Err(Unsent::TooMany);
            }
            routes.answers.insert(id.to_owned(), asked);
        }
        let writing = async {
            let mut writing = self.writing.lock().await;
            let Some(writing) = writing.as_mut() else {
                return false;
            };
            writing.write_all(message).await.is_ok()
        };
        let is_sent = tokio::select! {
            is_sent = writing => is_sent,
            () = self.end.cancelled() => false,
        };
        if let Some(id) = answered {
            self.routes().requests.remove(id);
        }
        match is_sent {
            true => Ok(()),
            false => Err(Unsent::Ended),
        }
    }

    /// Takes what acpbox says to where it is read, until either side ends.
    async fn route(&self, reading: ReadHalf<DuplexStream>, idle_timeout: Duration) {
        tokio::select! {
            () = self.deliver_all(reading) => {}
            () = self.end.cancelled() => {}
            () = self.idle(idle_timeout) => {
                tracing::info!("a client of event streams reads none (server.idle_timeout)");
            }
        }
        // Whoever writes lets go of it now.
        self.end.cancel();
        self.writing.lock().await.take();
        let mut routes = self.routes();
        routes.introduction = None;
        routes.connection.end();
        for outgoing in routes.sessions.values() {
            outgoing.end();
        }
    }

    /// Ends once the client neither sent nor took anything for so long.
    async fn idle(&self, timeout: Duration) {
        loop {
            let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
            if used.elapsed() >= timeout {
                return;
            }
            tokio::time::sleep_until(used + timeout).await;
        }
    }

    async fn deliver_all(&self, reading: ReadHalf<DuplexStream>) {
        let mut reader = BatchReader::new(reading, Decoder::lines(usize::MAX));
        let mut frames = Vec::new();
        while let Ok(true) = reader.read(&mut frames).await {
            for frame in frames.drain(..) {
                if let Frame::Message(line) = frame {
                    self.deliver(&line).await;
                }
            }
        }
    }

    async fn deliver(&self, line: &[u8]) {
        let Ok(message) = Message::parse(line, ANY_DEPTH) else {
            tracing::error!("a message to a client is none");
            return;
        };
        let mut text = Cow::Borrowed(message.text);
        let outgoing = match message.body {
            Body::Response { id, outcome } => self.answer(id, outcome, &mut text),
            Body::Request { id, params, .. } => {
                let session = session_of(params);
                let mut routes = self.routes();
                if let Some(session) = &session
                    && routes.requests.len() < OPEN_REQUESTS
                {
                    routes.requests.insert(id.to_owned(), session.clone());
                }
                routes.outgoing(session.as_deref(), &self.budget)
            }
            Body::Notification { method, params } => {
                let mut routes = self.routes();
                let mut session = session_of(params);
                if method == methods::CANCEL_REQUEST {
                    // It follows the request that it takes back.
                    let id = params.and_then(|params| splice::member(params, "requestId"));
                    session = id.and_then(|id| routes.requests.remove(id));
                }
                let outgoing = routes.outgoing(session.as_deref(), &self.budget);
                if method == methods::SESSION_UPDATE
                    && let Where::Stream(outgoing) = &outgoing
                    && let Some(seq) = params.and_then(seq_of)
                {
                    outgoing.push_update(seq, &text);
                    return;
                }
                outgoing
            }
        };
        match outgoing {
            Where::Stream(outgoing) => outgoing.push(&text).await,
            Where::Taken => {}
            // Nothing may be left out, so it ends; it may come back and load less.
            Where::Full => self.end.cancel(),
        }
    }

    /// Where an answer goes, and with what text.
    fn answer<'a>(&self, id: &str, outcome: Outcome<'a>, text: &mut Cow<'a, str>) -> Where {
        let mut routes = self.routes();
        if let Some(introduction) = routes.introduction.take() {
            let _ = introduction.send(text.to_string());
            return Where::Taken;
        }
        let asked = routes.answers.remove(id).unwrap_or_default();
        if let Outcome::Result(result) = outcome {
            if let Some(follows) = asked.follows
                && let Some(seq) = last_seq(result)
                && let Some(outgoing) = routes.sessions.get(&follows)
            {
                outgoing.followed_from(seq);
            }
            if let Some(begins) = asked.begins
                && let Cow::Borrowed(whole) = *text
            {
                let mut edits = Edits::of(whole);
                edits.set(result, "sessionId", json!(begins).to_string());
                *text = Cow::Owned(edits.apply());
            }
        }
        routes.outgoing(asked.session.as_deref(), &self.budget)
    }
}

impl Routes {
    fn outgoing(&mut self, session: Option<&str>, budget: &Arc<Budget>) -> Where {
        let Some(session) = session else {
            return Where::Stream(Arc::clone(&self.connection));
        };
        if let Some(outgoing) = self.sessions.get(session) {
            return Where::Stream(Arc::clone(outgoing));
        }
        if self.sessions.len() >= SESSION_STREAMS {
            self.sessions.retain(|_, outgoing| !outgoing.is_vacant());
            if self.sessions.len() >= SESSION_STREAMS {
                tracing::warn!("a client follows more than {SESSION_STREAMS} sessions");
                return Where::Full;
            }
        }
        let outgoing = Outgoing::new(budget);
        self.sessions
            .insert(session.to_owned(), Arc::clone(&outgoing));
        Where::Stream(outgoing)
    }
}

/// `params.sessionId`.
pub fn session_of(params: Option<&str>) -> Option<String> {
    let raw = params.and_then(|params| splice::member(params, "sessionId"));
    raw.and_then(message::string).map(Cow::into_owned)
}

/// The number of an update, from the whole message.
pub fn update_seq(line: &str) -> Option<i64> {
    splice::member(line, "params").and_then(seq_of)
}

fn seq_of(params: &str) -> Option<i64> {
    ours(params)
        .and_then(|ours| splice::member(ours, "seq"))?
        .parse()
        .ok()
}

fn last_seq(result: &str) -> Option<i64> {
    ours(result)
        .and_then(|ours| splice::member(ours, "lastSeq"))?
        .parse()
        .ok()
}

/// `_meta.acpbox`.
fn ours(object: &str) -> Option<&str> {
    splice::member(object, "_meta").and_then(|meta| splice::member(meta, "acpbox"))
}
