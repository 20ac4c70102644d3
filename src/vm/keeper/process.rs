//! Signals to one process of a guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::shared::Shared;
use crate::vm::{Exit, ProcessControl};

/// Each signal is sent once; the kernel needs no reminder, and this bounds
/// what a caller can queue.
pub(super) struct Control {
    shared: Arc<Shared>,
    id: u64,
    exit: watch::Receiver<Option<Exit>>,
    asked: AtomicBool,
    killed: AtomicBool,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>, id: u64, exit: watch::Receiver<Option<Exit>>) -> Self {
        Control {
            shared,
            id,
            exit,
            asked: AtomicBool::new(false),
            killed: AtomicBool::new(false),
        }
    }
}

impl ProcessControl for Control {
    fn terminate(&self) {
        if self.exit.borrow().is_none() && !self.asked.swap(true, Ordering::Relaxed) {
            self.shared.signal(self.id, false);
        }
    }

    fn kill(&self) {
        if !self.killed.swap(true, Ordering::Relaxed) {
            self.shared.signal(self.id, true);
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Control")
            .field("vm", &self.shared.name())
            .field("process", &self.id)
            .finish()
    }
}
