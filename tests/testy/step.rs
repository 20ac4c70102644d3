//! The steps of a script.

use serde::Deserialize;
use serde_json::Value;

/// One line of a script: one of these keys (`repeat` goes with another).
///
/// In the text of `send` and `raw` these are replaced: `$ID` (the id, as it was
/// spelled, of the request that was expected last), `$SESSION` (the session id of
/// that message, or else the one that `session/new` was answered with), `$CWD`
/// (the cwd of `session/new`), `$N` (the round of a repetition, from 0).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Reads until a request or notification with this method arrives; what else
    /// arrives meanwhile is answered as by default.
    pub(crate) expect: Option<String>,
    /// Reads until an answer with this id arrives.
    pub(crate) expect_answer: Option<Value>,
    /// From now on answers this method with `result` or `error`.
    pub(crate) on: Option<String>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Value>,
    /// Writes a line: a string as it is, anything else as compact JSON.
    pub(crate) send: Option<Value>,
    /// Writes a text as it is, without a newline.
    pub(crate) raw: Option<String>,
    /// Writes bytes, without a newline.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Does the rest of the step so many times.
    pub(crate) repeat: Option<u64>,
    pub(crate) sleep_ms: Option<u64>,
    /// Writes a line to stderr.
    pub(crate) stderr: Option<String>,
    /// Appends every line received from now on to this file.
    pub(crate) record: Option<String>,
    /// Writes its environment to this file, `NAME=value` a line.
    pub(crate) environment: Option<String>,
    /// Ends with this code at once.
    pub(crate) exit: Option<u8>,
    /// From now on ends with code 0 as soon as this file is there, whatever it
    /// does then.
    pub(crate) exit_when: Option<String>,
    #[serde(default)]
    pub(crate) close_stdout: bool,
    /// From now on SIGTERM does nothing.
    #[serde(default)]
    pub(crate) ignore_sigterm: bool,
    /// Leaves a process behind in a session of its own, which appends a byte to
    /// this file every 50 ms for as long as it lives.
    pub(crate) fork_daemon: Option<String>,
    /// Sleeps for ever without reading, and so outlives the end of its input.
    #[serde(default)]
    pub(crate) hang: bool,
    /// Stops itself with SIGSTOP.
    #[serde(default)]
    pub(crate) stop: bool,
    /// Ends itself with this signal's number.
    pub(crate) signal: Option<i32>,
}

/// Reads a script; errors name the line.
pub(crate) fn parse(script: &str) -> Result<Vec<Step>, String> {
    let lines = script.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| format!("line {} of the script: {error}: {line}", index + 1))
        })
        .collect()
}
