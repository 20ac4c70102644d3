//! Which sessions are live in this process, and who holds them.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::followers::{Rest, Waiter};
use super::leases;
use super::live::Live;
use super::locks;
use crate::acp::{Failure, Phase};

/// How often a lease that is held is tried again, a millisecond apart.
const LEASE_TRIES: u32 = 3;

/// Live sessions by public id.
pub struct Registry {
    leases: PathBuf,
    /// As the leases, of sessions that are not live but followed by a client.
    followed: PathBuf,
    places: Arc<Mutex<Places>>,
}

type Places = HashMap<String, Place>;

/// One session's place, live or not.
#[derive(Debug, Default)]
struct Place {
    /// Held while the session starts or ends. It is tried only under the lock on
    /// all places, so that whoever looks is never mistaken for whoever works.
    work: Arc<tokio::sync::Mutex<()>>,
    live: Option<Arc<Live>>,
    /// What is kept of one whose agent ended, until it is back or closed.
    rest: Option<Rest>,
    /// Tells other processes that somebody follows it while it is not live.
    followed: Option<Lease>,
}

/// The public ids of a registry's sessions, for one of them to look up.
#[derive(Debug, Clone, Default)]
pub struct KnownIds(Weak<Mutex<Places>>);

impl KnownIds {
    pub fn contains(&self, id: &str) -> bool {
        let Some(places) = self.0.upgrade() else {
            return false;
        };
        locked(&places).contains_key(id)
    }
}

/// A handle to one session's place. While somebody has it, the place is kept.
#[derive(Debug)]
pub struct Slot {
    id: String,
    places: Arc<Mutex<Places>>,
    work: Arc<tokio::sync::Mutex<()>>,
}

/// The right to start or end a session in this process; what a client sends
/// meanwhile waits in order.
#[derive(Debug)]
pub struct Held<'a> {
    slot: &'a Slot,
    _work: tokio::sync::MutexGuard<'a, ()>,
}

impl Slot {
    pub async fn lock(&self) -> Held<'_> {
        Held {
            _work: self.work.lock().await,
            slot: self,
        }
    }

    /// `None` while the session starts, ends or is being loaded.
    pub(super) fn try_lock(&self) -> Option<Held<'_>> {
        let _places = locked(&self.places);
        Some(Held {
            _work: self.work.try_lock().ok()?,
            slot: self,
        })
    }
}

impl Held<'_> {
    /// The session, if its agent runs.
    pub fn live(&self) -> Option<Arc<Live>> {
        let live = self.place(|place| place.live.clone());
        live.filter(|live| !live.is_over())
    }

    /// Whether no agent of this process has it, and no client follows it.
    pub(super) fn is_vacant(&self) -> bool {
        self.place(|place| {
            place.live.is_none() && !place.rest.as_ref().is_some_and(Rest::is_followed)
        })
    }

    pub fn set(&mut self, live: Arc<Live>) {
        self.place(|place| {
            place.live = Some(live);
            place.rest = None;
            place.followed = None;
        });
    }

    /// Empties the place, for good; what was there may have ended.
    pub fn take(&mut self) -> Option<Arc<Live>> {
        self.place(|place| {
            place.rest = None;
            place.followed = None;
            place.live.take()
        })
    }

    /// Waits for an agent that is ending, and returns what is kept of a session
    /// that is not live. It stays here until the session is back.
    pub(super) async fn settle(&mut self) -> Rest {
        if let Some(ending) = self.place(|place| place.live.clone()) {
            ending.finished().await;
            let rest = ending.rest();
            self.place(|place| {
                place.live = None;
                place.rest = rest;
            });
        }
        self.place(|place| place.rest.clone()).unwrap_or_default()
    }

    /// Lets a client follow a session that is not live, in that VM.
    pub(super) fn follow(&mut self, waiter: Waiter, vm: &str) {
        self.place(|place| {
            let rest = place.rest.get_or_insert_with(|| Rest::of(vm));
            rest.enter(waiter);
        });
    }

    fn place<R>(&self, change: impl FnOnce(&mut Place) -> R) -> R {
        let mut places = locked(&self.slot.places);
        let place = places.entry(self.slot.id.clone());
        // It is kept while there is a handle; if it were not, the lock must be ours.
        change(place.or_insert_with(|| Place {
            work: Arc::clone(&self.slot.work),
            ..Place::default()
        }))
    }
}

