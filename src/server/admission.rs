//! How many may be connected: clients that are known, and beside them a few that have
//! yet to say who they are.
//!
//! A stranger cannot be told from a client before it has spoken. So nobody is turned
//! away for the number of strangers: one that came before gives way, the oldest of
//! those from the address that most of them come from. Whoever introduces itself
//! without delay gets in, however many others do not.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::seldom::Seldom;
use crate::config::ServerSettings;

/// Messages that one connection may be sending before it is known.
const STRANGE_BODIES: usize = 4;

/// Who is connected, and as what.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    handshakes: usize,
    places: Arc<Semaphore>,
    /// Holders of [`Others`].
    reserved: AtomicUsize,
    strangers: Mutex<Strangers>,
    given_up: Seldom,
}

#[derive(Debug, Default)]
struct Strangers {
    last: u64,
    /// By number, and so by age.
    waiting: BTreeMap<u64, Stranger>,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    gives_way: CancellationToken,
}

/// A connection's right to be there; it is gone when this is dropped.
#[derive(Debug)]
pub struct Seat {
    admission: Arc<Admission>,
    number: u64,
    gives_way: CancellationToken,
    /// Its place among `server.connections`, once it is known.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// Messages that it may be sending before it is known.
    pub bodies: Semaphore,
}

impl Admission {
    pub fn new(settings: &ServerSettings) -> Arc<Admission> {
        Arc::new(Admission {
            connections: settings.connections,
            handshakes: settings.handshakes,
            places: Arc::new(Semaphore::new(settings.connections)),
            reserved: AtomicUsize::new(0),
            strangers: Mutex::default(),
            given_up: Seldom::times(1),
        })
    }

    /// A seat for one from this address that has to say who it is, or without an
    /// address for one that is known already. `None` if there are clients in all places.
    pub fn admit(self: &Arc<Self>, source: Option<IpAddr>) -> Option<Arc<Seat>> {
        let gives_way = CancellationToken::new();
        let (number, place) = match source {
            None => (0, Some(Arc::clone(&self.places).try_acquire_owned().ok()?)),
            Some(_) if self.places.available_permits() == 0 => return None,
            Some(source) => (self.wait(network(source), &gives_way), None),
        };
        Some(Arc::new(Seat {
            admission: Arc::clone(self),
            number,
            gives_way,
            place: Mutex::new(place),
            bodies: Semaphore::new(STRANGE_BODIES),
        }))
    }

    /// All places but those of so many clients, if no more are connected. While they are
    /// held nobody is let in.
    pub fn others(&self, clients: usize) -> Option<Others<'_>> {
        let others = u32::try_from(self.connections.saturating_sub(clients)).ok()?;
        self.reserved.fetch_add(1, Ordering::SeqCst);
        let mut held = Others {
            admission: self,
            places: None,
        };
        held.places = Some(self.places.try_acquire_many(others).ok()?);
        Some(held)
    }

    /// Whether nobody is let in since the server ends, or may be about to.
    pub fn is_closing(&self) -> bool {
        self.is_closed() || self.reserved.load(Ordering::SeqCst) > 0
    }

    fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    /// Why nobody is let in.
    pub fn full(&self) -> String {
        if self.is_closing() {
            return "this server ends; connect again".into();
        }
        format!(
            "all {} connections are in use (server.connections)",
            self.connections
        )
    }

    fn wait(&self, source: IpAddr, gives_way: &CancellationToken) -> u64 {
        let mut strangers = self.strangers();
        if strangers.waiting.len() >= self.handshakes
            && let Some(number) = strangers.who_gives_way(source)
            && let Some(stranger) = strangers.waiting.remove(&number)
        {
            stranger.gives_way.cancel();
            if let Some(left_out) = self.given_up.tell() {
                tracing::warn!(
                    limit = self.handshakes,
                    source = %stranger.source,
                    left_out,
                    "too many connections have not introduced themselves: the oldest give way (server.handshakes)"
                );
            }
        }
        strangers.last += 1;
        let number = strangers.last;
        let stranger = Stranger {
            source,
            gives_way: gives_way.clone(),
        };
        strangers.waiting.insert(number, stranger);
        number
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// All places but those of a few, for the one that decides whether the server ends.
#[derive(Debug)]
pub struct Others<'a> {
    admission: &'a Admission,
    places: Option<SemaphorePermit<'a>>,
}

impl Others<'_> {
    /// Lets nobody in any more.
    pub fn close(mut self) {
        if let Some(places) = self.places.take() {
            places.forget();
        }
        self.admission.places.close();
    }
}

