//! A clock that is wrong, or jumps: order comes from numbers, waiting from a
//! clock that nobody sets.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::support::bare::prompt;

/// A site whose acpbox has the time that a file says.
struct Clock {
    site: Site,
    file: PathBuf,
}

impl Clock {
    fn new(time: &str) -> Clock {
        let mut site = Site::new();
        site.configure("[vms.default]\ndriver = 'host'\n");
        let file = site.folder().join("clock");
        let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
        let library = folders
            .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())
            .expect("this test needs the package faketime (.ci/setup installs it)");
        site.set("LD_PRELOAD", library.to_str().unwrap());
        site.set("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap());
        site.set("FAKETIME_NO_CACHE", "1");
        // Whoever sets a clock sets this one only.
        site.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let clock = Clock { site, file };
        clock.set(time);
        clock
    }

    /// Like `-1d`, or `@1970-01-01 00:00:10`, from where it goes on.
    fn set(&self, time: &str) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, time).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    fn connect(&self) -> Bare {
        self.site.connect(&["--agent", "example"])
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let output = self.site.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn open(acpbox: &mut Bare, workspace: &std::path::Path) -> String {
    let created = acpbox.request("session/new", json!({"cwd": workspace, "mcpServers": []}));
    created["sessionId"].as_str().unwrap().to_owned()
}

fn events(acpbox: &mut Bare, session: &str) -> Vec<Value> {
    let params = json!({"sessionId": session, "limit": 10_000});
    let mut page = acpbox.request("_acpbox/session/events", params);
    serde_json::from_value(page["events"].take()).unwrap()
}

/// The sessions that are listed, by page.
fn listed(acpbox: &mut Bare) -> Vec<String> {
    let mut ids = Vec::new();
    let mut params = json!({});
    loop {
        let page = acpbox.request("session/list", params.clone());
        for session in page["sessions"].as_array().unwrap() {
            ids.push(session["sessionId"].as_str().unwrap().to_owned());
        }
        match page.get("nextCursor") {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => return ids,
        }
    }
}

#[test]
fn a_transcript_keeps_its_order_when_the_clock_goes_back() {
    let clock = Clock::new("+0");
    let workspace = clock.site.repository("project");
    let mut acpbox = clock.connect();
    let session = open(&mut acpbox, &workspace);
    acpbox.prompt(&session, "[[say:today]]");
    acpbox.close(Duration::from_secs(20)).unwrap();

    let mut ids = vec![session.clone()];
    for (time, text) in [
        ("-1d", "yesterday"),
        ("@1970-01-01 00:00:10", "long ago"),
        ("+1d", "tomorrow"),
    ] {
        clock.set(time);
        let mut acpbox = clock.connect();
        ids.push(open(&mut acpbox, &workspace));
        acpbox.prompt(&session, &format!("[[say:{text}]]"));
        let events = events(&mut acpbox, &session);
        let numbers: Vec<i64> = events
            .iter()
            .map(|it| it["seq"].as_i64().unwrap())
            .collect();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len() as i64),
            "{numbers:?}"
        );
        let times: Vec<i64> = events
            .iter()
            .map(|it| it["time"].as_i64().unwrap())
            .collect();
        assert!(!times.is_sorted(), "the clock did not move");
        let mut found = listed(&mut acpbox);
        found.sort();
        let mut wanted = ids.clone();
        wanted.sort();
        assert_eq!(found, wanted);
        let list = acpbox.request("session/list", json!({}));
        let mine = list["sessions"].as_array().unwrap().iter();
        let mine = mine.clone().find(|it| it["sessionId"] == session).unwrap();
        assert_eq!(mine["title"], "[[say:today]]", "{list}");
        acpbox.close(Duration::from_secs(20)).unwrap();
    }

    let mut acpbox = clock.connect();
    let params = json!({"sessionId": session, "cwd": workspace, "mcpServers": []});
    acpbox.request("session/load", params);
    assert_in_order(&acpbox.text());
    acpbox.close(Duration::from_secs(20)).unwrap();
    clock.set("@1970-01-01 00:00:10");
    for id in &ids {
        assert!(clock.cli(&["sessions", "list"]).contains(&id[..8]));
    }
    let shown = clock.cli(&["sessions", "show", &session]);
    assert_in_order(&shown);
}

/// What was said on those days.
fn assert_in_order(text: &str) {
    let places = ["today", "yesterday", "long ago", "tomorrow"].map(|day| text.rfind(day));
    assert!(places[0].is_some() && places.is_sorted(), "{text}");
}

#[test]
fn a_clock_that_jumps_disturbs_no_turn_and_no_waiting() {
    let clock = Clock::new("+0");
    clock
        .site
        .configure("[vms.default]\ndriver = 'host'\n[limits]\ncancel_grace = '500ms'\n");
    let workspace = clock.site.repository("project");
    let mut acpbox = clock.connect();
    let session = open(&mut acpbox, &workspace);
    let turn = acpbox.send_request("session/prompt", prompt(&session, "[[slow:20]]"));
    for _ in 0..10 {
        for time in ["+1d", "@1970-01-01 00:00:00", "-1d", "+3000d"] {
            clock.set(time);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(acpbox.answer_of(turn)["stopReason"], "end_turn");
    let stored = events(&mut acpbox, &session);
    let times: Vec<i64> = stored
        .iter()
        .map(|it| it["time"].as_i64().unwrap())
        .collect();
    assert!(!times.is_sorted(), "the clock did not move: {times:?}");

    // Days that were not lived through are no idle time.
    clock.set("+30d");
    std::thread::sleep(Duration::from_millis(500));
    let kinds: Vec<Value> = events(&mut acpbox, &session)
        .iter()
        .map(|it| it["kind"].clone())
        .collect();
    assert!(!kinds.contains(&json!("_acpbox/agent/exit")), "{kinds:?}");

    // And those that come again make no wait longer.
    let turn = acpbox.send_request("session/prompt", prompt(&session, "[[slow:600]]"));
    std::thread::sleep(Duration::from_millis(100));
    clock.set("@1970-01-01 00:00:10");
    let start = std::time::Instant::now();
    acpbox.notify("session/cancel", json!({"sessionId": session}));
    assert_eq!(acpbox.answer_of(turn)["stopReason"], "cancelled");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    acpbox.request("session/close", json!({"sessionId": session}));
    acpbox.request("session/delete", json!({"sessionId": session}));
    assert!(listed(&mut acpbox).is_empty());
    let status = acpbox.close(Duration::from_secs(5));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
