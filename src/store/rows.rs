//! The rows that go in and come out, and what selects them.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// Which side an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the agent.
    Client,
    /// From the agent to the client.
    Agent,
    /// Written by acpbox itself.
    Acpbox,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The public session id (a UUID).
    pub session: Arc<str>,
    /// From 1, without gaps within a session.
    pub seq: i64,
    /// Milliseconds since 1970, by the host's clock; order is by `seq`.
    pub time: i64,
    pub direction: Direction,
    pub kind: Cow<'static, str>,
    pub raw: Box<str>,
}

/// An event of the session at hand, as it lies in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    pub seq: i64,
    pub time: i64,
    pub direction: Direction,
    pub kind: &'a str,
    pub raw: &'a str,
}

impl EventRow {
    pub fn borrowed(&self) -> EventRef<'_> {
        EventRef {
            seq: self.seq,
            time: self.time,
            direction: self.direction,
            kind: &self.kind,
            raw: &self.raw,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct EventPage {
    pub session: String,
    /// Only events with a higher number.
    pub after: Option<i64>,
    /// Only events with a lower number. With `before` and no `after`, the page
    /// is the last `limit` events below it.
    pub before: Option<i64>,
    /// At most this many events; 0 gives an empty page.
    pub limit: usize,
    /// The page ends before the event that would take its raw JSON past this
    /// many bytes, but holds at least one event.
    pub max_bytes: usize,
    /// Only these kinds; empty means all.
    pub kinds: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: String,
    pub agent: String,
    pub vm: String,
    /// The agent's own id for it, once known.
    pub agent_session: Option<String>,
    pub cwd: PathBuf,
    pub title: Option<String>,
    /// Milliseconds since 1970.
    pub created: i64,
    pub updated: i64,
    /// `open`, `closed`.
    pub state: String,
    /// How it was created, as JSON: directories, MCP servers, environment names, instructions.
    pub options: String,
}

#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub cwd: Option<PathBuf>,
    pub agent: Option<String>,
    pub vm: Option<String>,
    /// Continue below this (`updated`, `id`), as given by the last row of the page before.
    pub below: Option<(i64, String)>,
    pub limit: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    pub events: u64,
    pub log_lines: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: i64,
    /// `stderr` or `stdout`.
    pub stream: &'static str,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// From 1, without gaps but for what was trimmed from the front.
    pub number: i64,
    pub time: i64,
    pub stream: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRow {
    pub name: String,
    pub driver: String,
    pub workspaces: Vec<PathBuf>,
    pub state_dir: PathBuf,
    pub created: i64,
    /// The last boot, milliseconds since 1970.
    pub booted: Option<i64>,
    /// The process that runs it, 0 when it is stopped.
    pub holder: u32,
}
