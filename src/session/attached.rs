//! A client as one session knows it: what it may do there.

use std::sync::{Arc, Weak};

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
}

/// One that followed a session to its agent's end.
#[derive(Debug, Clone)]
pub struct Follower {
    pub client: Weak<Client>,
    pub role: Role,
}

impl Attached {
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
            None => self.clients.push(Attached {
                client: Arc::clone(client),
                role: role.unwrap_or_default(),
            }),
        }
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
