//! What a live session remembers, and the batch of effects that one change to
//! it has: rows to commit, then bytes to send, then the rest.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::asking::Question;
use super::attached::{Attached, Follower};
use super::client::Client;
use super::delivery::{Outgoing, Started};
use super::policy::ToolCalls;
use super::registry::KnownIds;
use crate::acp::Failure;
use crate::acp::methods::{self, response_kind};
use crate::rpc::splice::Edits;
use crate::rpc::{Body, Message, Outcome, Pending, message};
use crate::store::{Direction, EventRow, LogLine, SessionRow, TurnRow};
use crate::transcript::Echo;
pub use crate::transcript::meta::{set_meta, with_meta};

/// The longest reply that a prompt result carries in `_meta.acpbox.text`.
pub const REPLY_BYTES: usize = 4 * 1024 * 1024;

/// What an agent may say before its session begins, in bytes. A guess: the most
/// seen is half a megabyte.
pub const EARLY_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct State {
    pub row: SessionRow,
    pub session: Arc<str>,
    pub known_ids: KnownIds,
    pub next_seq: i64,
    /// The last event that is in the database.
    pub stored: i64,
    /// Set once events could not be stored: from then on none is recorded but the
    /// session's end, right behind the last that was.
    pub lost: Option<Lost>,
    /// The session is being brought back, and no way has worked yet: its row is
    /// left as it was.
    pub is_coming_back: bool,
    /// Whether the session's row is in the database. Until then events wait in `early`.
    pub is_stored: bool,
    pub early: Vec<EventRow>,
    /// What they take in memory, about.
    pub early_bytes: usize,
    /// Events from the client's side, to be committed with the next ones from
    /// the agent's, or soon after: nobody is shown them.
    pub backlog: Vec<EventRow>,
    /// Lines of the agent's log that wait for the session's row too.
    pub early_log: VecDeque<LogLine>,
    /// Whether the client knows the session's id. Until then updates wait in `held`.
    pub is_announced: bool,
    pub held: Vec<String>,
    pub held_bytes: usize,
    /// The agent replays a history that the transcript has already.
    pub is_swallowing: bool,
    /// Requests sent to the agent.
    pub pending: Pending<Waiting>,
    /// Those who follow the session.
    pub clients: Vec<Attached>,
    /// Those who followed to the agent's end and lack some of it.
    pub leaving: Vec<Attached>,
    /// What the agent asked of them, oldest first.
    pub questions: Vec<Question>,
    pub turn: Option<Turn>,
    /// The agent's prompt whose turn acpbox ended, until the agent answers it:
    /// what comes from it meanwhile is shown to nobody, and no turn begins.
    pub fence: Option<u64>,
    pub queue: VecDeque<QueuedPrompt>,
    pub tool_calls: ToolCalls,
    /// Prompts whose turns began, to be shown with what is sent next.
    pub started: Vec<Started>,
    /// The last event that has been shown to all who keep up.
    pub shown: i64,
    /// What is new of turns, to be committed with the events.
    pub turn_rows: Vec<TurnRow>,
    /// Text to put in front of the first prompt, for agents that take instructions no other way.
    pub first_prompt: Option<String>,
    /// Set once the agent is gone; nothing can be sent any more.
    pub ended: Option<Failure>,
    /// When anything last went on.
    pub active: Instant,
    /// Messages of clients that are being brought to the agent.
    pub visits: usize,
    /// The agent is going to sleep: nothing is sent to it any more.
    pub is_leaving: bool,
    /// Those who followed the session to the agent's end, and follow it again
    /// once it is back.
    pub followers: Vec<Follower>,
    /// What the agent offered when it began: see `selection::of`.
    pub selection: Box<str>,
    /// The line that tells clients of a sleeping session's return, until they are there.
    pub woke: Option<String>,
}

/// Events that could not be stored.
#[derive(Debug, Clone)]
pub struct Lost {
    pub failure: Failure,
    /// The last event before them.
    pub after: i64,
}

/// Who waits for a response of the agent's.
#[derive(Debug)]
pub enum Waiting {
    Client {
        client: Arc<Client>,
        /// The client's own id, raw.
        id: Box<str>,
        method: Box<str>,
    },
    Own {
        method: &'static str,
        reply: oneshot::Sender<Result<Box<str>, OwnError>>,
    },
    /// Somebody waited, and was answered by acpbox meanwhile.
    Abandoned { method: Box<str> },
}

/// Why a request of acpbox's own failed.
#[derive(Debug)]
pub enum OwnError {
    /// The agent's raw error object.
    Agent(Box<str>),
    Failed(Failure),
}

