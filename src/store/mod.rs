//! The transcript and what goes with it, in one SQLite file.
//!
//! One writer thread groups what arrives into transactions; readers have
//! connections of their own and never wait for it. A row of `events` is
//! session, sequence number, time, direction, kind and raw JSON: this room does
//! not know what a message means, `kind` is a label that the caller chose.
//!
//! - `rows`, `error`: what goes in and comes out.
//! - `open`, `schema`, `progress`: the file, its pragmas and its tables, and how they are migrated.
//! - `quarantine`: a damaged file makes room for a new one.
//! - `writer`, `permit`, `database`, `readers`: who runs statements, and when.
//! - `sessions`, `events`, `turns`, `logs`, `vms`, `permissions`, `search`, `delete`: the statements, by table.

mod rows;
mod error;
mod open;
mod schema;
mod progress;
mod writer;
mod permit;
mod database;
mod readers;
mod sessions;
mod events;
mod turns;
mod written;
mod logs;
mod vms;
mod paths;
mod permissions;
mod search;
mod delete;
mod quarantine;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use error::StoreError;
pub use permit::Permit;
pub use rows::{
    Deleted, Direction, Document, EventPage, EventRef, EventRow, IndexStep, Indexed, LogLine,
    LogRow, PermissionRow, Rows, SearchCursor, SearchFilter, SearchHit, SearchPage, SessionFilter,
    SessionRow, TurnRow, UnindexedSession, VmRow,
};
pub use search::{QueryError, SearchQuery, SnippetPart, TITLE};
pub use written::Written;

use database::Database;
use error::Fault;
use readers::Readers;
use writer::{Job, QUEUE_JOBS, Reply, Shared, Write};

/// A handle to one database; clones share it. When the last one is dropped, the
/// writer commits what is queued and closes the file in the background;
/// [`Store::close`] waits for that.
#[derive(Clone)]
pub struct Store {
    queue: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    set_aside: Option<Arc<Path>>,
}

