//! How much was written since the database was opened, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use super::rows::{EventRow, TurnRow};

/// What live sessions had written since the database was opened by this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub events: u64,
    /// Turns, and prompts without one, that ended.
    pub turns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    events: AtomicU64,
    turns: AtomicU64,
}

impl Counter {
    pub(super) fn count(&self, events: &[EventRow], turns: &[TurnRow]) {
        let ended = turns.iter().filter(|turn| turn.last.is_some()).count();
        self.events
            .fetch_add(events.len() as u64, Ordering::Relaxed);
        self.turns.fetch_add(ended as u64, Ordering::Relaxed);
    }
}

impl Store {
    /// How much this handle and its clones were given to write, committed or not yet.
    pub fn written(&self) -> Written {
        let counter = &self.shared.counter;
        Written {
            events: counter.events.load(Ordering::Relaxed),
            turns: counter.turns.load(Ordering::Relaxed),
        }
    }
}