fn locked(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// `state_dir` is where the leases are kept.
    pub fn new(state_dir: &Path) -> Registry {
        let leases = state_dir.join("leases");
        let followed = state_dir.join("followed");
        leases::remove_stale(&leases);
        leases::remove_stale(&followed);
        Registry {
            leases,
            followed,
            places: Arc::default(),
        }
    }

    pub fn known_ids(&self) -> KnownIds {
        KnownIds(Arc::downgrade(&self.places))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        locked(&self.places)
    }

    /// The place of a session, live or not.
    pub fn slot(&self, id: &str) -> Slot {
        let work = Arc::clone(&self.places().entry(id.to_owned()).or_default().work);
        Slot {
            id: id.to_owned(),
            places: Arc::clone(&self.places),
            work,
        }
    }

    /// The session, if it is live now and nothing is being done with it.
    pub fn live(&self, id: &str) -> Option<Arc<Live>> {
        let live = {
            let places = self.places();
            let place = places.get(id)?;
            let is_at_rest = place.work.try_lock().is_ok();
            place.live.clone().filter(|_| is_at_rest)
        };
        live.filter(|live| !live.is_over())
    }

    /// Every live session, also one that is being loaded or closed.
    pub fn all(&self) -> Vec<Arc<Live>> {
        let all: Vec<_> = (self.places().values())
            .filter_map(|place| place.live.clone())
            .collect();
        all.into_iter().filter(|live| !live.is_over()).collect()
    }

    /// The sessions that this process put to sleep.
    pub(super) fn asleep(&self) -> Vec<String> {
        let places = self.places();
        let is_asleep = |place: &Place| {
            place.live.is_none() && place.rest.as_ref().is_some_and(Rest::is_asleep)
        };
        let asleep = places.iter().filter(|(_, place)| is_asleep(place));
        asleep.map(|(id, _)| id.clone()).collect()
    }

    pub fn in_vm(&self, vm: &str) -> Vec<Arc<Live>> {
        let all = self.all().into_iter();
        all.filter(|live| live.vm_name == vm).collect()
    }

    /// Every session whose agent has not ended yet, or not told so.
    pub(super) fn unfinished(&self) -> Vec<Arc<Live>> {
        let places = self.places();
        let all = places.values().filter_map(|place| place.live.clone());
        all.filter(|live| !live.is_finished()).collect()
    }

    /// Whether anybody follows a session of this VM whose agent has ended, and keeps
    /// the VM awake.
    pub(super) fn is_attended_in(&self, vm: &str) -> bool {
        let places = self.places();
        let mut rests = places.values().filter_map(|place| place.rest.as_ref());
        rests.any(|rest| rest.is_attended_in(vm))
    }

    /// Lets go of sessions that are over, and forgets the places where nobody
    /// waits and to which nobody will come back.
    pub fn sweep(&self) {
        let is_over = |place: &Place| {
            let is_finished = place.live.as_ref().is_some_and(|live| live.is_finished());
            is_finished && Arc::strong_count(&place.work) == 1
        };
        let over: Vec<_> = (self.places().iter())
            .filter(|(_, place)| is_over(place))
            .filter_map(|(id, place)| Some((id.clone(), place.live.clone()?)))
            .collect();
        // Not under the lock on the places, which is taken under that on a state.
        let rests: Vec<_> = over.iter().map(|(_, live)| live.rest()).collect();
        let mut places = self.places();
        for ((id, live), rest) in over.iter().zip(rests) {
            if let Some(place) = places.get_mut(id)
                && is_over(place)
                && (place.live.as_ref()).is_some_and(|there| Arc::ptr_eq(there, live))
            {
                place.live = None;
                place.rest = rest;
            }
        }
        for (id, place) in places.iter_mut() {
            let is_followed =
                place.live.is_none() && place.rest.as_ref().is_some_and(Rest::is_followed);
            match (&place.followed, is_followed) {
                (Some(_), false) => place.followed = None,
                // Another process may say so already, which is enough.
                (None, true) => place.followed = lock(&self.followed, id, 0).ok(),
                _ => {}
            }
        }
        places.retain(|_, place| {
            Arc::strong_count(&place.work) > 1
                || place.live.is_some()
                || place.rest.as_ref().is_some_and(Rest::is_of_use)
        });
        drop(places);
        // A session's last handle may end its VM, which is not done under a lock either.
        drop(over);
    }

    /// The folder of the leases; see [`super::leases`].
    pub fn leases(&self) -> &Path {
        &self.leases
    }

    /// As [`Registry::leases`], for sessions that are not live but followed.
    pub fn followed(&self) -> &Path {
        &self.followed
    }

    /// The file whose lock is the right to drive a session; absent while nobody does.
    pub fn lease_path(&self, id: &str) -> PathBuf {
        self.leases.join(id)
    }

    /// The sessions that are live in any acpbox process, as far as the kernel tells.
    pub fn live_anywhere(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.leases).into_iter().flatten();
        let held = entries
            .flatten()
            .filter(|entry| !locks::holders(&entry.path()).is_empty());
        held.filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Takes the right to drive a session; one process has it at a time.
    pub fn lease(&self, id: &str) -> Result<Lease, Failure> {
        lock(&self.leases, id, LEASE_TRIES)
    }
}

/// Takes the lock that a file of this name in the folder stands for.
fn lock(folder: &Path, id: &str, mut tries: u32) -> Result<Lease, Failure> {
    let io = |error: std::io::Error| {
        let what = format!("the session's lease below {}: {error}", folder.display());
        Failure::internal(Phase::Session, what)
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let path = folder.join(id);
    loop {
        let file = File::create(&path).map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            // A process that starts looks at leases, for microseconds each.
            Err(rustix::io::Errno::WOULDBLOCK) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(is_held(id, locks::holders(&path).first().copied()));
            }
            Err(error) => return Err(io(error.into())),
        }
        // Its holder may have removed the file between the opening and the lock.
        let is_same = rustix::fs::stat(&path)
            .ok()
            .zip(rustix::fs::fstat(&file).ok());
        if is_same.is_some_and(|(named, held)| named.st_ino == held.st_ino) {
            return Ok(Lease { path, _file: file });
        }
    }
}

fn is_held(id: &str, holder: Option<u32>) -> Failure {
    if holder == Some(std::process::id()) {
        let what = format!("the session `{id}` is still ending");
        return Failure::internal(Phase::Session, what).hint("try again");
    }
    let holder = holder.map(|holder| format!(" ({holder})"));
    let what = format!(
        "the session `{id}` is live in another acpbox process{}",
        holder.unwrap_or_default()
    );
    Failure::internal(Phase::Session, what)
        .hint("end that one first; its transcript can be read meanwhile")
}

/// The right to drive a session. The kernel takes it back when the process
/// ends, however it does.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
