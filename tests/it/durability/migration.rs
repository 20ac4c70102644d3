//! A large database of an older acpbox: bringing it up to date says so, and may be
//! ended at any moment.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;

use super::*;
use crate::support::older::FIRST_SCHEMA;

/// What is told of takes 64 MiB.
const EVENTS: i64 = 80_000;

/// A number that a statement says of a database.
fn number(database: &Path, statement: &str) -> i64 {
    let connection = Connection::open(database).unwrap();
    connection
        .query_row(statement, [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_migration_says_how_far_it_is_and_a_kill_in_its_middle_changes_nothing() {
    let site = Site::new();
    site.configure("[vms.default]\ndriver = 'host'\n");
    let mut acpbox = site.connect(&["--agent", "example"]);
    let session = acpbox.open_session(json!({}), &site.folder().join("work"));
    acpbox.prompt(&session, "[[say:first]]");
    acpbox.close(Duration::from_secs(20));
    let database = site.database();
    let connection = Connection::open(&database).unwrap();
    connection.execute_batch(FIRST_SCHEMA).unwrap();
    let fill = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {EVENTS})
         INSERT INTO events SELECT 1, 1000 + n, 1, 1, 'agent_message_chunk', '{{\"text\":\"' || hex(zeroblob(450)) || '\"}}'
         FROM numbers; PRAGMA wal_checkpoint(TRUNCATE);"
    );
    connection.execute_batch(&fill).unwrap();
    drop(connection);
    let count = number(&database, "SELECT count(*) FROM events");
    assert!(count > EVENTS, "{count}");

    let mut command = site.command(&["sessions", "list"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = child.stderr.take().unwrap();
    let mut said = BufReader::new(said).lines().map_while(Result::ok);
    let start = said.find(|line| line.contains("is brought up to date, from schema 1 to"));
    start.expect("it is said");
    // In the middle: some of it is written.
    let log = database.with_file_name("acpbox.db-wal");
    let begun = std::time::Instant::now();
    while std::fs::metadata(&log).map_or(0, |log| log.len()) < 4 << 20 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(number(&database, "PRAGMA user_version"), 1);
    assert_eq!(number(&database, "SELECT count(*) FROM events"), count);
    let sound = "SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok'";
    assert_eq!(number(&database, sound), 0);

    let output = site.command(&["doctor"]).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        report.contains("brought up to date from schema 1 just now"),
        "{report}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is up to date, after"), "{said}");
    assert_eq!(number(&database, "SELECT count(*) FROM events"), count);
    let again = listed(&mut site.command(&["sessions", "list", "--json"]));
    assert!(again.0.contains(&session), "{again:?}");
    assert_eq!(again.1, "", "it is done once");
}

/// What a command printed and said.
fn listed(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}
