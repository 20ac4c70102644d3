//! What agents wrote to stderr, the newest bytes of each session.

use rusqlite::{Connection, OptionalExtension, params};

use super::database::Database;
use super::error::Fault;
use super::rows::{LogLine, LogRow};

pub(super) fn append(
    database: &mut Database,
    session: &str,
    lines: &[LogLine],
    keep_bytes: u64,
) -> Result<(), Fault> {
    let key = database.key(session)?;
    let keep_bytes = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
    let last = database
        .statement("SELECT number, end FROM logs WHERE session = ?1 ORDER BY number DESC LIMIT 1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (mut number, mut end): (i64, i64) = last.unwrap_or((0, 0));
    let mut insert = database.statement(
        "INSERT INTO logs(session, number, time, end, stream, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for line in lines {
        number += 1;
        end += i64::try_from(line.text.len()).unwrap_or(i64::MAX);
        insert.execute(params![key, number, line.time, end, line.stream, line.text])?;
    }
    // The newest line stays, however long: its number carries the count on. The
    // inner query reads only rows that are about to go, and one more.
    database
        .statement(
            "DELETE FROM logs WHERE session = ?1 AND number < ?2 AND number < coalesce(
                (SELECT number FROM logs WHERE session = ?1 AND end - octet_length(text) >= ?3
                 ORDER BY number LIMIT 1), ?2)",
        )?
        .execute(params![key, number, end - keep_bytes])?;
    Ok(())
}

pub(super) fn page(
    connection: &Connection,
    session: &str,
    after: i64,
    limit: usize,
) -> Result<Vec<LogRow>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT number, time, stream, text FROM logs
         WHERE session = (SELECT key FROM sessions WHERE id = ?1) AND number > ?2
         ORDER BY number DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![session, after, limit], |row| {
        Ok(LogRow {
            number: row.get(0)?,
            time: row.get(1)?,
            stream: row.get(2)?,
            text: row.get(3)?,
        })
    })?;
    let mut lines: Vec<LogRow> = rows.collect::<rusqlite::Result<_>>()?;
    lines.reverse();
    Ok(lines)
}
