//! Which sessions are live in this process, and who holds them.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::leases;
use super::live::Live;
use crate::acp::{Failure, Phase};

/// How often a lease that is held is tried again, a millisecond apart.
const LEASE_TRIES: u32 = 3;

/// Live sessions by public id.
pub struct Registry {
    leases: PathBuf,
    slots: Arc<Mutex<Slots>>,
}

type Slots = HashMap<String, Arc<Slot>>;

/// The public ids of a registry's sessions, for one of them to look up.
#[derive(Debug, Clone, Default)]
pub struct KnownIds(Weak<Mutex<Slots>>);

impl KnownIds {
    pub fn contains(&self, id: &str) -> bool {
        let Some(slots) = self.0.upgrade() else {
            return false;
        };
        let slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.contains_key(id)
    }
}

/// One session's place. Its lock is held while the session starts or ends, so
/// that what a client sends meanwhile waits in order.
pub type Slot = tokio::sync::Mutex<Option<Arc<Live>>>;

impl Registry {
    /// `state_dir` is where the leases are kept.
    pub fn new(state_dir: &Path) -> Registry {
        let leases = state_dir.join("leases");
        leases::remove_stale(&leases);
        Registry {
            leases,
            slots: Arc::default(),
        }
    }

    pub fn known_ids(&self) -> KnownIds {
        KnownIds(Arc::downgrade(&self.slots))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a session, live or not.
    pub fn slot(&self, id: &str) -> Arc<Slot> {
        Arc::clone(self.slots().entry(id.to_owned()).or_default())
    }

    /// The session, if it is live now and nothing is being done with it.
    pub fn live(&self, id: &str) -> Option<Arc<Live>> {
        let slot = self.slots().get(id).map(Arc::clone)?;
        let live = slot.try_lock().ok()?.clone()?;
        (!live.is_over()).then_some(live)
    }

    /// Every live session.
    pub fn all(&self) -> Vec<Arc<Live>> {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let live = slots
            .iter()
            .filter_map(|slot| slot.try_lock().ok()?.clone());
        live.filter(|live| !live.is_over()).collect()
    }

    pub fn in_vm(&self, vm: &str) -> Vec<Arc<Live>> {
        let all = self.all().into_iter();
        all.filter(|live| live.vm_name == vm).collect()
    }

    /// Forgets the places of sessions that are over, unless somebody waits there.
    pub fn sweep(&self) {
        self.slots().retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot
                    .try_lock()
                    .is_ok_and(|live| live.as_ref().is_some_and(|live| !live.is_finished()))
        });
    }

    /// The folder of the leases; see [`super::leases`].
    pub fn leases(&self) -> &Path {
        &self.leases
    }

    /// The file whose lock is the right to drive a session; absent while nobody does.
    pub fn lease_path(&self, id: &str) -> PathBuf {
        self.leases.join(id)
    }

    /// Takes the right to drive a session; one process has it at a time.
    pub fn lease(&self, id: &str) -> Result<Lease, Failure> {
        let io = |error: std::io::Error| {
            let what = format!(
                "the session's lease below {}: {error}",
                self.leases.display()
            );
            Failure::internal(Phase::Session, what)
        };
        std::fs::create_dir_all(&self.leases).map_err(io)?;
        let path = self.lease_path(id);
        let mut tries = LEASE_TRIES;
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
                    let what = format!("the session `{id}` is live in another acpbox process");
                    return Err(Failure::internal(Phase::Session, what)
                        .hint("end that one first; its transcript can be read meanwhile"));
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
