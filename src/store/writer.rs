//! The one thread that writes: takes all that waits, commits it together,
//! then answers each job.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::database::{Database, Synchronous};
use super::delete::{Purge, Purges};
use super::error::{Fault, StoreError};
use super::events;
use super::open;
use super::rows::{Deleted, Rows};
use super::sessions;
use super::turns;
use super::written::Counter;

/// Jobs that wait for the writer, and at most go into one transaction.
pub(super) const QUEUE_JOBS: usize = 1024;

/// A transaction is closed once it holds this many bytes of events: SQLite
/// spills larger ones to the WAL before the commit, and others would wait.
const GROUP_BYTES: usize = 1 << 20;

/// Pages in the WAL (about) before they are copied into the database. Measured:
/// each copy costs two syncs, and a WAL of 16 MiB still opens quickly.
const CHECKPOINT_PAGES: usize = 4096;

const PAGE_BYTES: usize = 4096;

/// What a commit writes besides its rows: the inner and half-filled pages.
const PAGES_PER_COMMIT: usize = 2;

/// How long the end of a process may wait for free pages to be given back.
const LAST_SHRINKING: Duration = Duration::from_millis(500);

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Job {
    Append {
        rows: Rows,
        durable: bool,
        reply: Reply<()>,
    },
    Call(Box<dyn Call>),
    Delete {
        session: String,
        purge: Option<Purge>,
        reply: Reply<Option<Deleted>>,
    },
    /// Sync all that came before, copy it into the database and stop.
    Close {
        reply: Reply<()>,
    },
}

/// A write that runs inside the group's transaction. It may run twice, the
/// first time having been rolled back.
pub(super) trait Call: Send {
    fn run(&mut self, database: &mut Database) -> Result<(), Fault>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A [`Call`] made of a closure and the place where its value goes.
pub(super) struct Write<T, F> {
    pub(super) run: F,
    pub(super) value: Option<T>,
    pub(super) reply: Reply<T>,
}

impl<T: Send, F: FnMut(&mut Database) -> Result<T, Fault> + Send> Call for Write<T, F> {
    fn run(&mut self, database: &mut Database) -> Result<(), Fault> {
        self.value = Some((self.run)(database)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Write { value, reply, .. } = *self;
        // Nobody may be waiting any more; the write stands.
        let _ = reply.send(outcome.and_then(|()| value.ok_or(StoreError::Stopped)));
    }
}

/// What may be committed on the caller's own thread while the writer is idle:
/// the two thread changes of a queued append cost more than such a commit.
const AT_ONCE_EVENTS: usize = 8;
const AT_ONCE_BYTES: usize = 16 * 1024;

/// The writer's connection. Callers borrow it for a small append while no job waits.
pub(super) struct Shared {
    path: PathBuf,
    core: Mutex<Option<Core>>,
    /// Jobs that were sent and are not answered yet.
    waiting: AtomicUsize,
    /// Told after each commit that was to be durable.
    pub(super) synced: Notify,
    pub(super) counter: Counter,
}

struct Core {
    database: Database,
    /// An estimate; other processes write to the WAL too.
    wal_pages: usize,
    /// Whether a commit may not be on disk yet.
    unsynced: bool,
}

impl Shared {
    pub(super) fn new(path: &Path, database: Database) -> Arc<Shared> {
        Arc::new(Shared {
            path: path.to_path_buf(),
            core: Mutex::new(Some(Core {
                database,
                wal_pages: 0,
                unsynced: true,
            })),
            waiting: AtomicUsize::new(0),
            synced: Notify::new(),
            counter: Counter::default(),
        })
    }

