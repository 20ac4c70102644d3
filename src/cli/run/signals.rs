//! Ctrl-C: the first one cancels the turn, the second one stops.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Cancel,
    Stop,
}

pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    interrupts: usize,
    is_urgent: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupts: 0,
            is_urgent: false,
        })
    }

    /// Waits for the next one. SIGTERM and SIGHUP stop at once.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => self.interrupts += 1,
            _ = self.terminate.recv() => self.interrupts += 2,
            _ = self.hangup.recv() => self.interrupts += 2,
        }
        if self.interrupts < 2 {
            return Asked::Cancel;
        }
        self.is_urgent = true;
        Asked::Stop
    }

    /// Whether somebody is done waiting.
    pub(super) fn are_urgent(&self) -> bool {
        self.is_urgent
    }

    /// While things are put away: waits for a signal after which not even that is awaited.
    pub(super) async fn stop_at_once(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
