//! Standard output: whatever a command prints goes through here.
//!
//! A reader that went away (`| head -1`) is no error: [`Closed`] ends the
//! command quietly. Colours are left out where `NO_COLOR` or a pipe says so.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::ColorChoice;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::run::failure::plain;
use crate::acp::Failure;

/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

/// Nobody reads standard output any more.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct Closed;

/// For commands that print something and end.
pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    pub(super) is_terminal: bool,
    /// Whether colours are wanted.
    pub(super) color: bool,
    /// Columns; as many as there are characters where nobody looks.
    pub(super) width: usize,
}

impl Output {
    pub(super) fn new() -> Output {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Output {
            is_terminal,
            color: anstream::AutoStream::choice(&stdout) != ColorChoice::Never,
            width: if is_terminal {
                columns(&stdout)
            } else {
                usize::MAX
            },
            out: BufWriter::new(stdout.lock()),
        }
    }

    /// Prints text as it is.
    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        checked(self.out.write_all(text.as_bytes()))
    }

    pub(super) fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.text(line)?;
        self.text("\n")
    }

    /// Prints a value as indented JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(&text)
    }

    /// Prints a value as one line of JSON.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(&text)
    }

    /// Hands on what was printed. Without it, what is left may be lost unsaid.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        checked(self.out.flush())
    }
}

fn checked(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Closed.into(),
        _ => anyhow::Error::new(error).context("cannot write to standard output"),
    })
}

/// For commands that stream: a reader who waits does not keep acpbox from
/// hearing a signal.
pub(super) struct Stream {
    out: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) is_terminal: bool,
    /// Line breaks that the output ends with, as many as matter; `None` before
    /// anything was written.
    line_breaks: Option<usize>,
}

impl Stream {
    /// Call within a tokio runtime.
    pub(super) fn new() -> Stream {
        Stream {
            out: crate::rpc::stdio::output(),
            is_terminal: io::stdout().is_terminal(),
            line_breaks: None,
        }
    }

    pub(super) async fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let body = text.trim_end_matches('\n');
        let ends_with = text.len() - body.len();
        self.line_breaks = Some(match self.line_breaks {
            Some(before) if body.is_empty() => before + ends_with,
            _ => ends_with,
        });
        checked(self.out.write_all(text.as_bytes()).await)?;
        checked(self.out.flush().await)
    }

    /// Adds line breaks until the output ends with `count` of them. An output
    /// without anything stays so.
    pub(super) async fn break_lines(&mut self, count: usize) -> anyhow::Result<()> {
        match self.line_breaks {
            Some(there) if there < count => self.write(&"\n".repeat(count - there)).await,
            _ => Ok(()),
        }
    }

    /// Whoever types on the same terminal has ended the line that was open.
    pub(super) fn was_ended(&mut self) {
        self.line_breaks = self.line_breaks.map(|there| there.max(1));
    }

    /// Whether the last line is not ended.
    pub(super) fn is_mid_line(&self) -> bool {
        self.line_breaks == Some(0)
    }
}

/// Whether what is said on standard error is read by programs.
static IN_JSON: AtomicBool = AtomicBool::new(false);

/// From now on [`say`] writes lines as the log's, each a JSON object.
pub(super) fn say_in_json() {
    IN_JSON.store(true, Ordering::Relaxed);
}

/// Says something on standard error, harmless for a terminal whoever wrote it.
pub(super) fn say(text: &str) {
    let text = crate::transcript::printable(text);
    if IN_JSON.load(Ordering::Relaxed) {
        let timestamp = jiff::Timestamp::now().to_string();
        let line = serde_json::json!({
            "timestamp": timestamp, "level": "INFO", "message": text, "target": "acpbox",
        });
        eprintln!("{line}");
        return;
    }
    eprintln!("acpbox: {text}");
}

/// An error with its causes, but for those that the text before them says already.
pub(super) fn reasons(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    if error.is::<Failure>() {
        text = plain(&text).to_owned();
    }
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints styled text on standard error; styles go where they are not wanted.
pub(super) fn note(text: &str) {
    let mut stderr = anstream::stderr().lock();
    // Nothing can be said about a standard error that takes nothing.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Whether standard error is to have colours.
pub(super) fn stderr_color() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Columns of the terminal behind standard error.
pub(super) fn stderr_width() -> usize {
    columns(&io::stderr())
}

fn columns(stream: &impl std::os::fd::AsFd) -> usize {
    match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => USUAL_WIDTH,
    }
}
