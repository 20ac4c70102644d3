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
use super::state::{State, Waiting};
use crate::acp::extension::Role;

/// What is kept of a session whose agent does not run, for when it comes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest {
    /// The clients that follow it, in their order.
    followers: Vec<Waiter>,
    /// What it was started with. Values of variables are nowhere else.
    asked: Option<Asked>,
    vm: String,
    is_asleep: bool,
}

/// One that waits for a session to come back.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub(super) follower: Follower,
    /// The last event that it was shown, or is being shown.
    pub(super) seen: i64,
    /// What it said of the session while that was not live.
    pub(super) said: Option<Arc<Said>>,
}

/// How a client wants a session to come back.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) asked: Asked,
    /// Of its request, raw.
    pub(super) params: Box<str>,
}

/// Where a client was in a session that comes back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) role: Role,
    /// The last event that it was shown.
    pub(super) seen: i64,
}

impl Rest {
    /// That of a session which was not live in this process.
    pub(super) fn of(vm: &str) -> Rest {
        Rest {
            vm: vm.to_owned(),
            ..Rest::default()
        }
    }

    /// Lets a client follow, in the place of what it was before.
    pub(super) fn enter(&mut self, waiter: Waiter) {
        let same = &waiter.follower.client;
        self.followers.retain(|known| {
            known.follower.present().is_some() && !known.follower.client.ptr_eq(same)
        });
        self.followers.push(waiter);
    }

    /// Those who are still there.
    fn followers(&self) -> impl Iterator<Item = (Arc<Client>, Before)> {
        let followers = self.followers.iter();
        followers.filter_map(|waiter| {
            let before = Before {
                role: waiter.follower.role,
                seen: waiter.seen,
            };
            Some((waiter.follower.present()?, before))
        })
    }

    /// What a client was to the session, if it followed.
    /// What those said who may say anything of it: one that only looks on may not.
    fn said(&self) -> impl Iterator<Item = &Arc<Said>> {
        let controllers = self.followers.iter();
        let controllers = controllers.filter(|it| it.follower.role == Role::Controller);
        controllers.filter_map(|waiter| waiter.said.as_ref())
    }

    pub(super) fn of_client(&self, client: &Arc<Client>) -> Option<Before> {
        let mut followers = self.followers();
        let found = followers.find(|(known, _)| Arc::ptr_eq(known, client));
        found.map(|(_, before)| before)
    }

    /// With what the session comes back where this client uses it: what itself said,
    /// else what it was started with, else what another follower said; and the raw
    /// params of that request, if there was one.
    pub(super) fn wanted_by(&self, client: &Arc<Client>) -> (Option<Asked>, Option<Box<str>>) {
        let is_theirs = |waiter: &&Waiter| waiter.follower.client.as_ptr() == Arc::as_ptr(client);
        let own = self.followers.iter().find(is_theirs);
        let own = own.and_then(|waiter| waiter.said.as_ref());
        let others = || self.said().next();
        match (own, &self.asked) {
            (None, Some(asked)) => (Some(asked.clone()), None),
            (own, _) => match own.or_else(others) {
                Some(said) => {
                    let mut asked = said.asked.clone();
                    self.complete(&mut asked);
                    (Some(asked), Some(said.params.clone()))
                }
                None => (None, None),
            },
        }
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
        let said = self.said().map(|said| &said.asked);
        for known in self.asked.iter().chain(said) {
            if asked.options.env.is_empty() {
                asked.options.env.clone_from(&known.options.env);
            }
            if asked.mcp_servers.is_none() {
                asked.mcp_servers.clone_from(&known.mcp_servers);
            }
        }
    }
}

impl State {
    /// A client comes or goes. One that only looks keeps nothing awake by that either.
    fn note_use_by(&mut self, client: &Arc<Client>) {
        if !client.offer().options.lets_sleep {
            self.active = Instant::now();
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
        state.note_use_by(client);
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
            state.note_use_by(client);
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
        // Whoever attached while it ended follows it too.
        let followers =
            (state.followers.iter().cloned()).chain(state.clients.iter().map(Attached::follower));
        let waiter = |follower| Waiter {
            follower,
            seen: state.stored,
            said: None,
        };
        Some(Rest {
            followers: followers.map(waiter).collect(),
            asked,
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
            state.note_use_by(client);
            state.attach_behind(client, role);
        }
        Behind::of(Arc::clone(self), client)
    }

    /// Lets those follow again who did before the agent ended, but for `except`.
    pub(super) fn attach_followers(
        self: &Arc<Self>,
        rest: &Rest,
        except: &Arc<Client>,
    ) -> Vec<(Behind, Before)> {
        let followers = rest.followers();
        let followers = followers.filter(|(known, _)| !Arc::ptr_eq(known, except));
        followers
            .map(|(follower, before)| (self.attach_behind(&follower, Some(before.role)), before))
            .collect()
    }
}
