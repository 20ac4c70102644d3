//! The line that moves while nothing else does, for a person at a terminal.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const FRAME: Duration = Duration::from_millis(100);

/// Shown or hidden on standard error; nowhere else is it of use.
pub(super) struct Progress {
    is_wanted: bool,
    bar: Option<ProgressBar>,
    /// When what is being waited for was asked for.
    began: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            is_wanted: stderr().is_terminal(),
            bar: None,
            began: Instant::now(),
        }
    }

    /// Something new is being waited for.
    pub(super) fn begin(&mut self) {
        self.hide();
        self.began = Instant::now();
    }

    /// The cursor must be at the start of a line.
    pub(super) fn show(&mut self, what: &'static str) {
        if !self.is_wanted || self.bar.is_some() {
            return;
        }
        let bar = ProgressBar::new_spinner()
            .with_message(what)
            .with_elapsed(self.began.elapsed());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(FRAME);
        self.bar = Some(bar);
    }

    pub(super) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
