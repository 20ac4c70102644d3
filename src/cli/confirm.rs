//! Asks before something is lost.

use std::io::{BufRead, IsTerminal, stdin};

use super::exit::Usage;
use super::output;

/// Whether the person agrees. Where nobody can be asked, `--yes` must say so.
pub(super) fn confirm(question: &str, yes: bool) -> Result<bool, Usage> {
    if yes {
        return Ok(true);
    }
    if !(stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Usage(format!(
            "there is no terminal to ask on, so --yes must answer this: {question}"
        )));
    }
    output::note(&format!(
        "{} [y/N] ",
        crate::transcript::printable(question)
    ));
    let mut line = String::new();
    // An input that cannot be read agrees to nothing.
    let _ = stdin().lock().read_line(&mut line);
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
