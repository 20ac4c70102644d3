//! The rows that go in and come out, and what selects them.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use super::search::{SearchQuery, SnippetPart};

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

/// A prompt and what became of it, as numbers of events of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRow {
    /// The public session id.
    pub session: Arc<str>,
    /// The prompt's own event.
    pub prompt: i64,
    /// The first event that can be of its turn; absent while it waits for one.
    pub first: Option<i64>,
    /// The event that ended it; absent until then.
    pub last: Option<i64>,
    /// The client's own name for the request, at most one prompt's in a session.
    pub key: Option<Box<str>>,
}

/// What is stored together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// A session that is made with its first events.
    pub session: Option<Box<SessionRow>>,
    pub events: Vec<EventRow>,
    /// What the events begin and end. A turn's first row makes it; later ones add
    /// what they know.
    pub turns: Vec<TurnRow>,
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
    /// `open`, `closed`; `importing` ones are in no list.
    pub state: String,
    /// How it was created, as JSON: directories, MCP servers, environment names, instructions.
    pub options: String,
    /// What it used, as JSON that the caller adds up; `{}` while it told of nothing.
    pub usage: String,
}

#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub cwd: Option<PathBuf>,
    pub agent: Option<String>,
    pub vm: Option<String>,
    /// The agent's own id; not in the index.
    pub agent_session: Option<String>,
    /// Part of the title, without regard to ASCII case.
    pub title: Option<String>,
    /// As stored: `open` or `closed`.
    pub state: Option<String>,
    /// Activity at or after this, milliseconds since 1970.
    pub since: Option<i64>,
    /// Activity before this.
    pub until: Option<i64>,
    /// Only those of these ids.
    pub among: Option<Vec<String>>,
    /// None of these ids.
    pub except: Vec<String>,
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

/// An answer that holds until it is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionRow {
    /// Given by the store.
    pub id: i64,
    pub agent: String,
    pub workspace: PathBuf,
    /// Labels of the caller's: what for.
    pub kind: String,
    pub scope: String,
    pub subject: String,
    pub decision: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// The session in which it was given; it may be deleted by now.
    pub session: String,
}

/// A piece of a session's text, to be found by its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The event where it begins.
    pub seq: i64,
    /// That event's time.
    pub time: i64,
    /// A label that the caller chose; `title` is the store's own.
    pub kind: Cow<'static, str>,
    pub text: String,
}

/// How much of a session is in documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Documents that begin up to this event will not change.
    pub settled: i64,
    /// All events up to this one are in some document, if they have text.
    pub seen: i64,
}

/// A session with events that are in no document yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnindexedSession {
    /// Newer sessions have higher ones.
    pub key: i64,
    pub id: String,
    pub indexed: Indexed,
}

/// Documents to be added to a session.
#[derive(Debug, Clone)]
pub struct IndexStep {
    pub session: String,
    /// As it was read: where it has changed since, nothing is added.
    pub from: Indexed,
    pub to: Indexed,
    /// What lies behind `from.settled`; what was there before is replaced.
    pub documents: Vec<Document>,
}

/// What to search, and which page of what is found.
#[derive(Debug, Clone)]
pub struct SearchFilter {
    pub query: SearchQuery,
    pub session: Option<String>,
    pub cwd: Option<PathBuf>,
    pub agent: Option<String>,
    /// What a document of each kind counts; 1 where none is named.
    pub weights: &'static [(&'static str, f64)],
    /// Milliseconds since 1970, for what counts as recent.
    pub now: i64,
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<SearchCursor>,
}

/// Where a page of a search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchCursor {
    /// Only documents below this one.
    pub below: i64,
    /// So many of the best are left out.
    pub offset: usize,
}

#[derive(Debug, Clone)]
pub struct SearchPage {
    /// The best first.
    pub hits: Vec<SearchHit>,
    /// Absent on the last page.
    pub next: Option<SearchCursor>,
}

#[derive(Debug, Clone)]
pub struct SearchHit {
    pub session: SessionRow,
    pub seq: i64,
    pub time: i64,
    pub kind: String,
    pub snippet: Vec<SnippetPart>,
}
