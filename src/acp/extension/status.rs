//! `_acpbox/server/status`: what an acpbox process does right now.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::Role;
use super::requests::VmStatus;

/// `_acpbox/server/status` takes nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerStatusRequest {}

/// What an acpbox process serves, to whom, and how busy it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    pub version: String,
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started: i64,
    /// Milliseconds, by a clock that nobody sets.
    pub uptime: u64,
    pub database: PathBuf,
    /// Sessions with an agent in this process, and those that this process put to
    /// sleep; the newest first.
    pub sessions: Vec<SessionStatus>,
    /// Every VM that is known, running or not.
    pub vms: Vec<VmStatus>,
    /// The clients that are connected, in the order in which they came.
    pub clients: Vec<ClientStatus>,
    pub totals: Totals,
    /// What is wrong and keeps nobody from working: a configuration file that was
    /// changed and cannot be read, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    pub session_id: String,
    pub agent: String,
    pub vm: String,
    pub cwd: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub state: Activity,
    /// Clients that follow it.
    pub clients: usize,
    /// Prompts that wait behind the one that runs.
    pub queued_prompts: usize,
    /// Questions of the agent's that wait for a person's answer.
    pub pending_requests: usize,
    /// When anything last went on; milliseconds since 1970.
    pub last_activity: i64,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Its agent is there, and no turn runs.
    Idle,
    /// A turn runs, or a prompt waits for one.
    Prompting,
    /// A turn runs and waits for somebody to allow or to answer something.
    WaitingForPermission,
    /// Its agent has ended, or is being ended, and comes back when it is needed.
    Asleep,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientStatus {
    /// Its number: the how-manieth client of this process it is. Logs name it too.
    pub number: u64,
    /// `clientInfo`'s title, else its name; absent before `initialize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `clientInfo`'s version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it is connected: `stdio`, or a socket and what is known of its other end.
    pub peer: String,
    /// Since when; milliseconds since 1970.
    pub since: i64,
    /// What waits to be read by it.
    pub queued_bytes: usize,
    /// The sessions that it follows.
    pub sessions: Vec<String>,
    /// The same sessions, and how it follows each.
    #[serde(default)]
    pub follows: Vec<Following>,
}

/// How a client follows a session.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    pub session_id: String,
    pub role: Role,
    /// Events that the others have been sent and it has not, since it reads too slowly
    /// or is still being told what happened before; 0 for one that keeps up.
    pub behind: u64,
    /// What is kept for it alone until then, such as requests, in bytes.
    pub kept_bytes: usize,
}

/// Since the process started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Events that were written for live sessions.
    pub events: u64,
    /// Turns, and prompts without one, that ended.
    pub turns: u64,
    /// Clients that connected.
    pub clients: u64,
}
