//! Inserting events, and reading pages of them.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::database::Database;
use super::error::Fault;
use super::rows::{Direction, EventPage, EventRef, EventRow};

/// Bytes of JSON, for bounds; a row adds some tens of bytes.
pub(super) fn bytes(events: &[EventRow]) -> usize {
    events.iter().map(|event| event.raw.len()).sum()
}

pub(super) fn insert(database: &mut Database, events: &[EventRow]) -> Result<(), Fault> {
    let mut rest = events;
    while let Some(first) = rest.first() {
        let count = rest
            .iter()
            .take_while(|event| event.session == first.session)
            .count();
        let (run, after) = rest.split_at(count);
        let key = database.key(&first.session)?;
        database.mark_unindexed(key)?;
        let mut statement = database.statement(
            "INSERT INTO events(session, seq, time, direction, kind, raw) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for event in run {
            statement.execute(params![
                key,
                event.seq,
                event.time,
                direction_to_integer(event.direction),
                event.kind.as_ref(),
                event.raw.as_ref()
            ])?;
        }
        rest = after;
    }
    Ok(())
}

pub(super) fn page(connection: &Connection, page: &EventPage) -> Result<Vec<EventRow>, Fault> {
    let session: Arc<str> = page.session.as_str().into();
    let mut events = Vec::new();
    each(connection, page, |event| {
        events.push(EventRow {
            session: session.clone(),
            seq: event.seq,
            time: event.time,
            direction: event.direction,
            kind: Cow::Owned(event.kind.to_owned()),
            raw: event.raw.into(),
        });
        ControlFlow::Continue(())
    })?;
    if is_backwards(page) {
        events.reverse();
    }
    Ok(events)
}

/// Gives a page's events to `step` until it breaks, the last one first where the
/// page is of those below a number.
pub(super) fn each(
    connection: &Connection,
    page: &EventPage,
    mut step: impl FnMut(EventRef<'_>) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let kinds = if page.kinds.is_empty() {
        None
    } else {
        Some(json_array(&page.kinds))
    };
    let only_kinds = if kinds.is_some() {
        "AND kind IN (SELECT value FROM json_each(?5))"
    } else {
        ""
    };
    let order = if is_backwards(page) { "DESC" } else { "ASC" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT seq, time, direction, kind, raw FROM events
         WHERE session = (SELECT key FROM sessions WHERE id = ?1) AND seq > ?2 AND seq < ?3 {only_kinds}
         ORDER BY seq {order} LIMIT ?4"
    ))?;
    let after = page.after.unwrap_or(i64::MIN);
    let before = page.before.unwrap_or(i64::MAX);
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let mut rows = match &kinds {
        None => statement.query(params![page.session, after, before, limit])?,
        Some(kinds) => statement.query(params![page.session, after, before, limit, kinds])?,
    };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = read(row)?;
        let is_first = bytes == 0;
        bytes += event.raw.len();
        if (bytes > page.max_bytes && !is_first) || step(event).is_break() {
            break;
        }
    }
    Ok(())
}

/// Whether the page is the last events below a number.
fn is_backwards(page: &EventPage) -> bool {
    page.before.is_some() && page.after.is_none()
}

pub(super) fn last_seq(connection: &Connection, session: &str) -> Result<i64, Fault> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT seq FROM events WHERE session = (SELECT key FROM sessions WHERE id = ?1) ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([session], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0))
}

fn read<'a>(row: &'a Row<'_>) -> rusqlite::Result<EventRef<'a>> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(EventRef {
        seq: row.get(0)?,
        time: row.get(1)?,
        direction: direction_from_integer(2, row.get(2)?)?,
        kind: text(3)?,
        raw: text(4)?,
    })
}

fn direction_to_integer(direction: Direction) -> i64 {
    match direction {
        Direction::Client => 0,
        Direction::Agent => 1,
        Direction::Acpbox => 2,
    }
}

fn direction_from_integer(column: usize, integer: i64) -> rusqlite::Result<Direction> {
    match integer {
        0 => Ok(Direction::Client),
        1 => Ok(Direction::Agent),
        2 => Ok(Direction::Acpbox),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(column, other)),
    }
}

pub(super) fn json_array(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}
