//! How a live session ends, and who is told.

use std::sync::PoisonError;
use std::time::Duration;

use super::live::Live;
use super::state::{After, Asker, Batch, OwnError, State, Waiting, now};
use crate::acp::extension::{AgentExit, SleepReason, TurnEndReason};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::agent::process::describe;
use crate::vm::Exit;

/// How long the end of a killed agent may take, and to be told to its clients.
const KILLED: Duration = Duration::from_secs(2);

/// Why acpbox itself ended an agent.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Its session was closed.
    Closed,
    /// acpbox stops.
    Stopped,
    /// Nobody needs it for now.
    Asleep(SleepReason),
    Failed(Failure),
    /// It went on with a turn that had been cancelled.
    Unstopped(Failure),
}

impl Live {
    /// Ends the agent for a reason of acpbox's own, which all who wait will hear.
    pub(super) fn end_with(&self, failure: Failure) {
        self.end_for(Cause::Failed(failure));
    }

    /// Kills the agent.
    pub(super) fn end_for(&self, cause: Cause) {
        self.set_cause(cause);
        self.agent.control.kill();
    }

    /// Ends the agent, first gently. The transcript stays.
    pub async fn close(&self) {
        self.end(Cause::Closed, self.bounds.exit_grace).await;
    }

    /// The same where acpbox stops.
    pub(super) async fn stop(&self) {
        self.end(Cause::Stopped, self.bounds.exit_grace).await;
    }

    /// Ends the agent, which may take so long before it is killed.
    pub(super) async fn end(&self, cause: Cause, grace: Duration) {
        if self.over.is_cancelled() {
            return;
        }
        self.set_cause(cause);
        self.agent.control.terminate();
        if tokio::time::timeout(grace, self.over.cancelled())
            .await
            .is_err()
        {
            self.agent.control.kill();
            // The relay notices the end of a killed process by itself; a lost VM too.
            let is_over = tokio::time::timeout(KILLED, self.over.cancelled()).await;
            if is_over.is_err() {
                // A client that does not read keeps nobody waiting for ever.
                self.unheard.cancel();
                let _ = tokio::time::timeout(KILLED, self.over.cancelled()).await;
            }
        }
    }

    /// Why nothing more can come from the agent.
    pub(super) fn failure_of_end(&self) -> Failure {
        match self.cause() {
            Some(Cause::Failed(failure) | Cause::Unstopped(failure)) => {
                return failure.stderr(self.agent.last_words());
            }
            Some(Cause::Asleep(_)) => {
                let what = "the session was put to sleep with its VM";
                return Failure::internal(Phase::Turn, what)
                    .hint("whatever is sent to it next wakes it");
            }
            Some(Cause::Closed) => return Failure::internal(Phase::Turn, "the session was closed"),
            Some(Cause::Stopped) => {
                let what = "acpbox was stopped or restarted, and the turn ended with it";
                return Failure::internal(Phase::Turn, what)
                    .hint("the session is kept: it goes on with its next prompt");
            }
            None => {}
        }
        let exit = self.exit();
        let (phase, while_doing) = match &*self.state() {
            state if state.turn.is_some() => (Phase::Turn, "during the turn"),
            state if awaits(state, &[methods::SESSION_LOAD, methods::SESSION_RESUME]) => {
                (Phase::Session, "while its session was brought back")
            }
            state if awaits(state, &[methods::SESSION_NEW]) => {
                (Phase::Session, "before its session began")
            }
            state if state.row.agent_session.is_some() => (Phase::Turn, "between turns"),
            _ => (Phase::Initialize, "before its session began"),
        };
        let what = format!("the agent `{}` ended {while_doing}", self.agent_name);
        Failure::internal(phase, what)
            .exit(describe(&exit))
            .stderr(self.agent.last_words())
            .hint(format!(
                "the transcript is kept; see `acpbox logs {}`",
                self.id
            ))
    }

