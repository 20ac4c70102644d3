//! Ends that acpbox can prepare for, in the middle of a turn.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use super::*;
use crate::support::bare::prompt;
use crate::support::site::initialize;

const STREAMS: [&str; 2] = ["[[flood:1000000]]", "[[slow:600]]"];

/// A turn under way is ended in this way; what was seen must be stored, nothing
/// may be left, and the session goes on.
fn check(text: &str, end: impl Fn(&mut Raw)) {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut raw = Raw::start(&site, &[]);
    let session = raw.open(&workspace);
    raw.prompt(&session, text);
    raw.wait_for(|line| seq(line).is_some_and(|seq| seq > 6));
    let watch = site.watch();
    assert!(!watch.alive().is_empty());
    end(&mut raw);
    let status = raw.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    watch.expect_none(Duration::ZERO);
    let lines = raw.lines();
    let rows = stored(&site.database(), &session);
    assert!(expect_stored(&lines, &rows) > 0);
    let kinds: Vec<&str> = rows.iter().rev().take(4).map(|row| &*row.kind).collect();
    assert!(kinds.contains(&"_acpbox/turn/end"), "{kinds:?}");
    expect_to_go_on(&site, &session);
}

fn expect_to_go_on(site: &Site, session: &str) {
    let mut again = site.connect(&[]);
    let answer = again.prompt(session, "[[say:again]]");
    assert_eq!(answer["stopReason"], "end_turn");
    let status = again.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn a_terminated_acpbox_puts_everything_away() {
    for text in STREAMS {
        check(text, |raw| raw.signal(Signal::TERM));
    }
}

#[test]
fn an_interrupted_acpbox_puts_everything_away() {
    for text in STREAMS {
        check(text, |raw| raw.signal(Signal::INT));
    }
}

#[test]
fn an_acpbox_whose_terminal_is_gone_puts_everything_away() {
    check(STREAMS[1], |raw| raw.signal(Signal::HUP));
}

#[test]
fn a_client_that_closes_its_side_still_gets_the_turns_end() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut raw = Raw::start(&site, &[]);
    let session = raw.open(&workspace);
    let id = raw.prompt(&session, "[[slow:10]][[flood:20000]][[say:the end]]");
    raw.wait_for(|line| seq(line).is_some());
    raw.close_input();
    let answer = raw.answer(id);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let status = raw.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    site.watch().expect_none(Duration::ZERO);
    let lines = raw.lines();
    let rows = stored(&site.database(), &session);
    assert!(expect_stored(&lines, &rows) > 20_000);
}

#[test]
fn a_client_that_reads_no_more_ends_acpbox() {
    for text in STREAMS {
        let site = Site::new();
        let workspace = site.repository("project");
        let mut child = Killed(
            (site.command(&["stdio", "--agent", "example"]))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let mut input = child.0.stdin.take().unwrap();
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        let mut call = |id: u64, method: &str, params: serde_json::Value| {
            let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            input.write_all(format!("{line}\n").as_bytes()).unwrap();
        };
        let mut lines = Vec::new();
        let mut read_until = |mark: &str| {
            loop {
                let mut line = String::new();
                assert!(output.read_line(&mut line).unwrap() > 0, "{mark}");
                lines.push(line.trim_end().to_owned());
                if line.contains(mark) {
                    return line;
                }
            }
        };
        call(1, "initialize", initialize(json!({})));
        read_until("\"id\":1");
        call(
            2,
            "session/new",
            json!({"cwd": workspace, "mcpServers": []}),
        );
        let answer = read_until("\"id\":2");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let session = answer["result"]["sessionId"].as_str().unwrap().to_owned();
        call(3, "session/prompt", prompt(&session, text));
        read_until("agent_message_chunk");
        let watch = site.watch();
        // Its input stays open: only the output says that nobody listens.
        drop(output);
        let ended = crate::support::site::eventually(Duration::from_secs(20), || {
            child.0.try_wait().unwrap().is_some()
        });
        assert!(ended, "it goes on for nobody: {text}");
        watch.expect_none(Duration::ZERO);
        drop(input);
        let rows = stored(&site.database(), &session);
        assert!(expect_stored(&lines, &rows) > 0);
        expect_to_go_on(&site, &session);
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
