//! The tables, and how older files are brought up to date.
//!
//! Migrations only grow: entry N takes a file from `user_version` N to N + 1
//! and is never edited once released.

use rusqlite::{Connection, TransactionBehavior};

/// "acpb": tells this file from other programs' SQLite files.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"acpb");

/// The newest schema this program knows.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

const MIGRATIONS: &[&str] = &[FIRST, SEARCH, TURNS, KEEPING, COMPACT, PERMISSIONS];

/// `sessions.key` is AUTOINCREMENT so that a key is never given to a second
/// session: another process may still hold the key of a deleted one in its
/// cache, and its events must not land in a stranger's transcript.
///
/// `logs.end` counts the bytes of all lines of the session up to and with this
/// one, so that trimming to the newest bytes needs no sum over the table.
///
/// `doomed` holds the keys of deleted sessions whose rows are still being
/// overwritten, so that a kill in the middle does not leave them behind.
const FIRST: &str = "
CREATE TABLE sessions(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    vm TEXT NOT NULL,
    agent_session TEXT,
    cwd ANY NOT NULL,
    title TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    state TEXT NOT NULL,
    options TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_activity ON sessions(updated, id);
CREATE TABLE events(
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    direction INTEGER NOT NULL,
    kind TEXT NOT NULL,
    raw TEXT NOT NULL,
    PRIMARY KEY(session, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE logs(
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time INTEGER NOT NULL,
    end INTEGER NOT NULL,
    stream TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY(session, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE doomed(
    session INTEGER PRIMARY KEY
) STRICT;
CREATE TABLE settings(
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE vms(
    name TEXT PRIMARY KEY,
    driver TEXT NOT NULL,
    state_dir ANY NOT NULL,
    created INTEGER NOT NULL,
    booted INTEGER,
    holder INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE vm_workspaces(
    vm TEXT NOT NULL REFERENCES vms(name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    path ANY NOT NULL,
    PRIMARY KEY(vm, position)
) STRICT, WITHOUT ROWID;
";

/// `documents.id` is the session's key times 2^24 plus a number, so that a
/// session's documents stand together in the index, the newest session's last.
/// Number 0 is its title.
///
/// `search` holds no text of its own: what goes into it is cut from
/// `documents.text`. Its secure deletion takes words out of it, not only marks
/// them as gone.
///
/// `unindexed` holds the sessions with events (or a title) that are in no
/// document. Up to `indexed_settled` a session's documents are final; those
/// from there up to `indexed_seen` are made anew when there is more.
const SEARCH: &str = "
CREATE TABLE documents(
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE search USING fts5(word, part, content='', columnsize=0, tokenize='ascii');
INSERT INTO search(search, rank) VALUES ('secure-delete', 1);
CREATE TABLE unindexed(
    session INTEGER PRIMARY KEY
) STRICT;
ALTER TABLE sessions ADD COLUMN indexed_settled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN indexed_seen INTEGER NOT NULL DEFAULT 0;
INSERT INTO unindexed SELECT key FROM sessions;
";

/// `turns` says of each prompt which event began it and which ended it, so that
/// what a killed process left open is found without reading a transcript.
/// `key` is the client's own name for the request. Of older turns, only those
/// without an end are in it; such ran one after the other.
const TURNS: &str = "
CREATE TABLE turns(
    session INTEGER NOT NULL,
    prompt INTEGER NOT NULL,
    first INTEGER,
    last INTEGER,
    key TEXT,
    PRIMARY KEY(session, prompt)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX turns_by_key ON turns(session, key) WHERE key IS NOT NULL;
CREATE INDEX turns_open ON turns(session, prompt) WHERE last IS NULL;
INSERT INTO turns(session, prompt, first)
    SELECT session, seq, seq + 1 FROM events AS prompt
    WHERE kind = 'session/prompt' AND direction = 0 AND NOT EXISTS (
        SELECT 1 FROM events AS answer WHERE answer.session = prompt.session AND answer.seq > prompt.seq
            AND answer.kind IN ('session/prompt:result', 'session/prompt:error'));
";

/// What sessions used, and an index that holds all that lists of sessions are
/// filtered by, so that rows that do not match are not looked up.
const KEEPING: &str = "
ALTER TABLE sessions ADD COLUMN usage TEXT NOT NULL DEFAULT '{}';
DROP INDEX sessions_by_activity;
CREATE INDEX sessions_by_activity ON sessions(updated, id, agent, vm, state, cwd);
";

/// Events by one number each (see [`super::events::id`]): as the key of an
/// ordinary table a row of up to 4 KB stays in its page, where the rows of a
/// table WITHOUT ROWID overflow into pages of their own from 1 KB on, and rows
/// that are appended fill their pages.
const COMPACT: &str = "
CREATE TABLE events_by_id(
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    direction INTEGER NOT NULL,
    kind TEXT NOT NULL,
    raw TEXT NOT NULL
) STRICT;
INSERT INTO events_by_id(id, time, direction, kind, raw)
    SELECT (session << 32) + seq, time, direction, kind, raw FROM events ORDER BY session, seq;
DROP TABLE events;
ALTER TABLE events_by_id RENAME TO events;
";

/// Answers for always. `scope` says what `subject` is: a label of the caller's.
/// AUTOINCREMENT, so that an id that was revoked never names another one.
const PERMISSIONS: &str = "
CREATE TABLE permissions(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent TEXT NOT NULL,
    workspace ANY NOT NULL,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    decision TEXT NOT NULL,
    created INTEGER NOT NULL,
    session TEXT NOT NULL,
    UNIQUE(agent, workspace, kind, scope, subject)
) STRICT;
";

/// What a file says it is. All zero when it is new.
pub(super) struct Stamp {
    pub(super) version: i64,
    pub(super) application: i32,
    pub(super) tables: i64,
}

impl Stamp {
    pub(super) fn is_new(&self) -> bool {
        self.version == 0 && self.application == 0 && self.tables == 0
    }
}

/// What a file of ours says of its version, also one whose schema this SQLite
/// cannot read.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let is_ours = number("PRAGMA application_id")? == i64::from(APPLICATION_ID);
    is_ours.then(|| number("PRAGMA user_version")).transpose()
}

/// Read in one statement, since another process may be migrating meanwhile.
pub(super) fn stamp(connection: &Connection) -> rusqlite::Result<Stamp> {
    connection.query_row(
        "SELECT (SELECT user_version FROM pragma_user_version),
            (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok(Stamp { version: row.get(0)?, application: row.get(1)?, tables: row.get(2)? }),
    )
}

/// Applies what the file lacks, all of it or nothing.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated while this one waited for the lock.
    let found = stamp(&transaction)?.version;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    if found < VERSION {
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        ))?;
    }
    transaction.commit()
}

/// Fails where the tables cannot be read: every root page is visited once,
/// which costs microseconds however large the file is.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row(
        "SELECT (SELECT max(key) FROM sessions), (SELECT max(id) FROM events),
            (SELECT max(session) FROM logs), (SELECT max(session) FROM doomed), (SELECT max(session) FROM turns),
            (SELECT max(key) FROM settings), (SELECT max(name) FROM vms),
            (SELECT max(updated) FROM sessions INDEXED BY sessions_by_activity),
            (SELECT max(id) FROM documents), (SELECT max(session) FROM unindexed),
            (SELECT max(id) FROM search_data), (SELECT max(id) FROM permissions)",
        [],
        |_| Ok(()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_the_first_schema_is_kept() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FIRST).unwrap();
        connection
            .execute_batch(
                "INSERT INTO sessions(id, agent, vm, cwd, created, updated, state, options)
                 VALUES ('s', 'a', 'v', '/w', 1, 2, 'open', '{}');
                 INSERT INTO events(session, seq, time, direction, kind, raw) VALUES
                    (1, 1, 1, 0, 'session/prompt', '{}'), (1, 2, 1, 1, 'session/prompt:result', '{}'),
                    (1, 3, 1, 0, 'session/prompt', '{}'), (1, 4, 1, 1, 'session/prompt:error', '{}'),
                    (1, 5, 1, 0, 'session/prompt', '{}'), (1, 6, 1, 1, 'agent_message_chunk', '{}');
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        migrate(&mut connection).unwrap();
        let stored: (String, i64) = connection
            .query_row("SELECT usage, updated FROM sessions", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(stored, ("{}".to_owned(), 2));
        assert_eq!(stamp(&connection).unwrap().version, VERSION);
        let events: Vec<(i64, String)> = connection
            .prepare("SELECT id, kind FROM events ORDER BY id")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(events.len(), 6);
        assert_eq!(
            events[4],
            (super::super::events::id(1, 5), "session/prompt".to_owned())
        );
        // The turn that a killed process left open can be ended.
        let open: (i64, i64) = connection
            .query_row(
                "SELECT prompt, first FROM turns WHERE last IS NULL",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(open, (5, 6));
        let turns: i64 = connection
            .query_row("SELECT count(*) FROM turns", [], |row| row.get(0))
            .unwrap();
        assert_eq!(turns, 1);
    }
}
