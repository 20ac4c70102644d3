//! The writer's connection, and the session keys it remembers.

use std::collections::{HashMap, HashSet};

use rusqlite::{CachedStatement, Connection};

use super::error::Fault;
use super::sessions;

/// Sessions remembered before the memory is emptied; a guess, far above the
/// number of sessions that are live at once.
const KEYS_KEPT: usize = 4096;

pub(super) struct Database {
    pub(super) connection: Connection,
    keys: HashMap<Box<str>, i64>,
    /// Sessions that are known to be in `unindexed`, by key.
    unindexed: HashSet<i64>,
    /// Changes when another connection has committed.
    data_version: i64,
    synchronous: Synchronous,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synchronous {
    /// The operating system has it: it survives the end of this process.
    Normal,
    /// The disk has it, and every commit before it.
    Full,
}

impl Database {
    /// Takes a connection that stands at [`Synchronous::Normal`].
    pub(super) fn new(connection: Connection) -> Database {
        Database {
            connection,
            keys: HashMap::new(),
            unindexed: HashSet::new(),
            data_version: 0,
            synchronous: Synchronous::Normal,
        }
    }

    pub(super) fn statement(&self, sql: &'static str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Starts a transaction that may write at once.
    pub(super) fn begin(&mut self, synchronous: Synchronous) -> rusqlite::Result<()> {
        if self.synchronous != synchronous {
            self.connection.execute_batch(match synchronous {
                Synchronous::Normal => "PRAGMA synchronous = NORMAL",
                Synchronous::Full => "PRAGMA synchronous = FULL",
            })?;
            self.synchronous = synchronous;
        }
        self.statement("BEGIN IMMEDIATE")?.execute([])?;
        let data_version = self
            .statement("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if self.data_version != data_version {
            // Another process may have deleted a session that is remembered.
            self.forget_all();
            self.data_version = data_version;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.statement("COMMIT")?.execute([]).map(drop)
    }

    /// Undoes the open transaction, if SQLite has not done so already.
    pub(super) fn roll_back(&mut self) {
        self.forget_all();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "the transaction could not be rolled back");
        }
    }

    /// Undoes what was done since `SAVEPOINT job`, inside the open transaction.
    pub(super) fn roll_back_job(&mut self) -> rusqlite::Result<()> {
        self.forget_all();
        self.connection
            .execute_batch("ROLLBACK TO job; RELEASE job")
    }

    /// Writes a page that changes nothing, so that the commit has something to
    /// sync: an empty transaction would not sync the ones before it.
    pub(super) fn touch(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "PRAGMA application_id = {}",
            super::schema::APPLICATION_ID
        ))
    }

    /// The key that stands for a session in the other tables.
    pub(super) fn key(&mut self, session: &str) -> Result<i64, Fault> {
        if let Some(key) = self.keys.get(session) {
            return Ok(*key);
        }
        let key = sessions::key(&self.connection, session)?
            .ok_or_else(|| Fault::UnknownSession(session.to_owned()))?;
        if self.keys.len() >= KEYS_KEPT {
            self.keys.clear();
        }
        self.keys.insert(session.into(), key);
        Ok(key)
    }

    pub(super) fn forget(&mut self, session: &str) {
        self.keys.remove(session);
    }

    /// Notes that a session has something that cannot be searched yet. Costs a
    /// look into memory once it is noted.
    pub(super) fn mark_unindexed(&mut self, key: i64) -> rusqlite::Result<()> {
        if self.unindexed.contains(&key) {
            return Ok(());
        }
        self.statement("INSERT OR IGNORE INTO unindexed(session) VALUES (?1)")?
            .execute([key])?;
        if self.unindexed.len() >= KEYS_KEPT {
            self.unindexed.clear();
        }
        self.unindexed.insert(key);
        Ok(())
    }

    pub(super) fn mark_indexed(&mut self, key: i64) -> rusqlite::Result<()> {
        self.unindexed.remove(&key);
        self.statement("DELETE FROM unindexed WHERE session = ?1")?
            .execute([key])
            .map(drop)
    }

    /// What is remembered may not hold any more.
    fn forget_all(&mut self) {
        self.keys.clear();
        self.unindexed.clear();
    }
}
