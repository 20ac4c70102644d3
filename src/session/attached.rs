//! A client as one session knows it: what it may do there, and whether it keeps up.

use std::sync::{Arc, Weak};

use super::catch_up::Lag;
use super::client::Client;
use super::live::Live;
use super::state::State;
use crate::acp::extension::Role;
use crate::acp::failure::INVALID_REQUEST;
use crate::acp::{Failure, Phase};

#[derive(Debug)]
pub struct Attached {
    pub client: Arc<Client>,
    pub role: Role,
    pace: Pace,
    /// Where turns of its own prompts began, and what agents said back of these;
    /// those that it may yet read of.
    own_events: Vec<i64>,
}

#[derive(Debug)]
enum Pace {
    /// It is sent what comes. It has all up to event `since` by other ways.
    Live { since: i64 },
    /// It reads the transcript.
    Lagging(Lag),
}

/// One that followed a session to its agent's end.
#[derive(Debug, Clone)]
pub struct Follower {
    pub client: Weak<Client>,
    pub role: Role,
}

impl Attached {
    /// Whether it is still there.
    pub fn is_there(&self) -> bool {
        !self.client.gone.is_cancelled()
    }

    /// Whether it is sent what comes.
    pub fn is_live(&self) -> bool {
        matches!(self.pace, Pace::Live { .. })
    }

    pub fn is_reading(&self) -> bool {
        self.is_live() && self.is_there()
    }

    /// Whether an event that was recorded before is still to be sent to it.
    pub fn is_due(&self, seq: i64) -> bool {
        matches!(self.pace, Pace::Live { since } if since < seq)
    }

    /// Notes that the turn of a prompt of its own began at that event, or was said
    /// back. All up to `shown` is sent to those who keep up.
    pub fn note_own(&mut self, seq: i64, shown: i64) {
        if self.is_live() {
            self.own_events.retain(|start| *start > shown);
        }
        self.own_events.push(seq);
    }

    /// It reads the transcript from here on; all up to `shown` has been sent to it.
    pub(super) fn fall_behind(&mut self, shown: i64) -> &mut Lag {
        if let Pace::Live { since } = self.pace {
            self.pace = Pace::Lagging(Lag::new(self.client.next_lag(), since.max(shown)));
        }
        match &mut self.pace {
            Pace::Lagging(lag) => lag,
            Pace::Live { .. } => unreachable!("it lags since a line above"),
        }
    }

    pub fn follower(&self) -> Follower {
        Follower {
            client: Arc::downgrade(&self.client),
            role: self.role,
        }
    }
}

impl Follower {
    /// The client, if it is still there.
    pub fn present(&self) -> Option<Arc<Client>> {
        let client = self.client.upgrade();
        client.filter(|client| !client.gone.is_cancelled())
    }
}

impl State {
    /// Lets a client follow. One that does so already keeps its role unless it names one.
    pub fn attach(&mut self, client: &Arc<Client>, role: Option<Role>) {
        match self.attached(client) {
            Some(attached) => attached.role = role.unwrap_or(attached.role),
            None => {
                let attached = Attached {
                    client: Arc::clone(client),
                    role: role.unwrap_or_default(),
                    pace: Pace::Live {
                        since: self.next_seq - 1,
                    },
                    own_events: Vec::new(),
                };
                self.clients.push(attached);
            }
        }
    }

    /// Lets a client follow that is to read the transcript first. What was kept for
    /// it stays.
    pub(super) fn attach_behind(&mut self, client: &Arc<Client>, role: Option<Role>) {
        self.attach(client, role);
        if let Some(turn) = &mut self.turn {
            // What it reads shows it its own prompt, too.
            turn.knowing.retain(|known| !Arc::ptr_eq(known, client));
        }
        let shown = self.shown;
        if let Some(attached) = self.attached(client) {
            attached.fall_behind(shown).renumber(client.next_lag());
        }
    }

    /// How far a client is that lags behind, also in a session that has ended.
    pub(super) fn lag(&mut self, client: &Arc<Client>) -> Option<&mut Lag> {
        let mut clients = self.clients.iter_mut().chain(&mut self.leaving);
        let attached = clients.find(|attached| Arc::ptr_eq(&attached.client, client))?;
        match &mut attached.pace {
            Pace::Lagging(lag) => Some(lag),
            Pace::Live { .. } => None,
        }
    }

    pub(super) fn own_events(&self, client: &Arc<Client>) -> Vec<i64> {
        let mut clients = self.clients.iter().chain(&self.leaving);
        let attached = clients.find(|attached| Arc::ptr_eq(&attached.client, client));
        attached.map_or_else(Vec::new, |attached| attached.own_events.clone())
    }

    /// A client has all up to `since`, and is sent what comes.
    pub(super) fn keep_up(&mut self, client: &Arc<Client>, since: i64) {
        self.leaving
            .retain(|attached| !Arc::ptr_eq(&attached.client, client));
        if let Some(attached) = self.attached(client) {
            attached.pace = Pace::Live { since };
        }
    }

    /// Takes all who follow a session that ends. Those who lag behind are still
    /// given what they lack.
    pub(super) fn take_clients(&mut self) -> Vec<Arc<Client>> {
        let clients = std::mem::take(&mut self.clients);
        self.followers = clients.iter().map(Attached::follower).collect();
        let all = clients.iter().map(|it| Arc::clone(&it.client)).collect();
        let lagging = clients.into_iter().filter(|it| !it.is_live());
        self.leaving.extend(lagging);
        all
    }

    pub fn attached(&mut self, client: &Arc<Client>) -> Option<&mut Attached> {
        let mut clients = self.clients.iter_mut();
        clients.find(|attached| Arc::ptr_eq(&attached.client, client))
    }

    /// Whether a client follows that is still there: one may have left while the
    /// session was brought back for it.
    pub fn is_attended(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|attached| !attached.client.gone.is_cancelled())
    }

    /// Those who may be asked, in the order in which they came.
    pub fn controllers(&self) -> impl Iterator<Item = &Arc<Client>> {
        let controllers = self.clients.iter();
        let controllers = controllers.filter(|attached| attached.role == Role::Controller);
        let controllers = controllers.map(|attached| &attached.client);
        controllers.filter(|client| !client.gone.is_cancelled())
    }
}

impl Live {
    /// # Errors
    /// When the client only looks on.
    pub fn check_control(&self, client: &Arc<Client>) -> Result<(), Failure> {
        match self.state().attached(client) {
            Some(attached) => may_control(attached.role),
            None => Ok(()),
        }
    }
}

/// # Errors
/// For an observer.
pub fn may_control(role: Role) -> Result<(), Failure> {
    match role {
        Role::Controller => Ok(()),
        Role::Observer => {
            let what = "Invalid Request: this client is an observer of the session: it can neither prompt nor answer, change or end it";
            let hint =
                "attach with session/resume and `_meta.acpbox.role` \"controller\" to take part";
            Err(Failure::new(Phase::Request, INVALID_REQUEST, what).hint(hint))
        }
    }
}
