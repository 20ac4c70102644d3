//! `acpbox sessions replay`: a transcript in the terminal as it happened.

use std::time::Duration;

use tokio::time::Instant;

use super::Desk;
use crate::cli::args::SessionsReplayArguments;
use crate::cli::exit::{self, Code};
use crate::cli::find;
use crate::cli::output::{self, Output, Stream};
use crate::cli::table::local_time;
use crate::store::EventRow;
use crate::transcript::{Follower, TerminalOptions, TerminalRenderer, printable_line};

/// Text that is collected before it is written, where there are no pauses.
const WRITE_BYTES: usize = 64 * 1024;

/// A reader who stopped the output does not see what was missed go by at once.
const LARGEST_DELAY: Duration = Duration::from_millis(250);

pub(super) async fn run(desk: &Desk, arguments: &SessionsReplayArguments) -> anyhow::Result<Code> {
    let row = find::session(&desk.store, &arguments.id).await?;
    let look = Output::new();
    let (color, width, is_terminal) = (look.color, look.width, look.is_terminal);
    drop(look);
    let options = TerminalOptions {
        color,
        // Where no terminal says how wide it is, nothing is cut.
        width,
        live: true,
        ..TerminalOptions::default()
    };
    let is_instant = arguments.instant || (arguments.speed.is_none() && !is_terminal);
    let mut player = Player {
        out: Stream::new(),
        renderer: TerminalRenderer::new(options),
        shown: String::new(),
        pace: (!is_instant).then(|| Pace::new(arguments.speed.unwrap_or(1.0), arguments.max_pause)),
    };
    let head = format!(
        "session {} · {} in {} · {} · {}",
        row.id,
        row.agent,
        row.vm,
        row.cwd.display(),
        local_time(row.created)
    );
    let style = match color {
        true => anstyle::Style::new().dimmed(),
        false => anstyle::Style::new(),
    };
    player.shown = format!("{style}{}{style:#}\n\n", printable_line(&head));
    let mut follower = Follower::new(&row.id, 0);
    let was_interrupted = tokio::select! {
        played = player.play(desk, &mut follower) => {
            played?;
            false
        }
        signal = tokio::signal::ctrl_c() => {
            signal?;
            true
        }
    };
    if was_interrupted {
        // It may have come within a coloured line.
        let reset = if color { "\x1b[0m" } else { "" };
        player.out.write(reset).await?;
        player.out.break_lines(1).await?;
        return Ok(exit::CANCELLED);
    }
    if let Some(holder) = desk.holder(&row.id) {
        output::say(&format!(
            "the session is live in process {holder}; this is what it had said until now"
        ));
    }
    Ok(exit::DONE)
}

struct Player {
    out: Stream,
    renderer: TerminalRenderer,
    /// What is not written yet.
    shown: String,
    /// Absent where everything comes at once.
    pace: Option<Pace>,
}

impl Player {
    async fn play(&mut self, desk: &Desk, follower: &mut Follower) -> anyhow::Result<()> {
        loop {
            let events = follower.next(&desk.store).await?;
            if events.is_empty() {
                break;
            }
            for event in &events {
                self.event(event).await?;
            }
        }
        self.renderer.finish(&mut self.shown)?;
        self.write().await
    }

    async fn event(&mut self, event: &EventRow) -> anyhow::Result<()> {
        let due = self.pace.as_mut().and_then(|pace| pace.due(event.time));
        if let Some(due) = due {
            self.write().await?;
            tokio::time::sleep_until(due).await;
        } else if self.shown.len() > WRITE_BYTES {
            self.write().await?;
        }
        self.renderer.feed(event, &mut self.shown)?;
        Ok(())
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let shown = std::mem::take(&mut self.shown);
        self.out.write(&shown).await
    }
}

/// When each event is due. Pauses add up to moments, since a timer that is late
/// by a millisecond for each of many events would be late by minutes.
struct Pace {
    speed: f64,
    max_pause: Duration,
    last: Option<i64>,
    next: Instant,
}

impl Pace {
    fn new(speed: f64, max_pause: Duration) -> Pace {
        Pace {
            speed,
            max_pause,
            last: None,
            next: Instant::now(),
        }
    }

    /// `None` where an event is due already.
    fn due(&mut self, time: i64) -> Option<Instant> {
        let now = Instant::now();
        if now.saturating_duration_since(self.next) > LARGEST_DELAY {
            self.next = now;
        }
        let pause = self.pause(time);
        self.next += pause;
        (self.next > now).then_some(self.next)
    }

    /// As long as between this event and the one before, where the clock can be
    /// believed: it may have been set back, or a day ahead.
    fn pause(&mut self, time: i64) -> Duration {
        let last = self.last.replace(time).unwrap_or(time);
        let gap = u64::try_from(time.saturating_sub(last)).unwrap_or(0);
        let gap = Duration::from_millis(gap).min(self.max_pause);
        gap.div_f64(self.speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_as_recorded_but_for_idle_times_and_clocks_that_jump() {
        let mut pace = Pace::new(4.0, Duration::from_secs(2));
        let times = [
            (5_000, 0),
            (5_400, 100),
            (5_400, 0),
            (1_000, 0),
            (1_200, 50),
            (86_400_000, 500),
            (i64::MIN, 0),
            (i64::MAX, 500),
        ];
        for (time, expected) in times {
            assert_eq!(pace.pause(time), Duration::from_millis(expected), "{time}");
        }
    }
}
