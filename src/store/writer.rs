//! The one thread that writes: takes all that waits, commits it together,
//! then answers each job.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::database::{Database, Synchronous};
use super::delete::{Purge, Purges};
use super::error::{Fault, StoreError};
use super::events;
use super::open;
use super::rows::{Deleted, EventRow};

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

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Job {
    Append {
        events: Vec<EventRow>,
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

/// Starts the thread. It ends after [`Job::Close`], or once every sender is
/// gone and what they sent is committed.
pub(super) fn start(
    path: PathBuf,
    database: Database,
    queue: mpsc::Receiver<Job>,
) -> Result<(), StoreError> {
    let spawned = thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            let purges = Purges::unfinished(&database);
            let writer = Writer {
                path,
                database,
                queue,
                group: Vec::new(),
                purges,
                wal_pages: 0,
                unsynced: true,
            };
            writer.run();
        });
    spawned.map(drop).map_err(|source| StoreError::Io {
        what: "cannot start the database's writer".into(),
        source,
    })
}

struct Writer {
    path: PathBuf,
    database: Database,
    queue: mpsc::Receiver<Job>,
    /// The jobs of the transaction at hand, and why a job of it failed.
    group: Vec<(Job, Option<Fault>)>,
    purges: Purges,
    /// An estimate; other processes write to the WAL too.
    wal_pages: usize,
    /// Whether a commit may not be on disk yet.
    unsynced: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let closing = self.collect(first);
            self.commit();
            if let Some(reply) = closing {
                self.stop(reply);
                return;
            }
            self.checkpoint_when_due();
        }
        while self.purges.step(&mut self.database, &self.path) {}
    }

    /// Waits for a job; while nothing waits, deleted rows are overwritten.
    fn next(&mut self) -> Option<Job> {
        loop {
            match self.queue.try_recv() {
                Ok(job) => {
                    // Deleting must go on beside a steady stream too.
                    self.purges.step(&mut self.database, &self.path);
                    return Some(job);
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if !self.purges.step(&mut self.database, &self.path) {
                        return self.queue.blocking_recv();
                    }
                }
            }
        }
    }

    /// Fills the group with what waits. Returns who asked to close, if any.
    fn collect(&mut self, first: Job) -> Option<Reply<()>> {
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
                Job::Append { ref events, .. } => bytes += events::bytes(events),
                Job::Call(_) | Job::Delete { .. } => {}
            }
            self.group.push((job, None));
            next = if bytes < GROUP_BYTES && self.group.len() < QUEUE_JOBS {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        self.wal_pages += bytes / PAGE_BYTES + PAGES_PER_COMMIT;
        None
    }

    /// Commits the group and answers its jobs.
    fn commit(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let mut outcome = self.transact(false);
        if let Err(fault) = &outcome
            && fault.blames_the_job()
        {
            outcome = self.transact(true);
        }
        for (job, own) in self.group.drain(..) {
            let result = match (&outcome, own) {
                (Err(fault), _) => Err(fault.again().into_error(&self.path)),
                (Ok(()), Some(fault)) => Err(fault.into_error(&self.path)),
                (Ok(()), None) => Ok(()),
            };
            answer(job, result, &mut self.purges);
        }
    }

    /// One transaction over the group. With `apart`, a job that is itself to
    /// blame is undone alone and its fault kept beside it.
    fn transact(&mut self, apart: bool) -> Result<(), Fault> {
        let done = self.try_transact(apart);
        if done.is_err() {
            self.database.roll_back();
        }
        done
    }

    fn try_transact(&mut self, apart: bool) -> Result<(), Fault> {
        let durable = self
            .group
            .iter()
            .any(|(job, _)| matches!(job, Job::Append { durable: true, .. }));
        self.database.begin(if durable {
            Synchronous::Full
        } else {
            Synchronous::Normal
        })?;
        if durable && self.unsynced && !self.group.iter().any(|(job, _)| writes_surely(job)) {
            self.database.touch()?;
        }
        for (job, own) in &mut self.group {
            if !apart {
                run(job, &mut self.database)?;
                continue;
            }
            self.database.statement("SAVEPOINT job")?.execute([])?;
            match run(job, &mut self.database) {
                Ok(()) => {
                    self.database.statement("RELEASE job")?.execute([])?;
                }
                Err(fault) if fault.blames_the_job() => {
                    self.database.roll_back_job()?;
                    *own = Some(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.database.commit()?;
        self.unsynced = !durable;
        Ok(())
    }

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

    fn stop(mut self, reply: Reply<()>) {
        let mut replies = vec![reply];
        while let Some(job) = self.queue.blocking_recv() {
            match job {
                Job::Close { reply } => replies.push(reply),
                job => self.group.push((job, None)),
            }
        }
        self.commit();
        let mut synced = self.sync();
        while self.purges.step(&mut self.database, &self.path) {}
        let closed = self.database.connection.close();
        if let Err((_, error)) = closed {
            tracing::warn!(%error, "the database did not close cleanly");
        }
        for reply in replies {
            // The error goes to the first who asked; the others learn that it is over.
            let _ = reply.send(std::mem::replace(&mut synced, Err(StoreError::Stopped)));
        }
    }

    /// Makes sure that all commits are on disk.
    fn sync(&mut self) -> Result<(), StoreError> {
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
        done.map_err(|error| StoreError::from_sqlite(&self.path, error))
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

fn run(job: &mut Job, database: &mut Database) -> Result<(), Fault> {
    match job {
        Job::Append { events, .. } => events::insert(database, events),
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
    matches!(job, Job::Append { events, .. } if !events.is_empty())
}
