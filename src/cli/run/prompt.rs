//! What to ask: the arguments, then what is piped in.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::exit::Usage;
use crate::cli::output;

/// How long a pipe may stay silent before the person is told what is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// Arguments first, then an empty line, then standard input, unless that is a
/// terminal or empty. At most `limit` bytes.
pub(super) fn read(arguments: &[String], limit: usize) -> Result<String, Usage> {
    let words = arguments.join(" ");
    let stdin = std::io::stdin();
    let piped = if stdin.is_terminal() {
        String::new()
    } else {
        explain_silence(!words.trim().is_empty());
        read_all(stdin.lock(), limit)?
    };
    join(&words, &piped)
}

fn join(words: &str, piped: &str) -> Result<String, Usage> {
    match (words.trim().is_empty(), piped.trim().is_empty()) {
        (false, false) => Ok(format!("{words}\n\n{piped}")),
        (false, true) => Ok(words.to_owned()),
        (true, false) => Ok(piped.to_owned()),
        (true, true) => Err(Usage(
            "there is nothing to ask; give a prompt, as in `acpbox run \"what is this?\"`, \
             or pipe one in"
                .to_owned(),
        )),
    }
}

/// A pipe that nobody writes to and nobody closes would look like a hang.
fn explain_silence(has_words: bool) {
    let stdin = std::io::stdin();
    let patience = Timespec::try_from(SILENCE).unwrap_or_default();
    let is_silent = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&patience)) == Ok(0);
    if is_silent {
        let hint = if has_words {
            "; `< /dev/null` if there is none"
        } else {
            ""
        };
        output::say(&format!(
            "waiting for the end of standard input, which is part of the prompt{hint}"
        ));
    }
}

fn read_all(input: impl Read, limit: usize) -> Result<String, Usage> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    input
        .take(bound)
        .read_to_end(&mut bytes)
        .map_err(|error| Usage(format!("standard input cannot be read: {error}")))?;
    if bytes.len() > limit {
        return Err(Usage(format!(
            "the prompt on standard input is longer than {limit} bytes (limits.line_bytes)"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Usage(format!(
            "the prompt on standard input is not UTF-8 (at byte {at}); convert it, as with iconv"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_before_what_is_piped_in() {
        assert_eq!(join("sum up", "text\n").unwrap(), "sum up\n\ntext\n");
        assert_eq!(join("sum up", " \n").unwrap(), "sum up");
        assert_eq!(join("", "text").unwrap(), "text");
        assert!(join("", "\n").is_err());
    }

    #[test]
    fn input_is_bounded_and_must_be_text() {
        assert_eq!(read_all(&b"abc"[..], 3).unwrap(), "abc");
        assert!(read_all(&b"abcd"[..], 3).unwrap_err().0.contains("longer"));
        assert!(read_all(&b"a\xff"[..], 3).unwrap_err().0.contains("byte 1"));
    }
}
