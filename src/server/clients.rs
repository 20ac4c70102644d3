//! Who is connected: a list of clients, kept as they come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::http::outgoing::Budget;
use crate::session::Client;
use crate::session::state::now;

/// The clients of a process by number, from 1.
#[derive(Debug, Default)]
pub struct Clients(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    last: u64,
    connected: BTreeMap<u64, Connected>,
}

/// A client that is connected.
#[derive(Debug, Clone)]
pub struct Connected {
    pub client: Arc<Client>,
    /// How it is connected, for people.
    pub peer: Arc<str>,
    /// Milliseconds since 1970.
    pub since: i64,
    /// What waits for its event streams, if it has some.
    pub budget: Option<Arc<Budget>>,
}

/// A client's place in the list; it is off the list when this is dropped.
#[derive(Debug)]
pub struct Place {
    pub number: u64,
    clients: Arc<Clients>,
}

impl Clients {
    /// Puts a client on the list.
    pub fn enter(
        self: &Arc<Self>,
        client: &Arc<Client>,
        peer: &str,
        budget: Option<Arc<Budget>>,
    ) -> Place {
        let mut list = self.list();
        list.last += 1;
        let number = list.last;
        let connected = Connected {
            client: Arc::clone(client),
            peer: peer.into(),
            since: now(),
            budget,
        };
        list.connected.insert(number, connected);
        Place {
            number,
            clients: Arc::clone(self),
        }
    }

    /// Those who are connected, by number.
    pub fn all(&self) -> Vec<(u64, Connected)> {
        let list = self.list();
        let all = list.connected.iter();
        all.map(|(number, client)| (*number, client.clone()))
            .collect()
    }

    /// How many have come since the process started.
    pub fn count(&self) -> u64 {
        self.list().last
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.list().connected.remove(&self.number);
    }
}
