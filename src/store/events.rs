//! Inserting events, and reading pages of them.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::database::Database;
use super::error::Fault;
use super::rows::{Direction, EventPage, EventRef, EventRow};
use super::sessions;

/// A session has fewer events than this.
const NUMBERS: i64 = 1 << 32;

/// The key of a session's event: all of one session's stand together, in order.
/// Number 0 is no event's.
pub(super) fn id(session: i64, seq: i64) -> i64 {
    session * NUMBERS + seq
}

fn seq(id: i64) -> i64 {
    id.rem_euclid(NUMBERS)
}

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
            "INSERT INTO events(id, time, direction, kind, raw) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for event in run {
            if !(1..NUMBERS).contains(&event.seq) {
                // It would be another session's.
                return Err(rusqlite::Error::IntegralValueOutOfRange(0, event.seq).into());
            }
            statement.execute(params![
                id(key, event.seq),
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
        "AND kind IN (SELECT value FROM json_each(?4))"
    } else {
        ""
    };
    let order = if is_backwards(page) { "DESC" } else { "ASC" };
    let Some(key) = sessions::key(connection, &page.session)? else {
        return Ok(());
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, time, direction, kind, raw FROM events
         WHERE id > ?1 AND id < ?2 {only_kinds} ORDER BY id {order} LIMIT ?3"
    ))?;
    let last = NUMBERS - 1;
    let after = id(key, page.after.unwrap_or(0).clamp(0, last));
    let before = id(key, page.before.unwrap_or(NUMBERS).clamp(0, NUMBERS));
    let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
    let mut rows = match &kinds {
        None => statement.query(params![after, before, limit])?,
        Some(kinds) => statement.query(params![after, before, limit, kinds])?,
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
    match sessions::key(connection, session)? {
        Some(key) => Ok(last_seq_of(connection, key)?),
        None => Ok(0),
    }
}

/// The number of a session's last event, by the session's key; 0 without any.
pub(super) fn last_seq_of(connection: &Connection, key: i64) -> rusqlite::Result<i64> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(id) FROM events WHERE id > ?1 AND id < ?2")?
        .query_row([id(key, 0), id(key + 1, 0)], |row| row.get(0))?;
    Ok(last.map_or(0, seq))
}

/// Deletes the first events of a session, at most so many. Returns how many.
pub(super) fn remove_some(database: &Database, key: i64, limit: i64) -> rusqlite::Result<u64> {
    let (first, end) = (id(key, 0), id(key + 1, 0));
    let below: Option<i64> = database
        .statement("SELECT id FROM events WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3")?
        .query_row([first, end, limit], |row| row.get(0))
        .optional()?;
    let removed = database
        .statement("DELETE FROM events WHERE id > ?1 AND id < ?2")?
        .execute([first, below.unwrap_or(end)])?;
    Ok(u64::try_from(removed).unwrap_or(u64::MAX))
}

fn read<'a>(row: &'a Row<'_>) -> rusqlite::Result<EventRef<'a>> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(EventRef {
        seq: seq(row.get(0)?),
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
