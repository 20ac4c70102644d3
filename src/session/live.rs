//! A session with a running agent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::delivery::Wanting;
use super::ending::Cause;
use super::hooks::Watch;
use super::host::Bounds;
use super::registry::Lease;
use super::restarts::Restarts;
use super::roots::Roots;
use super::state::{OwnError, State, Waiting};
use super::terminal::Terminals;
pub use super::unclaimed::Unclaimed;
use super::vms::Usage;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::agent::process::AgentProcess;
use crate::config::Permissions;
use crate::rpc::connection::Refused;
use crate::rpc::{Room, message};
use crate::store::{Direction, Store};
use crate::vm::Vm;

/// How long an agent that reads nothing holds up what its client sends. Once:
/// after that, messages are refused at once until it reads again.
const AGENT_PATIENCE: Duration = Duration::from_secs(2);

/// How long an agent may go on asking without reading the answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Answers that may wait beside the queue for an agent that does not read.
const LATE_BYTES: usize = 64 * 1024 * 1024;

pub struct Live {
    pub id: Arc<str>,
    pub agent_name: String,
    pub vm_name: String,
    pub(super) vm: Arc<dyn Vm>,
    pub(super) agent: AgentProcess,
    pub(super) store: Store,
    pub(super) bounds: Bounds,
    pub(super) permissions: Arc<Permissions>,
    pub(super) terminals: Terminals,
    /// What commands in terminals get: the agent's environment without its secrets.
    pub(super) base_environment: BTreeMap<String, String>,
    /// Instructions that this agent takes in `_meta` of requests for a session.
    pub(super) meta: Option<serde_json::Value>,
    /// What the agent answered to `initialize`, raw.
    initialized: Mutex<Arc<str>>,
    roots: Mutex<Arc<Roots>>,
    /// What the session was started with, with the values that are not stored.
    pub(super) asked: Mutex<Option<Asked>>,
    /// Holds the VM for this agent, as long as it runs.
    pub(super) usage: Mutex<Option<Arc<Usage>>>,
    state: Mutex<State>,
    /// Held from the first change to the last byte, so that what is shown keeps
    /// the order of what is written.
    pub(super) order: tokio::sync::Mutex<()>,
    /// Held from where recorded events are taken until they are committed, so that
    /// none is behind one that could not be.
    pub(super) commits: tokio::sync::Mutex<()>,
    /// Wakes who sends to clients that have no room: somebody else has.
    pub(super) make_way: tokio::sync::Notify,
    /// Those who wait for the order.
    pub(super) wanting: Wanting,
    /// Wakes the relay when a client keeps up again, or is gone.
    pub(super) readers: tokio::sync::Notify,
    /// This session, for tasks of its own.
    pub(super) this: Weak<Live>,
    /// Wakes the relay to commit what was noted.
    pub(super) noted: tokio::sync::Notify,
    /// Why the agent was ended, where that was acpbox's doing.
    pub(super) cause: Mutex<Option<Cause>>,
    /// Ends when the agent is gone and all who waited were told.
    pub(super) over: CancellationToken,
    /// Holds the session for this process, as long as it is live.
    pub(super) lease: Mutex<Option<Lease>>,
    /// Ends when clients are not waited for any more, so that a session that is
    /// to end does.
    pub(super) unheard: CancellationToken,
    pub(super) restarts: Arc<Restarts>,
    /// Whether what nobody answers may wait for a client that is yet to come.
    pub(super) is_served: bool,
    pub(super) watch: Watch,
    /// Held while a prompt with a key is let in.
    pub(super) keyed_prompts: tokio::sync::Mutex<()>,
    /// Whether the agent let its client wait in vain.
    is_stuck: AtomicBool,
    /// Answers that wait aside until the agent reads, in bytes.
    late_bytes: AtomicUsize,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter
            .debug_struct("Live")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The parts of a new [`Live`].
pub struct Parts {
    pub state: State,
    pub agent: AgentProcess,
    pub vm: Arc<dyn Vm>,
    pub store: Store,
    pub bounds: Bounds,
    pub permissions: Arc<Permissions>,
    pub base_environment: BTreeMap<String, String>,
    pub meta: Option<serde_json::Value>,
    pub lease: Option<Lease>,
    pub usage: Arc<Usage>,
    pub restarts: Arc<Restarts>,
    pub is_served: bool,
    pub watch: Watch,
}

impl Live {
    pub fn new(parts: Parts) -> Arc<Live> {
        Arc::new_cyclic(|this| Live {
            make_way: tokio::sync::Notify::new(),
            wanting: Wanting::default(),
            readers: tokio::sync::Notify::new(),
            this: Weak::clone(this),
            id: Arc::clone(&parts.state.session),
            agent_name: parts.state.row.agent.clone(),
            vm_name: parts.state.row.vm.clone(),
            vm: parts.vm,
            agent: parts.agent,
            store: parts.store,
            terminals: Terminals::new(parts.bounds.terminal_bytes, first_terminal(&parts.state)),
            bounds: parts.bounds,
            permissions: parts.permissions,
            initialized: Mutex::new("{}".into()),
            roots: Mutex::default(),
            asked: Mutex::default(),
            usage: Mutex::new(Some(parts.usage)),
            state: Mutex::new(parts.state),
            order: tokio::sync::Mutex::default(),
            commits: tokio::sync::Mutex::default(),
            noted: tokio::sync::Notify::new(),
            cause: Mutex::default(),
            over: CancellationToken::new(),
            unheard: CancellationToken::new(),
            lease: Mutex::new(parts.lease),
            restarts: parts.restarts,
            is_served: parts.is_served,
            watch: parts.watch,
            keyed_prompts: tokio::sync::Mutex::default(),
            is_stuck: AtomicBool::new(false),
            late_bytes: AtomicUsize::new(0),
            base_environment: parts.base_environment,
            meta: parts.meta,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the agent answered to `initialize`, a raw object.
    pub fn initialized(&self) -> Arc<str> {
        Arc::clone(
            &self
                .initialized
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(super) fn set_initialized(&self, raw: &str) {
        *self
            .initialized
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = raw.into();
    }

    pub(super) fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.roots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_roots(&self, roots: Roots) {
        *self.roots.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
    }

    /// Waits until nothing is being shown, and holds back what comes.
    pub(super) async fn order(&self) -> tokio::sync::MutexGuard<'_, ()> {
        match self.order.try_lock() {
            Ok(order) => order,
            Err(_) => {
                // Whoever comes keeps up: it does not wait for one that does not.
                let _waiting = self.wanting.count();
                self.make_way.notify_one();
                self.order.lock().await
            }
        }
    }

    /// Whether the agent is gone or going.
    pub fn is_over(&self) -> bool {
        if self.over.is_cancelled() {
            return true;
        }
        let state = self.state();
        state.is_leaving || state.ended.is_some()
    }

    /// Whether a turn runs or waits for its place.
    pub fn is_busy(&self) -> bool {
        let state = self.state();
        state.ended.is_none() && (state.turn.is_some() || !state.queue.is_empty())
    }

    /// Whether all who waited were told of the agent's end. Takes no lock.
    pub fn is_finished(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for an end that has begun: until then the session is still held.
    pub async fn finished(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.over.cancelled()).await;
    }

    /// Sends acpbox's own answers to the agent. One that asks and asks and never
    /// reads is ended, as its questions cannot be kept.
    pub(super) async fn send_answers(&self, answers: Vec<String>) {
        for line in answers {
            let sent = tokio::time::timeout(ANSWER_PATIENCE, self.agent.outbox.send(&line)).await;
            if sent.is_err() {
                let seconds = ANSWER_PATIENCE.as_secs();
                let what = format!(
                    "the agent `{}` did not read its answers for {seconds} s",
                    self.agent_name
                );
                self.end_with(Failure::internal(Phase::Turn, what));
                return;
            }
        }
    }

    /// Waits for room for a message to the agent; `None` where it reads nothing
    /// or is gone.
    pub(super) async fn room(&self, bytes: usize) -> Option<Room> {
        let patience = match self.is_stuck.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => AGENT_PATIENCE,
        };
        let room = tokio::time::timeout(patience, self.agent.outbox.room(bytes)).await;
        self.is_stuck.store(room.is_err(), Ordering::Relaxed);
        room.ok()?.ok()
    }

    /// Sends a request of acpbox's own and waits for the raw result.
    pub(super) async fn request(
        &self,
        method: &'static str,
        params: &str,
        patience: Duration,
    ) -> Result<Box<str>, OwnError> {
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut state = self.state();
            if let Some(failure) = &state.ended {
                return Err(OwnError::Failed(failure.clone()));
            }
            let waiting = Waiting::Own { method, reply };
            match state.pending.insert(waiting) {
                Ok(id) => id,
                Err(_) => return Err(OwnError::Failed(too_many_pending())),
            }
        };
        let line = message::request(id, method, params);
        if self.agent.outbox.send(&line).await.is_err() {
            tracing::debug!(method, "the agent closed its stdin before a request");
        }
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(OwnError::Failed(self.failure_of_end())),
            Err(_) => {
                self.state().pending.remove(id);
                let what = format!(
                    "the agent `{}` did not answer `{method}` within {} s",
                    self.agent_name,
                    patience.as_secs()
                );
                let phase = match method {
                    methods::INITIALIZE => Phase::Initialize,
                    _ => Phase::Session,
                };
                Err(OwnError::Failed(
                    Failure::internal(phase, what)
                        .stderr(self.agent.last_words())
                        .hint(format!("see what it says with `acpbox logs {}`", self.id)),
                ))
            }
        }
    }

    /// Records an event of acpbox's own.
    pub(super) async fn record_own(&self, method: &'static str, params: &impl serde::Serialize) {
        self.note(|state, batch| {
            state.record_own(batch, method, params);
        })
        .await;
    }

    /// Sends a raw response to the agent and records it.
    pub(super) async fn answer_agent(
        self: &Arc<Self>,
        method: &str,
        line: &str,
        direction: Direction,
        is_error: bool,
    ) {
        self.note(|state, batch| {
            let kind = methods::response_kind(method, is_error);
            state.record(batch, direction, kind, line);
        })
        .await;
        match self.room(line.len()).await {
            Some(room) => room.send(line),
            None => self.answer_later(line.to_owned()),
        }
    }

    /// Sends an answer without keeping anybody waiting. An agent may be busy, and
    /// would wait for ever for one that was dropped; it is ended if it reads none.
    pub(super) fn answer_later(self: &Arc<Self>, line: String) {
        if self.agent.outbox.try_send(&line) != Err(Refused::Full) {
            return;
        }
        let bytes = line.len();
        let before = self.late_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > LATE_BYTES {
            self.late_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let what = format!(
                "the agent `{}` does not read: {LATE_BYTES} bytes of answers wait for it",
                self.agent_name
            );
            self.end_with(Failure::internal(Phase::Turn, what));
            return;
        }
        let live = Arc::clone(self);
        tokio::spawn(async move {
            live.send_answers(vec![line]).await;
            live.late_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }
}

/// Creating a terminal takes two events: no earlier one has this number.
fn first_terminal(state: &State) -> u64 {
    state.next_seq.max(1).cast_unsigned()
}

pub(super) fn too_many_pending() -> Failure {
    Failure::internal(Phase::Request, "too many requests wait for this agent")
        .hint("wait for some of them to be answered")
}
