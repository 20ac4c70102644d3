//! What a VM's handle, its processes and its keeper thread share.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::vm::guest::protocol::{Request, encode};
use crate::vm::{Exit, Io};

/// How many processes may be starting at once; the rest wait their turn. This
/// also bounds the outbox. A guess: starting takes a millisecond.
const STARTING_AT_ONCE: usize = 64;

pub(super) type StartAnswer = Result<Begun, Failure>;

/// A process that has started. Unless it is claimed it is killed: whoever
/// asked for it has gone, and nobody else knows it.
pub(super) struct Begun {
    shared: Arc<Shared>,
    id: u64,
    pipes: Option<Vec<OwnedFd>>,
}

impl Begun {
    pub(super) fn new(shared: Arc<Shared>, id: u64, pipes: Vec<OwnedFd>) -> Begun {
        Begun {
            shared,
            id,
            pipes: Some(pipes),
        }
    }

    /// How many pipes it came with.
    pub(super) fn pipes(&self) -> usize {
        self.pipes.as_ref().map_or(0, Vec::len)
    }

    /// The process's pipes; from now on it is the caller's.
    pub(super) fn claim(mut self) -> Vec<OwnedFd> {
        self.pipes.take().unwrap_or_default()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.pipes.is_some() {
            self.shared.signal(self.id, true);
        }
    }
}

/// Why a guest did not start a process.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound,
    Refused(String),
    Ended(String),
}

/// A request that waits for its `Started`.
pub(super) struct Starting {
    pub(super) io: Io,
    pub(super) answer: oneshot::Sender<StartAnswer>,
    pub(super) exit: watch::Sender<Option<Exit>>,
}

pub(super) struct Shared {
    name: String,
    state: Mutex<State>,
    wake: OwnedFd,
    ended: watch::Sender<Option<String>>,
    pub(super) turns: Semaphore,
}

#[derive(Default)]
pub(super) struct State {
    /// Frames to send, in order. Bounded by the turns and by two signals per
    /// live process.
    pub(super) outbox: VecDeque<Vec<u8>>,
    pub(super) starting: HashMap<u64, Starting>,
    pub(super) running: HashMap<u64, watch::Sender<Option<Exit>>>,
    next_id: u64,
    closing: bool,
    ended: Option<String>,
}

impl Shared {
    pub(super) fn new(name: &str) -> std::io::Result<Shared> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Shared {
            name: name.to_owned(),
            state: Mutex::default(),
            wake: rustix::event::eventfd(0, flags)?,
            ended: watch::Sender::new(None),
            turns: Semaphore::new(STARTING_AT_ONCE),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(super) fn watch_end(&self) -> watch::Receiver<Option<String>> {
        self.ended.subscribe()
    }

    /// Nothing here can be left half done by a panic, so a poisoned lock is fine.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request to start a process.
    ///
    /// # Errors
    /// The guest has ended, or the request is too large; in words.
    pub(super) fn ask_to_start(
        &self,
        request: impl FnOnce(u64) -> Request,
        starting: Starting,
    ) -> Result<u64, Failure> {
        let mut state = self.state();
        if let Some(reason) = &state.ended {
            return Err(Failure::Ended(reason.clone()));
        }
        if state.closing {
            return Err(Failure::Ended("it is being stopped".to_owned()));
        }
        let id = state.next_id;
        let frame = encode(&request(id)).map_err(|error| Failure::Refused(error.to_string()))?;
        state.next_id += 1;
        state.starting.insert(id, starting);
        state.outbox.push_back(frame);
        drop(state);
        self.notify();
        Ok(id)
    }

    pub(super) fn signal(&self, id: u64, kill: bool) {
        self.queue(&Request::Signal { id, kill });
    }

    /// Asks the guest to end everything and itself. Idempotent.
    pub(super) fn ask_to_end(&self) {
        let first = !std::mem::replace(&mut self.state().closing, true);
        if first {
            self.queue(&Request::Shutdown);
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// The guest is gone: everyone who waits for something of it is told.
    pub(super) fn end(&self, reason: &str, exit: &Exit) {
        let (starting, running) = {
            let mut state = self.state();
            state.ended = Some(reason.to_owned());
            state.outbox.clear();
            (
                std::mem::take(&mut state.starting),
                std::mem::take(&mut state.running),
            )
        };
        // First the whole, so that who learns of a part finds the reason.
        self.ended.send_replace(Some(reason.to_owned()));
        for waiting in starting.into_values() {
            let _ = waiting.answer.send(Err(Failure::Ended(reason.to_owned())));
        }
        for watcher in running.into_values() {
            watcher.send_replace(Some(exit.clone()));
        }
    }

    fn queue(&self, request: &Request) {
        let frame = encode(request).expect("a signal or shutdown request is a few bytes");
        {
            let mut state = self.state();
            if state.ended.is_some() {
                return;
            }
            state.outbox.push_back(frame);
        }
        self.notify();
    }

    fn notify(&self) {
        // Full means that a wake-up is already due.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}
