//! `acpbox sessions import`: what an export wrote comes back, or nothing does.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::cli::{Ended, PATIENCE, Place, eventually};
use crate::support::transcripts::{CONVERSATION, SESSION, Transcript, header};

#[test]
fn an_imported_session_is_the_one_that_was_exported() {
    let place = Place::new();
    let id = place.session("[[say:hello]] [[read:absent.txt]]");
    let exported = export(&place, &id);
    let elsewhere = Place::new();
    let ended = import(&elsewhere, &exported, &[]).expect_words(0, &[&id, "events"]);
    assert_eq!(ended.stdout, format!("{id}\n"), "for scripts");
    let session = elsewhere.only_session();
    assert_eq!(session["sessionId"], id.as_str());
    assert_eq!(session["state"], "closed");
    assert_eq!(session["title"], place.only_session()["title"]);
    // Byte for byte, but for the state.
    let state = |text: &str| {
        let (first, rest) = text.split_once('\n').unwrap();
        let mut first: Value = serde_json::from_str(first).unwrap();
        first["session"]["state"] = "closed".into();
        format!("{first}\n{rest}")
    };
    assert_eq!(export(&elsewhere, &id), state(&exported));
    let shown = |place: &Place| place.acpbox(&["sessions", "show", &id]).expect(0).stdout;
    assert_eq!(shown(&elsewhere), shown(&place));
}

#[test]
fn every_byte_of_odd_messages_comes_back() {
    let mut transcript = Transcript::new();
    let odd = [
        r#"{ "jsonrpc" : "2.0", "id" : 18446744073709551616, "method":"x" }"#,
        r#"{"jsonrpc":"2.0","id":1.0,"method":"a\ud800b","params":{"k":1,"k":2,"n":1e999}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":null,"error":null}"#,
        r#"{"method":"_x","params":{"sessionId":"somebody else's","t":"\u0000\u001b[31m ÿ 😀"}}"#,
        "{}",
    ];
    for message in odd {
        transcript.event(-5_000_000_000_000, "agent", "ki\nnd", message);
    }
    let place = Place::new();
    import(&place, &transcript.text, &[]).expect(0);
    assert_eq!(export(&place, SESSION), transcript.text);
    // With the line ends of another system, too.
    let elsewhere = Place::new();
    import(&elsewhere, &transcript.text.replace('\n', "\r\n"), &[]).expect(0);
    assert_eq!(export(&elsewhere, SESSION), transcript.text);
    import(
        &elsewhere,
        transcript.text.trim_end().replace(SESSION, OTHER).as_str(),
        &[],
    )
    .expect(0);
}

const OTHER: &str = "01987654-3210-7abc-8def-0123456789ff";

#[test]
fn a_session_that_exists_is_not_touched_but_can_have_a_twin() {
    let place = Place::new();
    import(&place, CONVERSATION, &[]).expect(0);
    import(&place, CONVERSATION, &[]).expect_words(2, &[SESSION, "exists", "--new-id"]);
    let ended = import(&place, CONVERSATION, &["--new-id"]).expect(0);
    let twin = ended.stdout.trim();
    assert_ne!(twin, SESSION);
    assert_eq!(export(&place, SESSION), CONVERSATION);
    // In its messages too, or clients would not know them for its own. The
    // agent's session stays the other one's.
    let own = CONVERSATION.split_once("\"agentSessionId\":").unwrap().1;
    let own = own.split([',', '}']).next().unwrap();
    let expected = CONVERSATION.replace(
        &format!("\"agentSessionId\":{own}"),
        "\"agentSessionId\":null",
    );
    assert_eq!(
        export(&place, twin),
        expected.replace(SESSION, twin),
        "nothing else has changed"
    );
}

