//! Databases as earlier versions of acpbox left them.

/// Takes the database of a session back to the first released schema.
pub const FIRST_SCHEMA: &str =
    "DROP TABLE search; DROP TABLE documents; DROP TABLE unindexed; DROP TABLE turns; DROP TABLE permissions;
     CREATE TABLE old(
         session INTEGER NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL,
         direction INTEGER NOT NULL, kind TEXT NOT NULL, raw TEXT NOT NULL,
         PRIMARY KEY(session, seq)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO old SELECT id >> 32, id & 0xFFFFFFFF, time, direction, kind, raw FROM events;
     DROP TABLE events;
     ALTER TABLE old RENAME TO events;
     ALTER TABLE sessions DROP COLUMN usage;
     ALTER TABLE sessions DROP COLUMN indexed_settled;
     ALTER TABLE sessions DROP COLUMN indexed_seen;
     PRAGMA user_version = 1;";