impl Drop for Others<'_> {
    fn drop(&mut self) {
        // First the places: who finds none is told rightly why.
        self.places = None;
        self.admission.reserved.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Strangers {
    /// The oldest of the address with the most, counting one that comes from `next`.
    fn who_gives_way(&self, next: IpAddr) -> Option<u64> {
        let mut counts = HashMap::from([(next, 1_usize)]);
        for stranger in self.waiting.values() {
            *counts.entry(stranger.source).or_default() += 1;
        }
        let of = |stranger: &Stranger| counts.get(&stranger.source).copied();
        let most = self.waiting.values().map(of).max()?;
        let mut oldest_first = self.waiting.iter();
        let found = oldest_first.find(|(_, stranger)| of(stranger) == most);
        found.map(|(number, _)| *number)
    }
}

impl Seat {
    /// It is known from now on, and gives way to nobody.
    ///
    /// # Errors
    /// Why it must go: it gave way before, or there is no place left.
    pub fn take(&self) -> Result<(), String> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Ok(());
        }
        let mut strangers = self.admission.strangers();
        if self.gives_way.is_cancelled() {
            return Err(self.why());
        }
        let free = Arc::clone(&self.admission.places).try_acquire_owned();
        *place = Some(free.map_err(|_none| self.admission.full())?);
        strangers.waiting.remove(&self.number);
        Ok(())
    }

    /// Waits until it has to give way, if ever.
    pub async fn must_go(&self) {
        self.gives_way.cancelled().await;
    }

    /// Why it had to give way.
    pub fn why(&self) -> String {
        format!(
            "this connection gave way to a newer one, since {} had not introduced themselves (server.handshakes)",
            self.admission.handshakes
        )
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admission.strangers().waiting.remove(&self.number);
    }
}

/// Whoever has one address of IPv6 has all of its network.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, handshakes: usize) -> Arc<Admission> {
        Admission::new(&ServerSettings {
            connections,
            handshakes,
            ..ServerSettings::default()
        })
    }

    fn gave_way(seats: &[Arc<Seat>]) -> Vec<usize> {
        let all = seats.iter().enumerate();
        let gone = all.filter(|(_, seat)| seat.gives_way.is_cancelled());
        gone.map(|(index, _)| index).collect()
    }

    #[test]
    fn the_oldest_of_the_busiest_network_gives_way_and_known_ones_never() {
        let admission = admission(8, 4);
        let come = |from: &str| admission.admit(Some(from.parse().unwrap())).unwrap();
        let mut seats = vec![
            come("192.0.2.1"),
            come("2001:db8::1"),
            come("2001:db8::2"),
            come("192.0.2.1"),
        ];
        seats[0].take().unwrap();
        seats.push(come("2001:db8::ffff"));
        assert!(gave_way(&seats).is_empty());
        seats.push(come("192.0.2.9"));
        assert_eq!(gave_way(&seats), [1]);
        seats.push(come("2001:db8::1"));
        assert_eq!(gave_way(&seats), [1, 2]);
        assert!(seats[1].take().unwrap_err().contains("gave way"));
        // Only they are left once each network has one.
        drop(seats.drain(1..));
        assert!(admission.strangers().waiting.is_empty());
    }

    #[test]
    fn places_are_for_those_who_are_known() {
        let admission = admission(2, 2);
        let stranger = || admission.admit("192.0.2.1".parse().ok());
        let (one, two) = (stranger().unwrap(), stranger().unwrap());
        let local = admission.admit(None).unwrap();
        one.take().unwrap();
        one.take().unwrap();
        assert_eq!(two.take().unwrap_err(), admission.full());
        assert!(stranger().is_none() && admission.admit(None).is_none());
        drop(local);
        two.take().unwrap();
        drop(one);
        assert!(stranger().is_some());
    }

    #[test]
    fn who_comes_while_the_server_may_end_is_not_told_that_it_is_full() {
        let admission = admission(2, 2);
        let client = admission.admit(None).unwrap();
        assert!(admission.others(0).is_none() && !admission.is_closing());
        let others = admission.others(1).unwrap();
        assert!(admission.admit(None).is_none() && admission.is_closing());
        drop(others);
        drop(admission.admit(None).unwrap());
        assert!(!admission.is_closing());
        drop(client);
        admission.others(0).unwrap().close();
        assert!(admission.admit(None).is_none() && admission.is_closing());
    }
}
