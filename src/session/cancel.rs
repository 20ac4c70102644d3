//! Cancelling: a turn, a prompt that waits, a request. An agent that does not
//! stop loses its turn, then its life.

use std::sync::Arc;

use super::client::Client;
use super::ending::Cause;
use super::live::Live;
use super::state::{Asker, QueuedPrompt, State, Waiting};
use crate::acp::extension::TurnEndReason;
use crate::acp::failure::REQUEST_CANCELLED;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::message;
use crate::store::Direction;

const CANCELLED: &str = "{\"stopReason\":\"cancelled\"}";

impl Live {
    /// Passes on that a client no longer waits for a request of its own.
    pub async fn forward_cancel_request(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        if self.cancel_queued(client, raw_id).await {
            return true;
        }
        let found = {
            let state = self.state();
            let asked = state.pending.find(|waiting| {
                matches!(waiting, Waiting::Client { client: theirs, id, .. }
                    if Arc::ptr_eq(theirs, client) && &**id == raw_id)
            });
            let turn = state.turn.as_ref().filter(|turn| {
                let mut joined = turn.joined.iter();
                joined.any(|asker| asker.is(client, raw_id))
            });
            asked.or(turn.map(|turn| turn.request))
        };
        let Some(request) = found else { return false };
        let line = message::notification(
            methods::CANCEL_REQUEST,
            &format!("{{\"requestId\":{request}}}"),
        );
        self.note(|state, batch| {
            state.record(
                batch,
                Direction::Client,
                methods::CANCEL_REQUEST.into(),
                line.as_str(),
            );
        })
        .await;
        let _ = self.agent.outbox.try_send(&line);
        true
    }

    /// Takes a prompt out of the queue. `false` if it does not wait there.
    async fn cancel_queued(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        let position = |state: &State| {
            let is_it = |prompt: &QueuedPrompt| {
                let mut askers = prompt.askers.iter();
                askers.any(|asker| asker.is(client, raw_id))
            };
            state.queue.iter().position(is_it)
        };
        if position(&self.state()).is_none() {
            return false;
        }
        let cancelled = self.transact(|state, batch| {
            let prompt = position(state).and_then(|at| state.queue.remove(at));
            if let Some(prompt) = prompt {
                let what = "Request cancelled: the prompt had not begun";
                let failure = Failure::new(Phase::Request, REQUEST_CANCELLED, what);
                state.refuse_prompt(batch, prompt.seq, &prompt.askers, &failure);
                return true;
            }
            false
        });
        cancelled.await.unwrap_or_default()
    }

    /// Cancellation is of the session: prompts that wait for their turn go too.
    pub(super) async fn drop_queue(&self) {
        if self.state().queue.is_empty() {
            return;
        }
        let dropped = self
            .transact(|state, batch| {
                while let Some(prompt) = state.queue.pop_front() {
                    let line = message::result("null", CANCELLED);
                    state.end_prompt(batch, prompt.seq, &prompt.askers, &line, false);
                }
            })
            .await;
        if let Err(failure) = dropped {
            tracing::warn!(%failure, "waiting prompts could not be cancelled");
        }
    }

    /// Gives the agent of a cancelled turn some time to end it, and then some
    /// more to stop. Until it has, it gets no other prompt.
    pub(super) async fn enforce_cancel(self: Arc<Self>, request: u64) {
        tokio::time::sleep(self.bounds.cancel_grace).await;
        match self.end_cancelled_turn(request).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => tracing::warn!(%failure, "a cancelled turn could not be ended"),
        }
        tokio::time::sleep(self.bounds.stop_grace).await;
        if self.state().fence == Some(request) {
            let what = format!(
                "the agent `{}` was ended: it did not stop within {:?} after its cancelled turn had ended",
                self.agent_name, self.bounds.stop_grace
            );
            let hint = "the next prompt starts it anew; limits.stop_grace is how long it may take";
            let failure = Failure::internal(Phase::Turn, what).hint(hint);
            self.end_for(Cause::Unstopped(failure));
        }
    }

    /// Ends a turn that was cancelled and whose agent did not end it in time.
    /// `false` if it had ended.
    async fn end_cancelled_turn(&self, request: u64) -> Result<bool, Failure> {
        self.transact(|state, batch| {
            let turn = state.turn.as_ref().filter(|turn| turn.request == request);
            let Some(prompt) = turn.map(|turn| turn.prompt) else {
                return false;
            };
            let Some(waiting) = state.pending.get_mut(request) else {
                return false;
            };
            let abandoned = Waiting::Abandoned {
                method: methods::SESSION_PROMPT.into(),
            };
            let waiting = std::mem::replace(waiting, abandoned);
            state.fence = Some(request);
            let detail = format!(
                "the agent did not end the cancelled turn within {:?}",
                self.bounds.cancel_grace
            );
            state.record_turn_end(batch, prompt, TurnEndReason::CancelTimeout, detail);
            if let Waiting::Client { client, id, .. } = waiting {
                let line = message::result(&id, CANCELLED);
                state.end_turn(batch, Asker { client, id }, &line, Direction::Acpbox, false);
            }
            true
        })
        .await
    }
}
