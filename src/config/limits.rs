//! `[limits]`: everything is bounded, and these are the bounds.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// Bounds on what peers may send and how long acpbox waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest JSON-RPC message that is read, in bytes.
    #[serde(deserialize_with = "units::count")]
    #[schemars(with = "Size")]
    pub line_bytes: usize,
    /// How deep arrays and objects of a message may nest.
    pub depth: usize,
    /// Requests that one peer may have unanswered.
    pub pending_requests: usize,
    /// Prompts that may wait for their turn in one session.
    pub queued_prompts: usize,
    /// What is kept of an agent's stderr, in bytes, newest last.
    #[serde(deserialize_with = "units::count")]
    #[schemars(with = "Size")]
    pub stderr_bytes: usize,
    /// What a terminal keeps of a command's output when the agent sets no bound, in bytes.
    #[serde(deserialize_with = "units::count")]
    #[schemars(with = "Size")]
    pub terminal_bytes: usize,
    /// How long an agent may take to answer `initialize`.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub initialize_timeout: Duration,
    /// How long an agent may take to answer `session/new`, `session/load` and `session/resume`.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub session_timeout: Duration,
    /// How long a cancelled turn may go on before acpbox ends it itself.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub cancel_grace: Duration,
    /// How long its agent may then go on before it is ended, to be started anew.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub stop_grace: Duration,
    /// How often prompts start a session's agent anew that ended by itself, within `restart_window`.
    pub agent_restarts: usize,
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub restart_window: Duration,
    /// How long an agent may take to exit after SIGTERM before it is killed.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub exit_grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes: 64 << 20,
            // serde_json itself stops at 128 levels where it recurses; the relay does not.
            depth: 512,
            pending_requests: 1024,
            queued_prompts: 32,
            stderr_bytes: 256 << 10,
            terminal_bytes: 1 << 20,
            // Generous: a cold `npx` downloads the agent first.
            initialize_timeout: Duration::from_secs(60),
            session_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(10),
            stop_grace: Duration::from_secs(10),
            // Guesses: enough for an agent that fails now and then, too few for a loop.
            agent_restarts: 5,
            restart_window: Duration::from_secs(600),
            // Some clients send SIGTERM 300 ms after they closed stdin; one real agent
            // ignores it for more than 12 s, and is killed.
            exit_grace: Duration::from_millis(250),
        }
    }
}

/// How sizes look in the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Size {
    Bytes(u64),
    /// Such as `64MiB`.
    WithUnit(String),
}
