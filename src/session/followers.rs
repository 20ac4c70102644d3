//! Who follows a session, also past the end of its agent: they follow it again
//! once it is back, and miss nothing.

use std::sync::{Arc, PoisonError, Weak};

use tokio::time::Instant;

use super::asked::Asked;
use super::client::Client;
use super::ending::Cause;
use super::live::Live;
use super::state::{State, Waiting};
use crate::acp::Failure;

/// What is kept of a session whose agent ended, for when it comes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest {
    /// The clients that followed it, in their order.
    followers: Vec<Weak<Client>>,
    /// What it was started with. Values of variables are nowhere else.
    pub(super) asked: Option<Asked>,
    /// The last event that its followers were shown.
    pub(super) seen: i64,
    vm: String,
    is_asleep: bool,
}

impl Rest {
    /// Those who are still there.
    pub(super) fn followers(&self) -> impl Iterator<Item = Arc<Client>> {
        let there = self.followers.iter().filter_map(Weak::upgrade);
        there.filter(|client| !client.gone.is_cancelled())
    }

    pub(super) fn is_followed_in(&self, vm: &str) -> bool {
        self.vm == vm && self.is_followed()
    }

    pub(super) fn is_followed(&self) -> bool {
        self.followers().next().is_some()
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.is_asleep
    }

    pub(super) fn is_of_use(&self) -> bool {
        self.is_asleep || self.is_followed()
    }

    /// Adds what a client need not say again.
    pub(super) fn complete(&self, asked: &mut Asked) {
        let Some(known) = &self.asked else { return };
        if asked.options.env.is_empty() {
            asked.options.env.clone_from(&known.options.env);
        }
        if asked.mcp_servers.is_none() {
            asked.mcp_servers.clone_from(&known.mcp_servers);
        }
    }
}

impl State {
    /// Whether a client follows that is still there: one may have left while the
    /// session was brought back for it.
    pub(super) fn is_attended(&self) -> bool {
        self.clients.iter().any(|it| !it.gone.is_cancelled())
    }
}

impl Live {
    /// Lets a client follow the session. The first one answers what the agent asks.
    pub fn attach(&self, client: &Arc<Client>) {
        let mut state = self.state();
        state.active = Instant::now();
        if !state.clients.iter().any(|known| Arc::ptr_eq(known, client)) {
            state.clients.push(Arc::clone(client));
        }
        if state.is_stored && !state.is_announced {
            // Whoever brought it back gave up before it was told; this one knows it.
            state.is_announced = true;
            state.held = Vec::new();
        }
    }

    pub fn detach(&self, client: &Arc<Client>) {
        let mut state = self.state();
        let before = state.clients.len();
        state.clients.retain(|known| !Arc::ptr_eq(known, client));
        if state.clients.len() < before {
            state.active = Instant::now();
        }
    }

    pub(super) fn has_client(&self) -> bool {
        self.state().is_attended()
    }

    /// Whether a request of this client's still waits for its answer.
    pub fn owes(&self, client: &Arc<Client>) -> bool {
        let state = self.state();
        let is_theirs = |waiting: &Waiting| matches!(waiting, Waiting::Client { client: theirs, .. } if Arc::ptr_eq(theirs, client));
        let waiting = state.queue.iter().flat_map(|prompt| &prompt.askers);
        let joined = state.turn.iter().flat_map(|turn| &turn.joined);
        let mut askers = waiting.chain(joined);
        state.pending.find(is_theirs).is_some()
            || askers.any(|asker| Arc::ptr_eq(&asker.client, client))
    }

    pub(super) fn set_asked(&self, asked: &Asked) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked.clone());
    }

    /// What is kept once the agent has ended; nothing of a session that was closed.
    pub(super) fn rest(&self) -> Option<Rest> {
        let cause = self.cause();
        if matches!(cause, Some(Cause::Closed)) {
            return None;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked.clone();
        let state = self.state();
        Some(Rest {
            // Whoever attached while it ended follows it too.
            followers: (state.followers.iter().cloned())
                .chain(state.clients.iter().map(Arc::downgrade))
                .collect(),
            asked,
            seen: state.next_seq - 1,
            vm: self.vm_name.clone(),
            is_asleep: matches!(cause, Some(Cause::Asleep(_))),
        })
    }

    /// Lets those follow again who did before the agent ended, with what they
    /// have not seen. The order must be held, and what was noted committed.
    pub(super) async fn welcome(
        &self,
        rest: &Rest,
        client: &Arc<Client>,
        held: &[String],
    ) -> Result<(), Failure> {
        for follower in rest.followers() {
            if !Arc::ptr_eq(&follower, client) {
                super::replay::replay(&self.store, &self.id, rest.seen, &follower).await?;
                for line in held {
                    let _ = follower.outbox.send(line).await;
                }
                self.attach(&follower);
            }
        }
        let woke = self.state().woke.take();
        for line in woke.iter() {
            let clients = self.state().clients.clone();
            for client in &clients {
                if client.offer().options.agent_notifications {
                    let _ = client.outbox.send(line).await;
                }
            }
        }
        Ok(())
    }
}
