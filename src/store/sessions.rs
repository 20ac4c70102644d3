//! The sessions table.

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::database::Database;
use super::error::Fault;
use super::events::{self, json_array};
use super::paths::StoredPath;
use super::rows::{SessionFilter, SessionRow};

const COLUMNS: &str =
    "id, agent, vm, agent_session, cwd, title, created, updated, state, options, usage";

const NEWEST_FIRST: &str = "updated DESC, id DESC";

pub(super) fn create(database: &mut Database, session: &SessionRow) -> Result<(), Fault> {
    database
        .statement(
            "INSERT INTO sessions(id, agent, vm, agent_session, cwd, title, created, updated, state, options, usage)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
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
            session.options,
            session.usage
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
                updated = ?7, state = ?8, options = ?9, usage = ?10 WHERE id = ?1",
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
            session.options,
            session.usage
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

/// `None` also for one that is being imported.
pub(super) fn by_key(connection: &Connection, key: i64) -> Result<Option<SessionRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions WHERE key = ?1 AND state <> 'importing'"
    ))?;
    Ok(statement.query_row([key], read).optional()?)
}

pub(super) fn list(
    connection: &Connection,
    filter: &SessionFilter,
) -> Result<Vec<SessionRow>, Fault> {
    let conditions = conditions(filter);
    select(connection, conditions, NEWEST_FIRST, filter.limit)
}

fn conditions(filter: &SessionFilter) -> Conditions<'_> {
    let mut conditions = Conditions::default();
    let cwd = filter.cwd.as_deref().map(StoredPath);
    conditions.add("cwd = ?", cwd);
    conditions.add("agent = ?", filter.agent.as_deref());
    conditions.add("vm = ?", filter.vm.as_deref());
    conditions.add("agent_session = ?", filter.agent_session.as_deref());
    conditions.add("state = ?", filter.state.as_deref());
    conditions.add("state <> ?", Some("importing"));
    conditions.add("updated >= ?", filter.since);
    conditions.add("updated < ?", filter.until);
    // LIKE would need its own signs escaped.
    let title = filter.title.as_deref().map(str::to_ascii_lowercase);
    conditions.add("instr(lower(title), ?)", title);
    let among = filter.among.as_deref().map(json_array);
    conditions.add("id IN (SELECT value FROM json_each(?))", among);
    let except = (!filter.except.is_empty()).then(|| json_array(&filter.except));
    conditions.add("id NOT IN (SELECT value FROM json_each(?))", except);
    if let Some((updated, id)) = &filter.below {
        conditions.add("(updated, id) < (?,", Some(*updated));
        conditions.go_on("?)", id.as_str());
    }
    conditions
}

/// The first above this (`updated`, `id`), longest unused first.
pub(super) fn oldest(
    connection: &Connection,
    above: Option<&(i64, String)>,
    limit: usize,
) -> Result<Vec<SessionRow>, Fault> {
    let mut conditions = Conditions::default();
    if let Some((updated, id)) = above {
        conditions.add("(updated, id) > (?,", Some(*updated));
        conditions.go_on("?)", id.as_str());
    }
    select(connection, conditions, "updated, id", limit)
}

/// The key that stands for a session in the other tables.
pub(super) fn key(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT key FROM sessions WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

pub(super) fn count(connection: &Connection) -> Result<u64, Fault> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM sessions")?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What deleting one session's events and log lines frees at most, about: pages
/// of short rows are taken to be half full, and a long row has pages of its own
/// for the rest. Long texts are not read.
pub(super) fn bytes(connection: &Connection, id: &str) -> Result<u64, Fault> {
    // Numbers and lengths; and SQLite's bounds in pages of 4096 bytes: what of a row
    // stays where it belongs, in an ordinary table and in one WITHOUT ROWID.
    const ROW: &str = "20";
    const PAGE: &str = "4096";
    const OVERFLOW: &str = "4092";
    const LONGEST: &str = "4061";
    const LONGEST_KEY: &str = "1002";
    const KEPT: &str = "489";
    let size = |texts: &str, longest: &str| {
        format!(
            "coalesce(sum(CASE WHEN {texts} + {ROW} <= {longest} THEN 2 * ({texts} + {ROW})
             ELSE 2 * {KEPT} + ({texts} + {ROW} - {KEPT} + {OVERFLOW} - 1) / {OVERFLOW} * {PAGE}
             END), 0)"
        )
    };
    let events = size("octet_length(raw) + octet_length(kind)", LONGEST);
    let lines = size("octet_length(text)", LONGEST_KEY);
    let Some(key) = key(connection, id)? else {
        return Ok(0);
    };
    let bytes: i64 = connection
        .prepare_cached(&format!(
            "SELECT (SELECT {events} FROM events WHERE id > ?2 AND id < ?3)
                  + (SELECT {lines} FROM logs WHERE session = ?1)"
        ))?
        .query_row([key, events::id(key, 0), events::id(key + 1, 0)], |row| {
            row.get(0)
        })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// What of the file is in use, in bytes.
pub(super) fn used_bytes(connection: &Connection) -> Result<u64, Fault> {
    let bytes: i64 = connection.query_row(
        "SELECT (page_count - freelist_count) * page_size
         FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        [],
        |row| row.get(0),
    )?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The index holds most of what is asked: rows that do not match are seldom read.
fn query(conditions: &Conditions<'_>, order: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM sessions INDEXED BY sessions_by_activity {}
         ORDER BY {order} LIMIT ?",
        conditions.text
    )
}

/// The conditions of one query, with a value for each sign of a parameter.
#[derive(Default)]
struct Conditions<'a> {
    text: String,
    values: Vec<Box<dyn ToSql + 'a>>,
}

impl<'a> Conditions<'a> {
    /// Adds a condition that has one parameter, if there is a value for it.
    fn add(&mut self, condition: &str, value: Option<impl ToSql + 'a>) {
        let Some(value) = value else { return };
        self.text.push_str(if self.values.is_empty() {
            "WHERE "
        } else {
            " AND "
        });
        self.go_on(condition, value);
    }

    /// Goes on with the condition before, which has another parameter.
    fn go_on(&mut self, condition: &str, value: impl ToSql + 'a) {
        self.text.push_str(condition);
        self.values.push(Box::new(value));
    }
}

fn select(
    connection: &Connection,
    mut conditions: Conditions<'_>,
    order: &str,
    limit: usize,
) -> Result<Vec<SessionRow>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    conditions.values.push(Box::new(limit));
    let mut statement = connection.prepare_cached(&query(&conditions, order))?;
    let rows = statement.query_map(params_from_iter(conditions.values), read)?;
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
        usage: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_from_the_index_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let connection = super::super::open::writer(&folder.path().join("x.db")).unwrap();
        let filter = SessionFilter {
            cwd: Some("/w".into()),
            agent: Some("a".into()),
            vm: Some("v".into()),
            state: Some("open".into()),
            since: Some(1),
            until: Some(2),
            among: Some(vec!["s".into()]),
            except: vec!["t".into()],
            below: Some((1, "s".into())),
            limit: 1,
            ..SessionFilter::default()
        };
        for filter in [SessionFilter::default(), filter] {
            let mut conditions = conditions(&filter);
            conditions.values.push(Box::new(1));
            let sql = query(&conditions, NEWEST_FIRST);
            let mut statement = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            let values = params_from_iter(conditions.values);
            let steps = statement.query_map(values, |row| row.get::<_, String>(3));
            let plan: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("sessions_by_activity"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