#[test]
fn a_wrong_line_is_named_and_imports_nothing() {
    let place = Place::new();
    place.configure("[limits]\nline_bytes = \"64KiB\"\n");
    let mut good = Transcript::new();
    for number in 0..2000 {
        good.chunk(10, &format!("chunk {number}"));
    }
    let good = good.text;
    let lines = || good.lines().map(str::to_owned).collect::<Vec<String>>();
    let with = |number: usize, line: &str| {
        let mut lines = lines();
        lines[number - 1] = line.to_owned();
        lines.join("\n")
    };
    let edited = |number: usize, from: &str, to: &str| {
        let line = &lines()[number - 1];
        assert!(line.contains(from), "{line}");
        with(number, &line.replacen(from, to, 1))
    };
    let deep = format!(
        r#"{{"seq":1500,"time":1,"direction":"agent","kind":"x","message":{{"method":"x","params":{}{}}}}}"#,
        "[".repeat(600),
        "]".repeat(600)
    );
    let cases: Vec<(String, &[&str])> = vec![
        (String::new(), &["line 1", "empty"]),
        ("\n".into(), &["line 1", "export --format jsonl"]),
        ("{\"a\":1}\n".into(), &["line 1", "export --format jsonl"]),
        (
            good.replacen("\"acpbox\":1", "\"acpbox\":2", 1),
            &["line 1", "version 2", "reads version 1", "update acpbox"],
        ),
        (
            edited(1, SESSION, "../../etc/passwd"),
            &["line 1", "sessionId", "UUID"],
        ),
        (
            edited(1, SESSION, &SESSION.to_uppercase()),
            &["line 1", "UUID"],
        ),
        (edited(1, "/nowhere", "nowhere"), &["line 1", "cwd"]),
        (
            edited(1, "2026-11-22T11:05:00Z", "yesterday"),
            &["line 1", "session"],
        ),
        (
            edited(1, "\"agent\":\"claude\",", ""),
            &["line 1", "`agent`"],
        ),
        (with(2, "{\"seq\":1"), &["line 2", "EOF"]),
        (
            edited(1501, "\"seq\":1500", "\"seq\":1501"),
            &["line 1501", "event 1501", "1500 should"],
        ),
        (
            edited(1501, "\"seq\":1500", "\"seq\":\"1500\""),
            &["line 1501", "string"],
        ),
        (
            edited(1501, "\"agent\"", "\"nobody\""),
            &["line 1501", "nobody"],
        ),
        (
            edited(1501, "\"message\":", "\"massage\":"),
            &["line 1501", "massage"],
        ),
        (with(1501, ""), &["line 1501"]),
        (
            with(
                1501,
                r#"{"seq":1500,"time":1,"direction":"agent","kind":"x","message":[1]}"#,
            ),
            &["line 1501", "no object"],
        ),
        (with(1501, &deep), &["line 1501", "limits.depth"]),
        (
            edited(2001, "chunk", &"x".repeat(200_000)),
            &["line 2001", "limits.line_bytes"],
        ),
        (good[..good.len() - 20].to_owned(), &["line 2001"]),
    ];
    for (text, words) in cases {
        let ended = import(&place, &text, &[]);
        assert!(ended.stderr.contains("nothing was imported"), "{ended:?}");
        ended.expect_words(2, words);
        assert_eq!(count(&place, "sessions"), 0, "{words:?}");
        assert_eq!(count(&place, "events"), 0, "{words:?}");
    }
    let mut bytes = good.clone().into_bytes();
    let at = bytes.len() - 30;
    bytes[at] = 0xff;
    let ended = place.acpbox_with_input(&["sessions", "import", "-"], &bytes);
    ended.expect_words(2, &["standard input", "line 2001", "UTF-8"]);
    place
        .acpbox(&["sessions", "import", "/nowhere/x"])
        .expect_words(2, &["/nowhere/x"]);
    assert_eq!(count(&place, "events"), 0);
    import(&place, &good, &[]).expect(0);
    assert_eq!(count(&place, "events"), 2000);
}

#[test]
fn a_folder_is_no_export() {
    let place = Place::new();
    let folder = place.workspace().display().to_string();
    place
        .acpbox(&["sessions", "import", &folder])
        .expect_words(2, &[&folder, "is a folder", "--format jsonl"]);
}

#[test]
fn an_import_is_seen_when_it_is_complete_and_what_a_killed_one_left_is_removed() {
    let place = Place::new();
    let lines = |count: i64| {
        let mut transcript = Transcript::new();
        while transcript.seq < count {
            transcript.chunk(10, "word ");
        }
        transcript.text
    };
    let mut killed = half(&place, &lines(2000).replace(SESSION, OTHER));
    let mut slow = half(&place, &lines(2000));
    eventually("both have stored some", || count(&place, "events") >= 3000);
    let listed = || {
        place
            .acpbox(&["sessions", "list", "--json"])
            .expect(0)
            .json()
    };
    assert_eq!(listed(), serde_json::json!([]));
    place.acpbox(&["sessions", "show", "import-"]).expect(2);
    let found = place
        .acpbox(&["sessions", "search", "--json", "word"])
        .expect(0)
        .json();
    assert_eq!(found["hits"], serde_json::json!([]), "out of sight");
    killed.kill().unwrap();
    killed.wait().unwrap();
    // A third one sweeps behind the killed one, and leaves the slow one alone.
    import(&place, CONVERSATION, &["--new-id"]).expect(0);
    let events = i64::try_from(CONVERSATION.lines().count() - 1).unwrap();
    assert!(count(&place, "events") <= 2000 + events);
    assert_eq!(listed().as_array().map(Vec::len), Some(1));
    drop(slow.stdin.take());
    let output = slow.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(listed().as_array().map(Vec::len), Some(2));
    assert_eq!(count(&place, "events"), 2000 + events);
    assert_eq!(export(&place, SESSION), lines(2000));
}

#[test]
fn costs_beyond_every_number_hang_nobody() {
    let mut transcript = Transcript::new();
    for amount in [1.7e308, 0.0, 1.7e308, 0.0] {
        let cost = serde_json::json!({"amount": amount, "currency": "USD"});
        transcript.update(
            10,
            &serde_json::json!({"sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": cost}),
        );
    }
    let place = Place::new();
    import(&place, &transcript.text, &[]).expect(0);
    let mut child = place
        .command(&["sessions", "show", SESSION])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it counts for ever");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_imported_session_whose_folder_is_not_here_says_so_when_it_is_to_go_on() {
    let place = Place::new();
    let text = header().replace("\"claude\"", "\"example\"");
    import(&place, &text, &[]).expect(0);
    let ended = place.acpbox(&["run", "--session", SESSION, "go on"]);
    assert!(ended.stderr.contains("/nowhere/at/all"), "{ended:?}");
    assert_ne!(ended.code, Some(0));
    place.acpbox(&["sessions", "show", SESSION]).expect(0);
}

/// An import that has all lines, and waits for the end of its input.
fn half(place: &Place, text: &str) -> Child {
    let mut command = place.command(&["sessions", "import", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    child
}

fn import(place: &Place, text: &str, options: &[&str]) -> Ended {
    let file = place.file("import.jsonl");
    std::fs::write(&file, text).unwrap();
    place.acpbox(&[&["sessions", "import", file.to_str().unwrap()], options].concat())
}

fn export(place: &Place, id: &str) -> String {
    place.acpbox(&["sessions", "export", id]).expect(0).stdout
}

fn count(place: &Place, table: &str) -> i64 {
    let database: PathBuf = place.file("state/acpbox/acpbox.db");
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .unwrap()
}
