//! Deleting a session: out of sight in one transaction, then its rows are
//! overwritten a few at a time, so that a long transcript holds nobody up.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::OptionalExtension;

use super::database::{Database, Synchronous};
use super::error::{Fault, StoreError};
use super::events;
use super::rows::Deleted;
use super::search;
use super::writer::{Reply, truncate_wal};

/// Rows overwritten in one transaction; about 3 ms of the writer's time.
const ROWS_PER_STEP: i64 = 1000;

/// Free pages are kept for later events up to this part of the file, and in any
/// case up to this number; what is above goes back to the disk. A guess: moving
/// pages costs more than keeping them.
const KEPT_FREE_PART: i64 = 8;
const KEPT_FREE_PAGES: i64 = 1024;

/// Pages given back in one transaction; some milliseconds of the writer's time.
const PAGES_PER_STEP: i64 = 256;

/// A deleted session whose rows are still there.
pub(super) struct Purge {
    key: i64,
    deleted: Deleted,
}

impl Purge {
    /// Takes a session out of sight. `None` if there is no such session.
    pub(super) fn doom(database: &mut Database, session: &str) -> Result<Option<Purge>, Fault> {
        database.forget(session);
        let key = database
            .statement("DELETE FROM sessions WHERE id = ?1 RETURNING key")?
            .query_row([session], |row| row.get(0))
            .optional()?;
        let Some(key) = key else { return Ok(None) };
        database
            .statement("INSERT INTO doomed(session) VALUES (?1)")?
            .execute([key])?;
        database.mark_indexed(key)?;
        Ok(Some(Purge {
            key,
            deleted: Deleted::default(),
        }))
    }

    /// Overwrites some rows. True once none is left.
    fn step(&mut self, database: &mut Database) -> rusqlite::Result<bool> {
        database.begin(Synchronous::Normal)?;
        let events = events::remove_some(database, self.key, ROWS_PER_STEP)?;
        let log_lines = remove_some(
            database,
            self.key,
            "SELECT number FROM logs WHERE session = ?1 ORDER BY number LIMIT 1 OFFSET ?2",
            "DELETE FROM logs WHERE session = ?1 AND number < ?2",
        )?;
        let documents = search::remove_some(database, self.key)?;
        let turns = remove_some(
            database,
            self.key,
            "SELECT prompt FROM turns WHERE session = ?1 ORDER BY prompt LIMIT 1 OFFSET ?2",
            "DELETE FROM turns WHERE session = ?1 AND prompt < ?2",
        )?;
        let done = events + log_lines + documents + turns == 0;
        if done {
            database
                .statement("DELETE FROM doomed WHERE session = ?1")?
                .execute([self.key])?;
        }
        database.commit()?;
        self.deleted.events += events;
        self.deleted.log_lines += log_lines;
        Ok(done)
    }
}

/// What is left to overwrite.
pub(super) struct Purges {
    waiting: VecDeque<(Purge, Option<Reply<Option<Deleted>>>)>,
    /// Those that could not be finished.
    failed: Vec<Purge>,
    /// Whether there may be free pages to give back.
    is_shrinking: bool,
}