    /// The first cause counts: what follows from it is no other.
    fn set_cause(&self, cause: Cause) {
        let mut known = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(cause);
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        let known = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn exit(&self) -> Exit {
        self.agent
            .ended()
            .unwrap_or_else(|| Exit::Lost("it closed its output and was ended".into()))
    }

    /// Tells all who wait that the agent is gone, once.
    pub(super) async fn finish(&self) {
        let failure = self.failure_of_end();
        let exit = self.exit();
        let mut batch = Batch {
            is_last: true,
            ..Batch::default()
        };
        let told = self
            .transact_in(&mut batch, |state, batch| {
                self.tell_end(state, batch, &failure, &exit);
            })
            .await;
        if told.is_err() {
            // Nothing can be recorded, but those who wait must still hear of it.
            batch.through = self.state().stored;
            self.deliver(&mut batch).await;
        }
        self.terminals.end_all();
        // It is no fault of the agent's where its events cannot be stored.
        let counts = {
            let state = self.state();
            state.is_stored && state.lost.is_none()
        };
        if counts && matches!(self.cause(), None | Some(Cause::Failed(_))) {
            self.restarts.count(&self.id);
        }
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let usage = self.usage.lock();
        if let Some(usage) = usage.unwrap_or_else(PoisonError::into_inner).take() {
            usage.touch();
        }
        self.over.cancel();
    }

    fn tell_end(&self, state: &mut State, batch: &mut Batch, failure: &Failure, exit: &Exit) {
        let cause = self.cause();
        let params = AgentExit {
            session_id: self.id.to_string(),
            exit: describe(exit),
            code: match exit {
                Exit::Code(code) => Some(*code),
                _ => None,
            },
            signal: match exit {
                Exit::Signal(signal) => Some(*signal),
                _ => None,
            },
            reason: match &cause {
                Some(Cause::Failed(failure) | Cause::Unstopped(failure)) => {
                    Some(failure.message.clone())
                }
                _ => None,
            },
            closed: matches!(cause, Some(Cause::Closed | Cause::Stopped)),
            stderr: failure.data.stderr.clone(),
        };
        self.show_terminals(state, batch);
        let line = match cause {
            Some(Cause::Asleep(reason)) => self.record_sleep(state, batch, reason),
            _ => state.record_own(batch, methods::AGENT_EXIT, &params),
        };
        for client in &state.take_clients() {
            if client.offer().options.agent_notifications && state.is_announced {
                batch.send(client, &[&line]);
            }
        }
        for question in std::mem::take(&mut state.questions) {
            question.withdraw(batch);
        }
        let mut turn = state.turn.take();
        if let Some(turn) = &turn {
            let reason = match cause {
                Some(Cause::Closed | Cause::Stopped) => TurnEndReason::Shutdown,
                Some(Cause::Asleep(_)) => TurnEndReason::Sleep,
                _ => TurnEndReason::AgentExit,
            };
            if !state.is_lost(turn.prompt) {
                state.record_turn_end(batch, turn.prompt, reason, failure.message.clone());
                batch.durable = true;
            }
        }
        for (_, waiting) in state.pending.drain() {
            match waiting {
                Waiting::Client { client, id, method } => match turn.take() {
                    Some(turn) if *method == *methods::SESSION_PROMPT => {
                        let mut askers = vec![Asker { client, id }];
                        askers.extend(turn.joined);
                        state.refuse_prompt(batch, turn.prompt, &askers, failure);
                    }
                    other => {
                        turn = other;
                        state.refuse(batch, &client, &id, &method, failure);
                    }
                },
                Waiting::Own { reply, .. } => {
                    let outcome = Err(OwnError::Failed(failure.clone()));
                    batch.after.push(After::Reply(reply, outcome));
                }
                Waiting::Abandoned { .. } => {}
            }
        }
        let queue = std::mem::take(&mut state.queue);
        if matches!(cause, Some(Cause::Unstopped(_))) {
            // They came after the cancel and have nothing to do with its turn.
            self.restarts.leave(&self.id, queue);
        } else {
            state.queue = queue;
            state.refuse_queue(batch, failure);
        }
        if !matches!(cause, Some(Cause::Asleep(_))) {
            state.row.updated = now();
        }
        batch.row = true;
        // Whether or not it can be stored, this is what they hear.
        batch.answered.clear();
        // The last: from here on nothing is recorded.
        state.ended = Some(failure.clone());
    }
}

/// Whether acpbox waits for the agent's answer to one of these.
fn awaits(state: &State, methods: &[&str]) -> bool {
    let is_one = |waiting: &Waiting| matches!(waiting, Waiting::Own { method, .. } if methods.contains(method));
    state.pending.find(is_one).is_some()
}
