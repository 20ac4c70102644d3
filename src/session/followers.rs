//! Who follows a session, also past the end of its agent: they follow it again
//! once it is back, and miss nothing.

use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::asked::Asked;
use super::attached::{Attached, Follower};
use super::catch_up::Behind;
use super::client::Client;
use super::ending::Cause;
use super::live::Live;
use super::state::Waiting;
use crate::acp::extension::Role;

/// What is kept of a session whose agent ended, for when it comes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest {
    /// The clients that followed it, in their order.
    followers: Vec<Follower>,
    /// What it was started with. Values of variables are nowhere else.
    pub(super) asked: Option<Asked>,
    /// The last event that its followers were shown.
    pub(super) seen: i64,
    vm: String,
    is_asleep: bool,
}

impl Rest {
    /// Those who are still there.
    pub(super) fn followers(&self) -> impl Iterator<Item = (Arc<Client>, Role)> {
        let followers = self.followers.iter();
        followers.filter_map(|follower| Some((follower.present()?, follower.role)))
    }

    /// What a client was to the session, if it followed.
    pub(super) fn role_of(&self, client: &Arc<Client>) -> Option<Role> {
        let mut followers = self.followers();
        let found = followers.find(|(known, _)| Arc::ptr_eq(known, client));
        found.map(|(_, role)| role)
    }

    /// Whether it is of that VM, and somebody follows it who keeps that awake.
    pub(super) fn is_attended_in(&self, vm: &str) -> bool {
        self.vm == vm && self.followers().any(|(client, _)| client.keeps_awake())
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

impl Live {
    /// Lets a client follow the session, in the role that it has or else as a controller.
    pub fn attach(&self, client: &Arc<Client>) {
        self.attach_as(client, None);
    }

    pub fn attach_as(&self, client: &Arc<Client>, role: Option<Role>) {
        let mut state = self.state();
        state.active = Instant::now();
        state.attach(client, role);
        if state.is_stored && !state.is_announced {
            // Whoever brought it back gave up before it was told; this one knows it.
            state.is_announced = true;
            state.held = Vec::new();
        }
    }

    pub fn detach(&self, client: &Arc<Client>) {
        let mut state = self.state();
        let before = state.clients.len();
        let clients = &mut state.clients;
        clients.retain(|known| !Arc::ptr_eq(&known.client, client));
        let leaving = &mut state.leaving;
        leaving.retain(|known| !Arc::ptr_eq(&known.client, client));
        self.readers.notify_waiters();
        if state.clients.len() < before {
            state.active = Instant::now();
        }
    }

    pub(super) fn is_attended(&self) -> bool {
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

    /// Whether a client's request of this raw id is not answered yet.
    pub fn owes_answer(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        let state = self.state();
        let is_it = |waiting: &Waiting| matches!(waiting, Waiting::Client { client: theirs, id, .. } if Arc::ptr_eq(theirs, client) && &**id == raw_id);
        let waiting = state.queue.iter().flat_map(|prompt| &prompt.askers);
        let joined = state.turn.iter().flat_map(|turn| &turn.joined);
        let mut askers = waiting.chain(joined);
        state.pending.find(is_it).is_some() || askers.any(|asker| asker.is(client, raw_id))
    }

    pub(super) fn set_asked(&self, asked: &Asked) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked.clone());
    }

    /// What is kept once the agent has ended; nothing of a session that was closed.
    pub(super) fn rest(&self) -> Option<Rest> {
        let cause = self.cause();
        if matches!(cause, Some(Cause::Closed | Cause::Stopped)) {
            return None;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked.clone();
        let state = self.state();
        Some(Rest {
            // Whoever attached while it ended follows it too.
            followers: (state.followers.iter().cloned())
                .chain(state.clients.iter().map(Attached::follower))
                .collect(),
            asked,
            seen: state.stored,
            vm: self.vm_name.clone(),
            is_asleep: matches!(cause, Some(Cause::Asleep(_))),
        })
    }

    /// Lets a client follow, to be sent first what it lacks.
    pub(super) fn attach_behind(
        self: &Arc<Self>,
        client: &Arc<Client>,
        role: Option<Role>,
    ) -> Behind {
        {
            let mut state = self.state();
            state.active = Instant::now();
            state.attach_behind(client, role);
        }
        Behind::of(Arc::clone(self), client)
    }

    /// Lets those follow again who did before the agent ended, but for `except`.
    pub(super) fn attach_followers(
        self: &Arc<Self>,
        rest: &Rest,
        except: &Arc<Client>,
    ) -> Vec<Behind> {
        let followers = rest.followers();
        let followers = followers.filter(|(known, _)| !Arc::ptr_eq(known, except));
        followers
            .map(|(follower, role)| self.attach_behind(&follower, Some(role)))
            .collect()
    }
}