    /// Counts a job that is about to be sent.
    pub(super) fn job_sent(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a job that is about to be answered.
    fn job_done(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Commits a few rows on this thread. False, with nothing done, where they
    /// must queue: others wait, another process writes, or it failed (the
    /// writer will find out why).
    pub(super) fn append_at_once(&self, rows: &Rows) -> bool {
        let is_idle = || self.waiting.load(Ordering::SeqCst) == 0;
        let is_small =
            rows.events.len() <= AT_ONCE_EVENTS && events::bytes(&rows.events) <= AT_ONCE_BYTES;
        if !is_small || !is_idle() {
            return false;
        }
        let Ok(mut core) = self.core.try_lock() else {
            return false;
        };
        match core.as_mut() {
            Some(core) if core.wal_pages < CHECKPOINT_PAGES && is_idle() => {
                core.append(rows).is_ok()
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Core>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn append(&mut self, rows: &Rows) -> Result<(), Fault> {
        self.database.connection.busy_timeout(Duration::ZERO)?;
        let done = self.try_append(rows);
        if done.is_err() {
            self.database.roll_back();
        }
        open::wait_for_locks(&mut self.database.connection)?;
        done
    }

    fn try_append(&mut self, rows: &Rows) -> Result<(), Fault> {
        self.database.begin(Synchronous::Normal)?;
        insert(&mut self.database, rows)?;
        self.database.commit()?;
        self.unsynced = true;
        self.wal_pages += PAGES_PER_COMMIT;
        Ok(())
    }
}

/// Starts the thread. It ends after [`Job::Close`], or once every sender is
/// gone and what they sent is committed.
pub(super) fn start(shared: Arc<Shared>, queue: mpsc::Receiver<Job>) -> Result<(), StoreError> {
    let spawned = thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            let purges = match shared.lock().as_ref() {
                Some(core) => Purges::unfinished(&core.database),
                None => return,
            };
            let writer = Writer {
                shared,
                queue,
                group: Vec::new(),
                purges,
            };
            writer.run();
        });
    spawned.map(drop).map_err(|source| StoreError::Io {
        what: "cannot start the database's writer".into(),
        source,
    })
}

struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    /// The jobs of the transaction at hand, and why a job of it failed.
    group: Vec<(Job, Option<Fault>)>,
    purges: Purges,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let shared = Arc::clone(&self.shared);
            let mut guard = shared.lock();
            let Some(core) = guard.as_mut() else { return };
            let closing = self.collect(core, first);
            self.commit(core);
            if let Some(reply) = closing {
                if let Some(core) = guard.take() {
                    self.stop(core, reply);
                }
                return;
            }
            core.checkpoint_when_due();
        }
        while self.purge() {}
    }

    /// Overwrites some deleted rows. False when there are none.
    fn purge(&mut self) -> bool {
        match self.shared.lock().as_mut() {
            Some(core) => self.purges.step(&mut core.database, &self.shared.path),
            None => false,
        }
    }

    /// Waits for a job; while nothing waits, deleted rows are overwritten.
    fn next(&mut self) -> Option<Job> {
        loop {
            match self.queue.try_recv() {
                Ok(job) => {
                    // Deleting must go on beside a steady stream too.
                    self.purge();
                    return Some(job);
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if !self.purge() {
                        return self.queue.blocking_recv();
                    }
                }
            }
        }
    }

    /// Fills the group with what waits. Returns who asked to close, if any.
    fn collect(&mut self, core: &mut Core, first: Job) -> Option<Reply<()>> {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Close { reply } => {
                    // What was sent before the close is in the group by now;
                    // permits taken before it may still send.
                    self.queue.close();
                    return Some(reply);
                }
                Job::Append { ref rows, .. } => bytes += events::bytes(&rows.events),
                Job::Call(_) | Job::Delete { .. } => {}
            }
            self.group.push((job, None));
            next = if bytes < GROUP_BYTES && self.group.len() < QUEUE_JOBS {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        core.wal_pages += bytes / PAGE_BYTES + PAGES_PER_COMMIT;
        None
    }

    /// Commits the group and answers its jobs.
    fn commit(&mut self, core: &mut Core) {
        if self.group.is_empty() {
            return;
        }
        let mut outcome = self.transact(core, false);
        if let Err(fault) = &outcome
            && fault.blames_the_job()
        {
            outcome = self.transact(core, true);
        }
        for (job, own) in self.group.drain(..) {
            let result = match (&outcome, own) {
                (Err(fault), _) => Err(fault.again().into_error(&self.shared.path)),
                (Ok(()), Some(fault)) => Err(fault.into_error(&self.shared.path)),
                (Ok(()), None) => Ok(()),
            };
            self.shared.job_done();
            answer(job, result, &mut self.purges);
        }
    }

    /// One transaction over the group. With `apart`, a job that is itself to
    /// blame is undone alone and its fault kept beside it.
    fn transact(&mut self, core: &mut Core, apart: bool) -> Result<(), Fault> {
        let done = self.try_transact(core, apart);
        if done.is_err() {
            core.database.roll_back();
        }
        done
    }

