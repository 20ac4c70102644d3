//! The person at the terminal, asked without touching standard input, which
//! may be the prompt's.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{QueueSelector, tcflush};
use tokio::io::unix::AsyncFd;

use crate::cli::output;
use crate::session::policy::{Choice, Offered};
use crate::transcript::printable_line;

/// The longest line that a terminal hands over.
const LINE_BYTES: usize = 4096;

/// `/dev/tty`, opened on its own so that nobody else's reads change.
pub(super) struct Terminal(AsyncFd<File>);

impl Terminal {
    /// `None` where nobody sees the question. Call within a tokio runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; a `File` never lies about its descriptor, and `unsafe` stays in vm/"
    )]
    pub(super) fn open() -> Option<Terminal> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
        AsyncFd::new(File::from(opened)).ok().map(Terminal)
    }

    /// Shows the choices. What was typed before was not meant for them.
    pub(super) fn ask(&self, choices: &[Choice]) {
        let _ = tcflush(self.0.get_ref(), QueueSelector::IFlush);
        let mut text = String::new();
        for (number, choice) in (1..).zip(choices) {
            let name = printable_line(&choice.name);
            text.push_str(&format!("  {number}  {name}\n"));
        }
        text.push_str(&format!("1-{}, Enter refuses: ", choices.len()));
        output::note(&text);
    }

    /// Waits for a line; `None` at the end. Safe to drop while it waits.
    pub(super) async fn line(&self) -> Option<String> {
        loop {
            let mut guard = self.0.readable().await.ok()?;
            let mut bytes = [0; LINE_BYTES];
            match guard.try_io(|terminal| terminal.get_ref().read(&mut bytes)) {
                Ok(Ok(0)) | Ok(Err(_)) => return None,
                Ok(Ok(count)) => {
                    return Some(String::from_utf8_lossy(&bytes[..count]).into_owned());
                }
                Err(_would_block) => {}
            }
        }
    }
}

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    Chosen(&'a Choice),
    /// Nothing was chosen: the refusing option if there is one.
    Refused(Option<&'a Choice>),
    Unclear,
}

/// Reads a line as one of the choices. The end of input refuses.
pub(super) fn reply<'a>(
    line: Option<&str>,
    choices: &'a [Choice],
    offered: &'a Offered,
) -> Reply<'a> {
    let word = line.unwrap_or_default().trim();
    if word.is_empty() {
        return Reply::Refused(offered.refusing());
    }
    let number = word.parse::<usize>().ok();
    match number.and_then(|number| choices.get(number.checked_sub(1)?)) {
        Some(choice) => Reply::Chosen(choice),
        None => Reply::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_that_was_shown_chooses() {
        let options = r#"[{"optionId":"a","name":"a","kind":"allow_once"},
            {"optionId":"r","name":"r","kind":"reject_once"}]"#;
        let offered = Offered::read(Some(options));
        let choices: Vec<Choice> = offered.clear().cloned().collect();
        let reply = |line| reply(line, &choices, &offered);
        assert_eq!(reply(Some("1\n")), Reply::Chosen(&choices[0]));
        assert_eq!(reply(Some(" 2 \n")), Reply::Chosen(&choices[1]));
        for unclear in ["0", "3", "y", "-1", "1 2"] {
            assert_eq!(reply(Some(unclear)), Reply::Unclear, "{unclear}");
        }
        assert_eq!(reply(Some("\n")), Reply::Refused(Some(&choices[1])));
        assert_eq!(reply(None), Reply::Refused(Some(&choices[1])));
    }
}
