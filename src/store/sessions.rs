//! The sessions table.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::database::Database;
use super::error::Fault;
use super::paths::StoredPath;
use super::rows::{SessionFilter, SessionRow};

const COLUMNS: &str = "id, agent, vm, agent_session, cwd, title, created, updated, state, options";

pub(super) fn create(database: &mut Database, session: &SessionRow) -> Result<(), Fault> {
    database
        .statement(
            "INSERT INTO sessions(id, agent, vm, agent_session, cwd, title, created, updated, state, options)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            session.id,
            session.agent,
            session.vm,
            session.agent_session,
            StoredPath(&session.cwd),
            session.title,
            session.created,
            session.updated,
            session.state,
            session.options
        ])?;
    if session.title.is_some() {
        let key = database.key(&session.id)?;
        database.mark_unindexed(key)?;
    }
    Ok(())
}

pub(super) fn update(database: &mut Database, session: &SessionRow) -> Result<(), Fault> {
    database
        .statement(
            "INSERT OR IGNORE INTO unindexed SELECT key FROM sessions WHERE id = ?1 AND title IS NOT ?2",
        )?
        .execute(params![session.id, session.title])?;
    let changed = database
        .statement(
            "UPDATE sessions SET agent = ?2, vm = ?3, agent_session = ?4, cwd = ?5, title = ?6,
                updated = ?7, state = ?8, options = ?9 WHERE id = ?1",
        )?
        .execute(params![
            session.id,
            session.agent,
            session.vm,
            session.agent_session,
            StoredPath(&session.cwd),
            session.title,
            session.updated,
            session.state,
            session.options
        ])?;
    if changed == 0 {
        Err(Fault::UnknownSession(session.id.clone()))
    } else {
        Ok(())
    }
}

pub(super) fn one(connection: &Connection, id: &str) -> Result<Option<SessionRow>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1"))?;
    Ok(statement.query_row([id], read).optional()?)
}

pub(super) fn by_key(connection: &Connection, key: i64) -> Result<Option<SessionRow>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE key = ?1"))?;
    Ok(statement.query_row([key], read).optional()?)
}

pub(super) fn list(
    connection: &Connection,
    filter: &SessionFilter,
) -> Result<Vec<SessionRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions
         WHERE (?1 IS NULL OR cwd = ?1) AND (?2 IS NULL OR agent = ?2) AND (?3 IS NULL OR vm = ?3)
            AND (updated, id) < (?4, ?5) AND state <> 'importing'
         ORDER BY updated DESC, id DESC LIMIT ?6"
    ))?;
    // No id sorts above this one.
    let below = filter
        .below
        .as_ref()
        .map_or((i64::MAX, "\u{10ffff}"), |(updated, id)| {
            (*updated, id.as_str())
        });
    let rows = statement.query_map(
        params![
            filter.cwd.as_deref().map(StoredPath),
            filter.agent,
            filter.vm,
            below.0,
            below.1,
            i64::try_from(filter.limit).unwrap_or(i64::MAX)
        ],
        read,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Those whose id begins so, newest activity first.
pub(super) fn beginning_with(
    connection: &Connection,
    prefix: &str,
    limit: usize,
) -> Result<Vec<SessionRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions WHERE id >= ?1 AND id < ?2 AND state <> 'importing' ORDER BY updated DESC LIMIT ?3"
    ))?;
    // No character sorts above this one.
    let end = format!("{prefix}\u{10ffff}");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![prefix, end, limit], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Gives a session another id and state. False if the id is taken.
pub(super) fn publish(
    database: &mut Database,
    staged: &str,
    id: &str,
    state: &str,
) -> Result<bool, Fault> {
    database.forget(staged);
    let changed = database
        .statement(
            "UPDATE sessions SET id = ?2, state = ?3
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM sessions WHERE id = ?2)",
        )?
        .execute([staged, id, state])?;
    if changed == 0 {
        // Its own absence is an error, the other's presence an answer.
        database.key(staged)?;
        database.forget(staged);
    }
    Ok(changed > 0)
}

/// Those that are being imported, or were when their import was killed.
pub(super) fn staged(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM sessions WHERE state = 'importing'")?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        vm: row.get(2)?,
        agent_session: row.get(3)?,
        cwd: StoredPath::read(row, 4)?,
        title: row.get(5)?,
        created: row.get(6)?,
        updated: row.get(7)?,
        state: row.get(8)?,
        options: row.get(9)?,
    })
}
