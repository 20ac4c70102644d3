//! The agent `example`: a scripted ACP v1 agent inside the binary.
//!
//! It has no model and needs no network. It exists so that a first try of
//! acpbox, and its tests, work with nothing else installed. It is an example,
//! nothing more. It runs as `acpbox example-agent`, speaks ACP on standard
//! input and output, and ends when its input ends.
//!
//! A plain prompt gets a tour: a greeting, a plan, a look at the workspace, the
//! files that the prompt names, a file written after asking permission, a
//! command, a summary. A prompt with **directives** gets just those, in order,
//! and then one chunk `DONE <n> tool results`:
//!
//! | directive | what happens |
//! |---|---|
//! | `[[write:/path\|content]]` | writes a file, after asking permission; a tool result |
//! | `[[edit:/path\|old\|new]]` | replaces the first `old`, after asking; a tool result |
//! | `[[read:/path]]` | reads a file; a tool result |
//! | `[[shell:command]]` | runs `sh -c command` in the session's cwd; a tool result |
//! | `[[slow:N]]` | N chunks (`chunk0 `, `chunk1 `, …), 100 ms apart |
//! | `[[think:text]]` | one thought chunk |
//! | `[[say:text]]` | one message chunk |
//! | `[[ask:title]]` | asks permission for nothing, and says `ASK <kind of the chosen option>` |
//! | `[[exit:CODE]]` | the process ends at once with CODE |
//! | `[[flood:N]]` | N numbered message chunks (`0000000000 `, …), each a line of 210 bytes, as fast as it can |
//! | `[[refuse:]]` | the turn ends with stop reason `refusal` |
//! | `[[instructions:]]` | says the first line of the variable `ACPBOX_INSTRUCTIONS` |
//! | `[[env:NAME]]` | says `NAME=value`, or `NAME is not set` |
//! | `[[mcp:]]` | says the names of the MCP servers it was given, or `none` |
//!
//! Relative paths are taken from the session's cwd. A failed tool is a tool
//! result too, and the next directive follows. Mode `auto` asks no permission;
//! so does mode `ask` for the rest of a session in which `allow_always` was
//! chosen. Sessions are kept as one JSON file each under
//! `$HOME/.local/state/acpbox-example/`.

mod server;
mod session;
mod storage;
mod turn;
mod tour;
mod tools;
mod shell;
mod directive;
mod wire;

use std::process::ExitCode;

/// Serves ACP on standard input and output until the input ends.
///
/// Exits with 0 at the end of input, with 1 when the input breaks off or a line
/// is too long, and with whatever an `[[exit:CODE]]` directive says.
pub fn run() -> ExitCode {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let storage = storage::Storage::new(home.as_deref());
    let wire = wire::Wire::new(Box::new(std::io::stdout()));
    let server = server::Server::new(wire, storage);
    match server.serve(std::io::stdin().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acpbox example agent: {error}");
            ExitCode::FAILURE
        }
    }
}