impl Purges {
    /// What a run that was killed did not finish.
    pub(super) fn unfinished(database: &Database) -> Purges {
        let keys = database
            .statement("SELECT session FROM doomed")
            .and_then(|mut statement| {
                statement
                    .query_map([], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<i64>>>()
            });
        let keys = keys.unwrap_or_else(|error| {
            tracing::warn!(%error, "the list of half-deleted sessions cannot be read");
            Vec::new()
        });
        let waiting = keys.into_iter().map(|key| {
            (
                Purge {
                    key,
                    deleted: Deleted::default(),
                },
                None,
            )
        });
        Purges {
            waiting: waiting.collect(),
            failed: Vec::new(),
            is_shrinking: false,
        }
    }

    pub(super) fn push(&mut self, purge: Purge, reply: Reply<Option<Deleted>>) {
        self.waiting.push_back((purge, Some(reply)));
        let failed = std::mem::take(&mut self.failed);
        self.waiting
            .extend(failed.into_iter().map(|purge| (purge, None)));
    }

    /// Leaves free pages in the file until something else is deleted.
    pub(super) fn stop_shrinking(&mut self) {
        self.is_shrinking = false;
    }

    /// Does a little. False if there was nothing to do.
    pub(super) fn step(&mut self, database: &mut Database, path: &Path) -> bool {
        let Some((purge, _)) = self.waiting.front_mut() else {
            if self.is_shrinking {
                self.is_shrinking = shrink(database).unwrap_or_else(|error| {
                    database.roll_back();
                    tracing::info!(%error, "free pages stay in the database for now");
                    false
                });
            }
            return self.is_shrinking;
        };
        let mut is_done = false;
        let outcome = match purge.step(database) {
            Ok(false) => return true,
            // The rows are gone from the pages; their old images go with the WAL.
            Ok(true) => {
                is_done = true;
                truncate_wal(database).map(|emptied| {
                if !emptied {
                    tracing::info!("a reader keeps the old WAL; a deleted session leaves it with the next checkpoints");
                }
                purge.deleted
            })
            }
            Err(error) => {
                database.roll_back();
                Err(error)
            }
        };
        self.is_shrinking = true;
        if let Some((purge, reply)) = self.waiting.pop_front() {
            if outcome.is_err() && !is_done {
                // Tried again with the next deletion, or by the next start: the key
                // stays in `doomed`.
                self.failed.push(purge);
            }
            if let Some(reply) = reply {
                let answer = outcome.map(Some).map_err(|error| rows_left(error, path));
                let _ = reply.send(answer);
            }
        }
        true
    }
}

/// What whoever deletes is told: the session itself is gone, and cannot be deleted
/// again.
fn rows_left(error: rusqlite::Error, path: &Path) -> StoreError {
    match Fault::Sqlite(error).into_error(path) {
        StoreError::Full { path, detail } => StoreError::Full {
            path,
            detail: format!(
                "{detail}; the session is deleted, and what is left of its events is overwritten \
                 with the next deletion"
            ),
        },
        other => other,
    }
}

/// Gives some free pages back to the disk. False when few are left, or the file
/// was made before acpbox made them such that it can.
fn shrink(database: &mut Database) -> rusqlite::Result<bool> {
    let (free, all, mode): (i64, i64, i64) = database
        .statement(
            "SELECT freelist_count, page_count, auto_vacuum
             FROM pragma_freelist_count, pragma_page_count, pragma_auto_vacuum",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    const INCREMENTAL: i64 = 2;
    let excess = free - KEPT_FREE_PAGES.max(all / KEPT_FREE_PART);
    if excess <= 0 || mode != INCREMENTAL {
        return Ok(false);
    }
    database.begin(Synchronous::Normal)?;
    {
        let pages = excess.min(PAGES_PER_STEP);
        let mut statement =
            (database.connection).prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        // Each step gives one page back.
        while rows.next()?.is_some() {}
    }
    database.commit()?;
    if excess <= PAGES_PER_STEP {
        // The file itself is cut by the checkpoint.
        truncate_wal(database)?;
    }
    Ok(true)
}

/// Deletes the first rows of a session: `bound` finds the number after them.
fn remove_some(
    database: &Database,
    key: i64,
    bound: &'static str,
    delete: &'static str,
) -> rusqlite::Result<u64> {
    let below: Option<i64> = database
        .statement(bound)?
        .query_row((key, ROWS_PER_STEP), |row| row.get(0))
        .optional()?;
    let removed = database
        .statement(delete)?
        .execute((key, below.unwrap_or(i64::MAX)))?;
    Ok(u64::try_from(removed).unwrap_or(u64::MAX))
}
