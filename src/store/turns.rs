//! The turns table: which events begin and end each prompt's turn.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use super::database::Database;
use super::error::{Fault, StoreError};
use super::events;
use super::rows::TurnRow;
use super::sessions;

impl Store {
    /// The prompts, by their events' numbers, whose turn begins with an event of
    /// this kind and a number above `after`, and those that still wait.
    pub async fn prompts_begun_by(
        &self,
        session: &str,
        after: i64,
        kind: &'static str,
    ) -> Result<Vec<i64>, StoreError> {
        let session = session.to_owned();
        self.readers
            .read(move |connection| begun_by(connection, &session, after, kind))
            .await
    }
}

/// Adds what is new of each turn. What is known stays: a turn ends once.
pub(super) fn upsert(database: &mut Database, turns: &[TurnRow]) -> Result<(), Fault> {
    for turn in turns {
        let key = database.key(&turn.session)?;
        database
            .statement(
                "INSERT INTO turns(session, prompt, first, last, key) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(session, prompt) DO UPDATE SET
                    first = coalesce(first, excluded.first),
                    last = coalesce(last, excluded.last)",
            )?
            .execute(params![key, turn.prompt, turn.first, turn.last, turn.key])?;
    }
    Ok(())
}

pub(super) fn of_key(
    connection: &Connection,
    session: &str,
    key: &str,
) -> Result<Option<TurnRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT prompt, first, last, key FROM turns
         WHERE session = (SELECT key FROM sessions WHERE id = ?1) AND key = ?2",
    )?;
    let session_id = session.into();
    let turn = statement.query_row([session, key], |row| read(row, &session_id));
    Ok(turn.optional()?)
}

pub(super) fn open(connection: &Connection, session: &str) -> Result<Vec<TurnRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT prompt, first, last, key FROM turns
         WHERE session = (SELECT key FROM sessions WHERE id = ?1) AND last IS NULL
         ORDER BY prompt",
    )?;
    let session_id = session.into();
    let turns = statement.query_map([session], |row| read(row, &session_id))?;
    Ok(turns.collect::<rusqlite::Result<_>>()?)
}

/// The prompts whose turn begins with an event of that kind behind `after`, and
/// those that have neither begun nor ended.
fn begun_by(
    connection: &Connection,
    session: &str,
    after: i64,
    kind: &str,
) -> Result<Vec<i64>, Fault> {
    let Some(key) = sessions::key(connection, session)? else {
        return Ok(Vec::new());
    };
    let mut statement = connection.prepare_cached(
        "SELECT prompt FROM turns
         WHERE session = ?1
           AND ((first IS NULL AND last IS NULL) OR (first > ?2 AND EXISTS (
                SELECT 1 FROM events WHERE id = ?4 + first AND events.kind = ?3)))
         ORDER BY prompt",
    )?;
    let prompts = statement.query_map(params![key, after, kind, events::id(key, 0)], |row| {
        row.get(0)
    })?;
    Ok(prompts.collect::<rusqlite::Result<_>>()?)
}

/// The turns as they were when the event of this number was the last, without
/// their clients' names for them.
pub(super) fn up_to(
    connection: &Connection,
    session: &str,
    seq: i64,
) -> Result<Vec<TurnRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT prompt, CASE WHEN first <= ?2 THEN first END, CASE WHEN last <= ?2 THEN last END, NULL
         FROM turns WHERE session = (SELECT key FROM sessions WHERE id = ?1) AND prompt <= ?2
         ORDER BY prompt",
    )?;
    let session_id = session.into();
    let turns = statement.query_map(params![session, seq], |row| read(row, &session_id))?;
    Ok(turns.collect::<rusqlite::Result<_>>()?)
}

fn read(row: &Row<'_>, session: &Arc<str>) -> rusqlite::Result<TurnRow> {
    Ok(TurnRow {
        session: Arc::clone(session),
        prompt: row.get(0)?,
        first: row.get(1)?,
        last: row.get(2)?,
        key: row.get(3)?,
    })
}