/// Who sent a prompt, and under which id.
#[derive(Debug, Clone)]
pub struct Asker {
    pub client: Arc<Client>,
    /// The client's own id, raw.
    pub id: Box<str>,
}

impl Asker {
    pub fn is(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        Arc::ptr_eq(&self.client, client) && &*self.id == raw_id
    }
}

#[derive(Debug)]
pub struct Turn {
    /// The id of the prompt as the agent knows it.
    pub request: u64,
    /// The number of the prompt's event.
    pub prompt: i64,
    /// Who sent the same prompt again while it ran.
    pub joined: Vec<Asker>,
    /// Who is not shown the prompt, and so is shown what the agent says back of it.
    pub knowing: Vec<Arc<Client>>,
    pub echo: Echo,
    pub text: String,
    pub is_truncated: bool,
    /// The client asked for cancellation; a timer runs.
    pub is_cancelled: bool,
}

#[derive(Debug)]
pub struct QueuedPrompt {
    /// The number of its event.
    pub seq: i64,
    /// Who sent it first, then who sent it again.
    pub askers: Vec<Asker>,
    /// What the agent is to get.
    pub text: Box<str>,
    /// By which its sender knows it.
    pub key: Option<Box<str>>,
    /// Whether its event is in the database, where that must come first.
    pub is_committed: bool,
}

/// What one change leads to.
#[derive(Default)]
pub struct Batch {
    pub events: Vec<EventRow>,
    /// Whether the rows must be on disk, not only committed.
    pub durable: bool,
    pub sends: Vec<Outgoing>,
    /// The number of the last event before what is sent now.
    pub through: i64,
    /// The requests, by their client's raw id, whose answers are among `sends`.
    pub answered: Vec<(Arc<Client>, Box<str>)>,
    /// Lines for the agent.
    pub answers: Vec<String>,
    pub after: Vec<After>,
    /// Whether the session's row is to be written.
    pub row: bool,
    /// The session, if its row is yet to be made: with its first events, or not at all.
    pub creates: Option<Box<SessionRow>>,
    /// Whether this is the session's end here.
    pub is_last: bool,
}

/// What happens once the rows are committed and the bytes sent.
pub enum After {
    Reply(
        oneshot::Sender<Result<Box<str>, OwnError>>,
        Result<Box<str>, OwnError>,
    ),
    /// A `terminal/*` request of the agent's: id, method, params, and the room it takes.
    Terminal {
        room: OwnedSemaphorePermit,
        id: Box<str>,
        method: Box<str>,
        params: Box<str>,
    },
    /// The agent broke the protocol beyond repair.
    Kill(Failure),
    /// Text for the agent's log.
    Noise(String),
}

impl State {
    /// Gives the next number to an event and has it written. Once the agent is
    /// gone, nothing is: the transcript may be another's to write by now.
    pub fn record(
        &mut self,
        batch: &mut Batch,
        direction: Direction,
        kind: std::borrow::Cow<'static, str>,
        raw: impl Into<Box<str>>,
    ) -> i64 {
        let seq = self.next_seq;
        if self.ended.is_some() || (self.lost.is_some() && !batch.is_last) {
            return seq;
        }
        self.next_seq += 1;
        self.active = Instant::now();
        batch.through = seq;
        let raw = raw.into();
        super::usage::count(&mut self.row.usage, seq, &kind, &raw);
        batch.events.push(EventRow {
            session: Arc::clone(&self.session),
            seq,
            time: now(),
            direction,
            kind,
            raw,
        });
        seq
    }

    /// Records a notification that acpbox itself makes, and returns its line.
    pub fn record_own(
        &mut self,
        batch: &mut Batch,
        method: &'static str,
        params: &impl serde::Serialize,
    ) -> String {
        let params = serde_json::to_string(params).unwrap_or_else(|_| "{}".into());
        let line = message::notification(method, &params);
        self.record(batch, Direction::Acpbox, method.into(), line.as_str());
        line
    }

    /// Answers a client's request with an error of acpbox's own, which is an event too.
    pub fn refuse(
        &mut self,
        batch: &mut Batch,
        client: &Arc<Client>,
        id: &str,
        method: &str,
        failure: &Failure,
    ) {
        let line = message::error(id, &failure.to_error_object());
        self.record(
            batch,
            Direction::Acpbox,
            response_kind(method, true),
            line.as_str(),
        );
        batch.answered.push((Arc::clone(client), id.into()));
        batch.send(client, &[&line]);
    }