    fn try_transact(&mut self, core: &mut Core, apart: bool) -> Result<(), Fault> {
        let durable = self
            .group
            .iter()
            .any(|(job, _)| matches!(job, Job::Append { durable: true, .. }));
        core.database.begin(if durable {
            Synchronous::Full
        } else {
            Synchronous::Normal
        })?;
        if durable && core.unsynced && !self.group.iter().any(|(job, _)| writes_surely(job)) {
            core.database.touch()?;
        }
        for (job, own) in &mut self.group {
            if !apart {
                run(job, &mut core.database)?;
                continue;
            }
            core.database.statement("SAVEPOINT job")?.execute([])?;
            match run(job, &mut core.database) {
                Ok(()) => {
                    core.database.statement("RELEASE job")?.execute([])?;
                }
                Err(fault) if fault.blames_the_job() => {
                    core.database.roll_back_job()?;
                    *own = Some(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        core.database.commit()?;
        core.unsynced = !durable;
        if durable {
            self.shared.synced.notify_one();
        }
        Ok(())
    }

    fn stop(mut self, mut core: Core, reply: Reply<()>) {
        let mut replies = vec![reply];
        while let Some(job) = self.queue.blocking_recv() {
            match job {
                Job::Close { reply } => replies.push(reply),
                job => self.group.push((job, None)),
            }
        }
        self.commit(&mut core);
        let mut synced = core.sync(&self.shared.path);
        let patience = Instant::now() + LAST_SHRINKING;
        while self.purges.step(&mut core.database, &self.shared.path) {
            if Instant::now() > patience {
                self.purges.stop_shrinking();
            }
        }
        let closed = core.database.connection.close();
        if let Err((_, error)) = closed {
            tracing::warn!(%error, "the database did not close cleanly");
        }
        for reply in replies {
            // The error goes to the first who asked; the others learn that it is over.
            let _ = reply.send(std::mem::replace(&mut synced, Err(StoreError::Stopped)));
        }
    }
}

impl Core {
    fn checkpoint_when_due(&mut self) {
        if self.wal_pages < CHECKPOINT_PAGES {
            return;
        }
        self.wal_pages = 0;
        let done = self
            .database
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            // The events are safe in the WAL; the next checkpoint copies them.
            tracing::warn!(%error, "the WAL could not be copied into the database yet");
        }
    }

    /// Makes sure that all commits are on disk.
    fn sync(&mut self, path: &Path) -> Result<(), StoreError> {
        if !self.unsynced {
            return Ok(());
        }
        let done = self
            .database
            .begin(Synchronous::Full)
            .and_then(|()| self.database.touch())
            .and_then(|()| self.database.commit());
        if done.is_err() {
            self.database.roll_back();
        }
        done.map_err(|error| StoreError::from_sqlite(path, error))
    }
}

/// How long a checkpoint that empties the WAL waits for readers.
pub(super) const TRUNCATE_WAIT: Duration = Duration::from_millis(200);

/// Empties the WAL, where overwritten rows would still be readable. False when
/// a reader is in the way.
pub(super) fn truncate_wal(database: &mut Database) -> rusqlite::Result<bool> {
    database.connection.busy_timeout(TRUNCATE_WAIT)?;
    let busy = database
        .connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            row.get::<_, i64>(0)
        });
    open::wait_for_locks(&mut database.connection)?;
    Ok(busy? == 0)
}

fn insert(database: &mut Database, rows: &Rows) -> Result<(), Fault> {
    if let Some(session) = &rows.session {
        sessions::create(database, session)?;
    }
    events::insert(database, &rows.events)?;
    turns::upsert(database, &rows.turns)
}

fn run(job: &mut Job, database: &mut Database) -> Result<(), Fault> {
    match job {
        Job::Append { rows, .. } => insert(database, rows),
        Job::Call(call) => call.run(database),
        Job::Delete { session, purge, .. } => {
            *purge = Purge::doom(database, session)?;
            Ok(())
        }
        Job::Close { .. } => Ok(()),
    }
}

fn answer(job: Job, result: Result<(), StoreError>, purges: &mut Purges) {
    // Nobody may be waiting any more; the write stands.
    match job {
        Job::Append { reply, .. } | Job::Close { reply } => drop(reply.send(result)),
        Job::Call(call) => call.answer(result),
        Job::Delete { purge, reply, .. } => match (result, purge) {
            (Ok(()), Some(purge)) => purges.push(purge, reply),
            (Ok(()), None) => drop(reply.send(Ok(None))),
            (Err(error), _) => drop(reply.send(Err(error))),
        },
    }
}

fn writes_surely(job: &Job) -> bool {
    matches!(job, Job::Append { rows, .. } if !rows.events.is_empty())
}
