//! What is typed, line by line, and signals.

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rpc::stdio;

/// Lines that may wait to be looked at.
const WAITING_LINES: usize = 16;

/// Within this time after the first Ctrl-C a second one leaves.
const TWICE: Duration = Duration::from_secs(2);

/// What comes from the person.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// A line without its end, as it was typed.
    Line(String),
    /// What was typed cannot be used, and why.
    Wrong(String),
    /// The end of the input.
    End,
    /// Ctrl-C, but for the second one.
    Interrupt,
}

pub(super) struct Input {
    lines: mpsc::Receiver<Typed>,
    interrupts: mpsc::Receiver<()>,
    left: CancellationToken,
    pub(super) is_terminal: bool,
    /// Whether nothing more comes.
    pub(super) has_ended: bool,
}

impl Input {
    /// Reads standard input, if `is_read`, and takes over the signals. Call within
    /// a tokio runtime. `line_bytes` is the longest line that is taken.
    pub(super) fn new(line_bytes: usize, is_read: bool) -> io::Result<Input> {
        let (sender, lines) = mpsc::channel(WAITING_LINES);
        if is_read {
            tokio::spawn(read(stdio::input(), line_bytes, sender));
        }
        let left = CancellationToken::new();
        let (interrupt, interrupts) = mpsc::channel(1);
        listen(left.clone(), interrupt)?;
        Ok(Input {
            lines,
            interrupts,
            left,
            is_terminal: is_read && io::stdin().is_terminal(),
            has_ended: !is_read,
        })
    }

    /// Ends when the person has left: by a second Ctrl-C, SIGTERM or SIGHUP.
    pub(super) fn left(&self) -> CancellationToken {
        self.left.clone()
    }

    /// What comes next, but for lines unless `is_heard`. Safe to drop while it waits.
    pub(super) async fn next(&mut self, is_heard: bool) -> Typed {
        let is_heard = is_heard && !self.has_ended;
        let typed = tokio::select! {
            biased;
            Some(()) = self.interrupts.recv() => Typed::Interrupt,
            typed = self.lines.recv(), if is_heard => typed.unwrap_or(Typed::End),
            else => std::future::pending().await,
        };
        self.has_ended |= typed == Typed::End;
        typed
    }
}

fn listen(left: CancellationToken, interrupts: mpsc::Sender<()>) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut before: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
            }
            let is_second = before.is_some_and(|before| before.elapsed() < TWICE);
            // Nobody took the first one: whatever is going on does not get to it.
            if is_second || interrupts.try_send(()).is_err() {
                break;
            }
            before = Some(Instant::now());
        }
        left.cancel();
    });
    Ok(())
}

/// Reads lines until the end. One that is too long, or no text, is said to be so.
async fn read(mut input: impl AsyncRead + Unpin, line_bytes: usize, lines: mpsc::Sender<Typed>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let count = input.read(&mut buffer).await.unwrap_or(0);
        let is_end = count == 0;
        if is_end && (!line.is_empty() || is_too_long) {
            // The last line may lack its end.
            buffer[0] = b'\n';
        }
        let read = match is_end {
            true => &buffer[..usize::from(!line.is_empty() || is_too_long)],
            false => &buffer[..count],
        };
        for piece in read.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            is_too_long |= line.len() + text.len() > line_bytes;
            match is_too_long {
                true => line.clear(),
                false => line.extend_from_slice(text),
            }
            if piece.ends_with(b"\n") {
                let whole = std::mem::take(&mut line);
                let typed = typed(whole, std::mem::take(&mut is_too_long), line_bytes);
                if lines.send(typed).await.is_err() {
                    return;
                }
            }
        }
        if is_end {
            let _ = lines.send(Typed::End).await;
            return;
        }
    }
}

fn typed(line: Vec<u8>, is_too_long: bool, line_bytes: usize) -> Typed {
    if is_too_long {
        return Typed::Wrong(format!(
            "a line is longer than {line_bytes} bytes (limits.line_bytes); it was not sent"
        ));
    }
    match String::from_utf8(line) {
        Ok(line) => Typed::Line(line.trim_end_matches('\r').to_owned()),
        Err(_) => Typed::Wrong("a line is not UTF-8; it was not sent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_read_whole_and_wrong_ones_said_to_be_so() {
        let (sender, mut lines) = mpsc::channel(WAITING_LINES);
        let input: &[u8] = b"one\r\n\ntoo long\n\xff\nlast";
        read(input, 6, sender).await;
        let mut read = Vec::new();
        while let Some(typed) = lines.recv().await {
            read.push(typed);
        }
        assert!(
            matches!(&read[..], [Typed::Line(one), Typed::Line(empty), Typed::Wrong(long), Typed::Wrong(text), Typed::Line(last), Typed::End]
                if one == "one" && empty.is_empty() && long.contains("longer") && text.contains("UTF-8") && last == "last"),
            "{read:?}"
        );
    }
}