    /// Answers the client that waits, in its own words. Ends the turn if this was its prompt.
    pub fn answer(
        &mut self,
        batch: &mut Batch,
        waiting: Waiting,
        text: &str,
        raw_id: &str,
        outcome: Outcome<'_>,
    ) {
        match waiting {
            Waiting::Own { method, reply } => {
                let outcome = match outcome {
                    Outcome::Result(result) => Ok(result.into()),
                    Outcome::Error(error) => Err(OwnError::Agent(error.into())),
                };
                tracing::trace!(method, "the agent answered");
                // What comes behind the answer to load or resume is new.
                self.is_swallowing = false;
                batch.after.push(After::Reply(reply, outcome));
            }
            Waiting::Abandoned { method } => {
                let kind = methods::late_kind(&method);
                self.record(batch, Direction::Agent, kind, text);
                self.fence = None;
            }
            Waiting::Client { client, id, method } => {
                self.answer_client(batch, &client, &id, &method, text, raw_id, outcome);
            }
        }
    }

    /// [`State::answer`] with a response that acpbox made itself.
    pub fn answer_with(&mut self, batch: &mut Batch, waiting: Waiting, line: &str) {
        if let Ok(Message {
            text,
            body: Body::Response { id, outcome },
            ..
        }) = Message::parse(line.as_bytes(), message::ANY_DEPTH)
        {
            self.answer(batch, waiting, text, id, outcome);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one response")]
    fn answer_client(
        &mut self,
        batch: &mut Batch,
        client: &Arc<Client>,
        id: &str,
        method: &str,
        text: &str,
        raw_id: &str,
        outcome: Outcome<'_>,
    ) {
        let mut edits = Edits::of(text);
        edits.replace(raw_id, id);
        let public = self.public_id();
        if let Outcome::Result(result) = outcome
            && let Some(theirs) = crate::rpc::splice::member(result, "sessionId")
            && self.is_agents_own(theirs)
        {
            edits.replace(theirs, public.as_str());
        }
        let line = edits.apply();
        let is_error = matches!(outcome, Outcome::Error(_));
        if method == methods::SESSION_PROMPT {
            let asker = Asker {
                client: Arc::clone(client),
                id: id.into(),
            };
            self.end_turn(batch, asker, &line, Direction::Agent, is_error);
            return;
        }
        batch.answered.push((Arc::clone(client), id.into()));
        let kind = response_kind(method, is_error);
        self.record(batch, Direction::Agent, kind, line.as_str());
        batch.send(client, &[&line]);
    }

    /// Notes that what was recorded since the last commit is not stored.
    pub fn lose(&mut self, failure: &Failure) {
        if self.lost.is_some() {
            return;
        }
        // The session itself was to be made, and is not there.
        self.is_stored &= self.stored > 0;
        self.backlog.clear();
        self.turn_rows.clear();
        self.started.clear();
        self.next_seq = self.stored + 1;
        self.lost = Some(Lost {
            failure: failure.clone(),
            after: self.stored,
        });
    }

    /// Whether an event of that number was to be stored, and is not.
    pub fn is_lost(&self, seq: i64) -> bool {
        self.lost.as_ref().is_some_and(|lost| seq > lost.after)
    }

    /// Adds to the reply that the turn's result will carry.
    pub fn add_reply(&mut self, chunk: &str) {
        let Some(turn) = &mut self.turn else { return };
        if turn.text.len() + chunk.len() > REPLY_BYTES {
            turn.is_truncated = true;
        } else if !turn.is_truncated {
            turn.text.push_str(chunk);
        }
    }

    /// Keeps events until the session has a row. `false` when there are too many.
    pub fn keep_early(&mut self, events: Vec<EventRow>) -> bool {
        let taken = events
            .iter()
            .map(|event| event.raw.len() + size_of::<EventRow>());
        self.early_bytes += taken.sum::<usize>();
        if self.early_bytes > EARLY_BYTES {
            return false;
        }
        self.early.extend(events);
        true
    }

    /// The session's public id as JSON.
    pub fn public_id(&self) -> String {
        format!("\"{}\"", self.session)
    }

    /// Whether a raw JSON value in the agent's message stands for this session:
    /// the agent's own id of it; before that is known, one process having one
    /// session, any id; and other sessions' public ids, since an agent can
    /// speak for no session but its own.
    pub fn is_agents_own(&self, raw: &str) -> bool {
        match &self.row.agent_session {
            Some(own) => message::string(raw)
                .is_some_and(|id| id == own.as_str() || self.known_ids.contains(&id)),
            None => raw.starts_with('"'),
        }
    }
}

/// Milliseconds since 1970 by the host's clock.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
