//! What goes into the index, and out of it.

use rusqlite::{Connection, OptionalExtension, params};

use super::words;
use super::{NUMBERS, TITLE, first_id};
use crate::store::database::Database;
use crate::store::error::Fault;
use crate::store::events;
use crate::store::rows::{Document, IndexStep, Indexed, UnindexedSession};

/// Documents taken out in one transaction, in number and in text.
const REMOVED_PER_STEP: i64 = 64;
const REMOVED_BYTES: usize = 32 * 1024;

/// What of a title is found.
const TITLE_BYTES: usize = 1000;

pub(in crate::store) fn unindexed(
    connection: &Connection,
    below: i64,
    limit: usize,
) -> Result<Vec<UnindexedSession>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key, id, indexed_settled, indexed_seen FROM unindexed JOIN sessions ON key = session
         WHERE session < ?1 ORDER BY session DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![below, limit], |row| {
        Ok(UnindexedSession {
            key: row.get(0)?,
            id: row.get(1)?,
            indexed: Indexed {
                settled: row.get(2)?,
                seen: row.get(3)?,
            },
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A step with its text cut into words already, which is no work for the writer.
pub(in crate::store) struct Prepared {
    step: IndexStep,
    words: Vec<(String, String)>,
}

impl Prepared {
    pub(in crate::store) fn new(step: IndexStep) -> Prepared {
        let documents = step.documents.iter();
        let words = documents.map(|document| words::joined(&document.text));
        Prepared {
            words: words.collect(),
            step,
        }
    }

    /// What is past the number of documents that a session can have, is left out.
    pub(in crate::store) fn run(&self, database: &mut Database) -> Result<bool, Fault> {
        let step = &self.step;
        let key = match database.key(&step.session) {
            Ok(key) => key,
            Err(Fault::UnknownSession(_)) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let (found, title, updated): (Indexed, Option<String>, i64) = database
            .statement(
                "SELECT indexed_settled, indexed_seen, title, updated FROM sessions WHERE key = ?1",
            )?
            .query_row([key], |row| {
                let (settled, seen) = (row.get(0)?, row.get(1)?);
                Ok((Indexed { settled, seen }, row.get(2)?, row.get(3)?))
            })?;
        if found != step.from {
            return Ok(false);
        }
        replace_title(database, key, title.as_deref(), updated)?;
        if step.from.seen > step.from.settled {
            take_back(database, key, step.from.settled)?;
        }
        let free = last_id(database, key)? + 1..first_id(key + 1);
        for (id, (document, words)) in free.zip(step.documents.iter().zip(&self.words)) {
            add(database, id, document, words)?;
        }
        database
            .statement(
                "UPDATE sessions SET indexed_settled = ?2, indexed_seen = ?3 WHERE key = ?1",
            )?
            .execute((key, step.to.settled, step.to.seen))?;
        if events::last_seq_of(&database.connection, key)? <= step.to.seen {
            database.mark_indexed(key)?;
        }
        Ok(true)
    }
}

/// Removes some documents of a deleted session. Returns how many.
pub(in crate::store) fn remove_some(database: &Database, key: i64) -> rusqlite::Result<u64> {
    let mut found = documents(
        database,
        "SELECT id, text FROM documents WHERE id >= ?1 AND id < ?2 LIMIT ?3",
        (first_id(key), first_id(key + 1), REMOVED_PER_STEP),
    )?;
    let mut bytes = 0;
    let fitting = found.iter().take_while(|(_, text)| {
        bytes += text.len();
        bytes <= REMOVED_BYTES
    });
    let count = fitting.count().max(1);
    found.truncate(count);
    remove(database, &found)?;
    Ok(found.len() as u64)
}

/// Removes what was made of a session's end before it had settled: its last
/// documents, few of them.
fn take_back(database: &Database, key: i64, settled: i64) -> rusqlite::Result<()> {
    let kept: Option<i64> = database
        .statement(
            "SELECT id FROM documents WHERE id >= ?1 AND id < ?2 AND seq <= ?3 ORDER BY id DESC LIMIT 1",
        )?
        .query_row((first_id(key), first_id(key + 1), settled), |row| row.get(0))
        .optional()?;
    let found = documents(
        database,
        "SELECT id, text FROM documents WHERE id > ?1 AND id < ?2 LIMIT ?3",
        (kept.unwrap_or(first_id(key)), first_id(key + 1), NUMBERS),
    )?;
    remove(database, &found)
}

fn replace_title(
    database: &Database,
    key: i64,
    title: Option<&str>,
    updated: i64,
) -> rusqlite::Result<()> {
    let title = title.unwrap_or_default();
    let title = &title[..title.floor_char_boundary(TITLE_BYTES)];
    let id = first_id(key);
    let found = documents(
        database,
        "SELECT id, text FROM documents WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        (id, id, 1),
    )?;
    if found.first().map_or("", |(_, text)| text) == title {
        return Ok(());
    }
    remove(database, &found)?;
    if title.is_empty() {
        return Ok(());
    }
    let document = Document {
        seq: 0,
        time: updated,
        kind: TITLE.into(),
        text: title.to_owned(),
    };
    add(database, id, &document, &words::joined(title))
}

fn add(
    database: &Database,
    id: i64,
    document: &Document,
    (words, parts): &(String, String),
) -> rusqlite::Result<()> {
    database
        .statement("INSERT INTO documents(id, seq, time, kind, text) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            id,
            document.seq,
            document.time,
            document.kind,
            document.text
        ])?;
    database
        .statement("INSERT INTO search(rowid, word, part) VALUES (?1, ?2, ?3)")?
        .execute(params![id, words, parts])
        .map(drop)
}

fn remove(database: &Database, documents: &[(i64, String)]) -> rusqlite::Result<()> {
    for (id, text) in documents {
        let (words, parts) = words::joined(text);
        database
            .statement(
                "INSERT INTO search(search, rowid, word, part) VALUES ('delete', ?1, ?2, ?3)",
            )?
            .execute(params![id, words, parts])?;
        database
            .statement("DELETE FROM documents WHERE id = ?1")?
            .execute([id])?;
    }
    Ok(())
}

fn documents(
    database: &Database,
    sql: &'static str,
    parameters: (i64, i64, i64),
) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut statement = database.statement(sql)?;
    let rows = statement.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn last_id(database: &Database, key: i64) -> rusqlite::Result<i64> {
    let last: Option<i64> = database
        .statement("SELECT max(id) FROM documents WHERE id >= ?1 AND id < ?2")?
        .query_row((first_id(key), first_id(key + 1)), |row| row.get(0))?;
    Ok(last.unwrap_or(first_id(key)))
}