impl Store {
    /// Opens or creates the database, migrates it, and starts its writer.
    ///
    /// The file is private to its owner, and so is its folder if it is created.
    /// Errors: `Newer`, `Damaged` (also for another program's file), `Full`,
    /// `Busy`, `Io`; none of them changes the file.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::start(path, quarantine::writer(path)?, None)
    }

    /// [`Store::open`] for whoever must go on: a damaged database is renamed to
    /// `NAME.damaged-TIME`, with its log, and a new one is begun. Only one that
    /// is acpbox's for sure: because it lies where only acpbox's does
    /// (`is_ours`), or because it says so. Nothing of it is changed.
    ///
    /// Errors as for [`Store::open`]; `Damaged` also where another process has
    /// the file open.
    pub fn open_or_set_aside(path: &Path, is_ours: bool) -> Result<Store, StoreError> {
        let (connection, moved) = quarantine::writer_or_new(path, is_ours)?;
        Store::start(path, connection, moved)
    }

    /// The schema of a database that an older acpbox wrote, which opening it brings
    /// up to date. To be asked before this process opens it.
    pub fn older_schema(path: &Path) -> Option<i64> {
        quarantine::stamped(path).filter(|found| *found < schema::VERSION)
    }

    /// The damaged databases that were set aside beside this path, oldest first.
    pub fn earlier(path: &Path) -> Vec<PathBuf> {
        quarantine::earlier(path)
    }

    fn start(
        path: &Path,
        connection: rusqlite::Connection,
        set_aside: Option<PathBuf>,
    ) -> Result<Store, StoreError> {
        let database = Database::new(connection);
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let shared = Shared::new(path, database);
        writer::start(Arc::clone(&shared), jobs)?;
        Ok(Store {
            queue,
            shared,
            readers: Readers::new(path.to_path_buf()),
            set_aside: set_aside.map(Arc::from),
        })
    }

    /// What users must hear about this database, each a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |path: &Arc<Path>| {
            format!(
                "the database was damaged: it is kept as {}, and a new one was begun, without its \
                 sessions; `sqlite3 {} .recover` shows what can be read of it",
                path.display(),
                path.display()
            )
        };
        self.set_aside.iter().map(warning).collect()
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        self.readers.path()
    }

    /// Waits until everything queued is committed and synced, and closes the
    /// file. Later calls on any clone end with `Stopped`.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.send(|reply| Job::Close { reply }).await
    }

    /// Waits for room in the writer's queue.
    pub async fn reserve(&self) -> Result<Permit<'_>, StoreError> {
        let place = self
            .queue
            .reserve()
            .await
            .map_err(|_| StoreError::Stopped)?;
        Ok(Permit {
            place,
            shared: &self.shared,
        })
    }

    /// Inserts a session. Its transcript is empty.
    pub async fn create_session(&self, session: &SessionRow) -> Result<(), StoreError> {
        let session = session.clone();
        self.write(move |database| sessions::create(database, &session))
            .await
    }

    /// Replaces everything but the id and the creation time of a session.
    pub async fn update_session(&self, session: &SessionRow) -> Result<(), StoreError> {
        let session = session.clone();
        self.write(move |database| sessions::update(database, &session))
            .await
    }

    /// Gives a session that was created as `importing` its id and state, and so
    /// makes it seen. False if a session of that id exists.
    pub async fn publish_session(
        &self,
        staged: &str,
        id: &str,
        state: &str,
    ) -> Result<bool, StoreError> {
        let (staged, id, state) = (staged.to_owned(), id.to_owned(), state.to_owned());
        self.write(move |database| sessions::publish(database, &staged, &id, &state))
            .await
    }

    /// The ids of sessions that are `importing`; a lease tells whether still.
    pub async fn staged_sessions(&self) -> Result<Vec<String>, StoreError> {
        self.readers.read(sessions::staged).await
    }

    pub async fn session(&self, id: &str) -> Result<Option<SessionRow>, StoreError> {
        let id = id.to_owned();
        self.readers
            .read(move |connection| sessions::one(connection, &id))
            .await
    }

    /// Newest activity first.
    pub async fn sessions(&self, filter: SessionFilter) -> Result<Vec<SessionRow>, StoreError> {
        self.readers
            .read(move |connection| sessions::list(connection, &filter))
            .await
    }

    /// The sessions whose id begins with `prefix`, newest activity first.
    pub async fn sessions_beginning_with(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let prefix = prefix.to_owned();
        self.readers
            .read(move |connection| sessions::beginning_with(connection, &prefix, limit))
            .await
    }

    /// Longest unused first, beginning above this (`updated`, `id`).
    pub async fn oldest_sessions(
        &self,
        above: Option<(i64, String)>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.readers
            .read(move |connection| sessions::oldest(connection, above.as_ref(), limit))
            .await
    }

    pub async fn count_sessions(&self) -> Result<u64, StoreError> {
        self.readers.read(sessions::count).await
    }

    /// What deleting a session frees at most, in bytes, estimated from the lengths
    /// of its rows.
    pub async fn session_bytes(&self, id: &str) -> Result<u64, StoreError> {
        let id = id.to_owned();
        self.readers
            .read(move |connection| sessions::bytes(connection, &id))
            .await
    }

    /// The pages of the file that are in use, in bytes. Reads no row.
    pub async fn used_bytes(&self) -> Result<u64, StoreError> {
        self.readers.read(sessions::used_bytes).await
    }

    /// Removes a session with its events and logs, overwriting their pages.
    /// `None` if there was none. The session is out of sight at once; this ends
    /// when its last row is overwritten, and others write meanwhile.
    pub async fn delete_session(&self, id: &str) -> Result<Option<Deleted>, StoreError> {
        let session = id.to_owned();
        self.send(|reply| Job::Delete {
            session,
            purge: None,
            reply,
        })
        .await
    }

    /// One page of a session's events in ascending order, empty for a session
    /// that does not exist.
    pub async fn events(&self, page: EventPage) -> Result<Vec<EventRow>, StoreError> {
        self.readers
            .read(move |connection| events::page(connection, &page))
            .await
    }

    /// Gives a page's events to `step` as they lie in the database, on the thread
    /// that reads them, until it breaks. In the page's order; where only `before`
    /// is given, the last one first.
    pub async fn fold_events<T, F>(
        &self,
        page: EventPage,
        mut value: T,
        mut step: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, EventRef<'_>) -> ControlFlow<()> + Send + 'static,
    {
        self.readers
            .read(move |connection| {
                events::each(connection, &page, |event| step(&mut value, event))?;
                Ok(value)
            })
            .await
    }

    /// The highest sequence number of a session, 0 if it has no events.
    pub async fn last_seq(&self, session: &str) -> Result<i64, StoreError> {
        let session = session.to_owned();
        self.readers
            .read(move |connection| events::last_seq(connection, &session))
            .await
    }

    /// The turn of the prompt that a client gave this key.
    pub async fn turn_of_key(
        &self,
        session: &str,
        key: &str,
    ) -> Result<Option<TurnRow>, StoreError> {
        let (session, key) = (session.to_owned(), key.to_owned());
        self.readers
            .read(move |connection| turns::of_key(connection, &session, &key))
            .await
    }

    /// A session's turns as they were at an event, without their keys.
    pub async fn turns_up_to(&self, session: &str, seq: i64) -> Result<Vec<TurnRow>, StoreError> {
        let session = session.to_owned();
        self.readers
            .read(move |connection| turns::up_to(connection, &session, seq))
            .await
    }

    /// The session's turns that have no end, oldest first: those of whoever
    /// drives it, or left so by a process that was killed. As many as may wait
    /// in a session.
    pub async fn open_turns(&self, session: &str) -> Result<Vec<TurnRow>, StoreError> {
        let session = session.to_owned();
        self.readers
            .read(move |connection| turns::open(connection, &session))
            .await
    }

    /// Appends lines of an agent's stderr (or noise on its stdout), keeping
    /// only the newest `keep_bytes` per session, and the last line in any case.
    pub async fn append_log(
        &self,
        session: &str,
        lines: Vec<LogLine>,
        keep_bytes: u64,
    ) -> Result<(), StoreError> {
        let session = session.to_owned();
        self.write(move |database| logs::append(database, &session, &lines, keep_bytes))
            .await
    }

    /// The newest `limit` log lines with `number` above `after`, ascending.
    pub async fn log(
        &self,
        session: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<LogRow>, StoreError> {
        let session = session.to_owned();
        self.readers
            .read(move |connection| logs::page(connection, &session, after, limit))
            .await
    }

    /// Sessions with events or a title that no search finds yet, the newest
    /// first, with a key below `below`.
    pub async fn unindexed(
        &self,
        below: i64,
        limit: usize,
    ) -> Result<Vec<UnindexedSession>, StoreError> {
        self.readers
            .read(move |connection| search::unindexed(connection, below, limit))
            .await
    }

    /// Adds documents to a session, and its title. False, with nothing done,
    /// where another did it first or the session is gone.
    pub async fn index(&self, step: IndexStep) -> Result<bool, StoreError> {
        let step = search::Prepared::new(step);
        self.write(move |database| step.run(database)).await
    }

    /// Finds documents by their words.
    pub async fn search(&self, filter: SearchFilter) -> Result<SearchPage, StoreError> {
        self.readers
            .read(move |connection| search::page(connection, &filter))
            .await
    }

    /// Waits until something durable was committed since the last call: a turn
    /// has ended, as a rule. For one who waits.
    pub async fn synced(&self) {
        self.shared.synced.notified().await;
    }

    /// A small named value (agent capabilities seen, …).
    pub async fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.readers
            .read(move |connection| vms::setting(connection, &key))
            .await
    }

    pub async fn set_setting(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write(move |database| vms::set_setting(database, &key, &value))
            .await
    }

    pub async fn upsert_vm(&self, vm: &VmRow) -> Result<(), StoreError> {
        let vm = vm.clone();
        self.write(move |database| vms::upsert(database, &vm)).await
    }

    /// All VMs, by name.
    pub async fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        self.readers.read(vms::list).await
    }

    /// False if there was none of that name.
    pub async fn delete_vm(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.write(move |database| vms::delete(database, &name))
            .await
    }

    /// Reads the whole file and compares its structure with itself; slow on a
    /// large one. `Damaged` names the first thing that is wrong.
    pub async fn check(&self) -> Result<(), StoreError> {
        let path = self.path().to_path_buf();
        let verdict = self
            .readers
            .read(|connection| {
                Ok(connection
                    .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?)
            })
            .await?;
        if verdict == "ok" {
            Ok(())
        } else {
            Err(StoreError::Damaged {
                path,
                detail: verdict,
            })
        }
    }

    async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Database) -> Result<T, Fault> + Send + 'static,
    {
        self.send(|reply| {
            Job::Call(Box::new(Write {
                run,
                value: None,
                reply,
            }))
        })
        .await
    }

    async fn send<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let place = self
            .queue
            .reserve()
            .await
            .map_err(|_| StoreError::Stopped)?;
        self.shared.job_sent();
        place.send(job(reply));
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}
