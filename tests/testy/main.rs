//! testy: an ACP agent that does exactly what a script says, for the tests.
//!
//! `testy [FILE]` reads the script from a file, or from the variable
//! `TESTY_SCRIPT` when no file is named: one JSON object (a step) per line. See
//! `step.rs` for the steps. It answers `initialize` and `session/new` itself,
//! unless a step expects them; after the last step it serves on until its input
//! ends, then exits with 0. It needs no file but itself, so it runs in any VM
//! that shares the host's `/usr`.

mod agent;
mod step;

use std::process::ExitCode;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--daemon") {
        return agent::daemon(std::env::args().nth(2).as_deref());
    }
    let script = match argument {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}")),
        None => std::env::var("TESTY_SCRIPT")
            .map_err(|_| "name a script file, or set TESTY_SCRIPT".to_owned()),
    };
    let code = script
        .and_then(|script| step::parse(&script))
        .and_then(|steps| agent::Agent::new().run(steps));
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("testy: {error}");
            // Unlike any code that a script is likely to ask for.
            ExitCode::from(99)
        }
    }
}
