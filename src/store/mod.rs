//! The transcript and what goes with it, in one SQLite file.
//!
//! One writer thread groups what arrives into transactions; readers have
//! connections of their own and never wait for it. A row of `events` is
//! session, sequence number, time, direction, kind and raw JSON: this room does
//! not know what a message means, `kind` is a label that the caller chose.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;

/// A handle to one database; clones share it.
#[derive(Clone)]
pub struct Store {
    // inner: Arc<...>
}

/// Room in the writer's bounded queue. Sending does not wait, so sequence
/// numbers can be given out and rows sent under one short lock.
pub struct Permit<'a> {
    _store: &'a Store,
}

impl Store {
    /// Opens or creates the database, migrates it, and starts its writer.
    pub fn open(_path: &Path) -> Result<Store, StoreError> {
        unimplemented!()
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// Waits for room in the writer's queue.
    pub async fn reserve(&self) -> Result<Permit<'_>, StoreError> {
        unimplemented!()
    }

    /// Inserts a session. Its transcript is empty.
    pub async fn create_session(&self, _session: &SessionRow) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Replaces everything but the id and the creation time of a session.
    pub async fn update_session(&self, _session: &SessionRow) -> Result<(), StoreError> {
        unimplemented!()
    }

    pub async fn session(&self, _id: &str) -> Result<Option<SessionRow>, StoreError> {
        unimplemented!()
    }

    /// Newest activity first.
    pub async fn sessions(&self, _filter: SessionFilter) -> Result<Vec<SessionRow>, StoreError> {
        unimplemented!()
    }

    /// Removes a session with its events and logs, overwriting their pages.
    /// `None` if there was none.
    pub async fn delete_session(&self, _id: &str) -> Result<Option<Deleted>, StoreError> {
        unimplemented!()
    }

    /// One page of a session's events in ascending order.
    pub async fn events(&self, _page: EventPage) -> Result<Vec<EventRow>, StoreError> {
        unimplemented!()
    }

    /// The highest sequence number of a session, 0 if it has no events.
    pub async fn last_seq(&self, _session: &str) -> Result<i64, StoreError> {
        unimplemented!()
    }

    /// Appends lines of an agent's stderr (or noise on its stdout), keeping
    /// only the newest `keep_bytes` per session.
    pub async fn append_log(
        &self,
        _session: &str,
        _lines: Vec<LogLine>,
        _keep_bytes: u64,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The newest `limit` log lines with `number` above `after`, ascending.
    pub async fn log(
        &self,
        _session: &str,
        _after: i64,
        _limit: usize,
    ) -> Result<Vec<LogRow>, StoreError> {
        unimplemented!()
    }

    /// A small named value (agent capabilities seen, …).
    pub async fn setting(&self, _key: &str) -> Result<Option<String>, StoreError> {
        unimplemented!()
    }

    pub async fn set_setting(&self, _key: &str, _value: &str) -> Result<(), StoreError> {
        unimplemented!()
    }

    pub async fn upsert_vm(&self, _vm: &VmRow) -> Result<(), StoreError> {
        unimplemented!()
    }

    pub async fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        unimplemented!()
    }

    pub async fn delete_vm(&self, _name: &str) -> Result<bool, StoreError> {
        unimplemented!()
    }
}

impl Permit<'_> {
    /// Queues rows of any sessions, to be committed together and in order. The
    /// future ends when they are committed (and, with `durable`, on disk).
    /// Dropping it does not withdraw them.
    pub fn append(
        self,
        _events: Vec<EventRow>,
        _durable: bool,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        unimplemented!()
    }
}

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
    pub session: std::sync::Arc<str>,
    /// From 1, without gaps within a session.
    pub seq: i64,
    /// Milliseconds since 1970, by the host's clock; order is by `seq`.
    pub time: i64,
    pub direction: Direction,
    pub kind: std::borrow::Cow<'static, str>,
    pub raw: Box<str>,
}

#[derive(Debug, Clone, Default)]
pub struct EventPage {
    pub session: String,
    /// Only events with a higher number.
    pub after: Option<i64>,
    /// Only events with a lower number. With `before` and no `after`, the page
    /// is the last `limit` events below it.
    pub before: Option<i64>,
    pub limit: usize,
    /// The page ends once its raw JSON passes this many bytes (at least one event).
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

#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path}: {source}", path = .path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the database {path} was written by a newer acpbox (schema {found}, this one knows {known}); update acpbox or name another file with --db", path = .path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("the database {path} is damaged ({detail}); it was left as it is: move it away, or name another file with --db", path = .path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error("the database's writer has stopped")]
    Stopped,
}
