//! `acpbox attach`: a live session in the terminal.

mod forms;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::cli::terminal::Terminal;
use crate::serve::{Peer, Server, socket};
use crate::status::{ask_permission, command};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// A running `acpbox attach` without a terminal; killed when it is dropped.
struct Attached {
    child: Child,
    input: Option<ChildStdin>,
    /// What it wrote to stdout, and beside to stderr.
    shown: Arc<Mutex<String>>,
    said: Arc<Mutex<String>>,
}

impl Attached {
    fn start(setup: &Setup, arguments: &[&str]) -> Attached {
        let mut command = command(setup, &[&["attach"], arguments].concat());
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let shown = collect(child.stdout.take().unwrap());
        let said = collect(child.stderr.take().unwrap());
        Attached {
            input: child.stdin.take(),
            child,
            shown,
            said,
        }
    }

    fn type_in(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    fn end_input(&mut self) {
        self.input = None;
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn wait_for(&self, words: &str) {
        let is_there = wait_until(|| self.shown().contains(words) || self.said().contains(words));
        assert!(is_there, "no {words} in {}\n{}", self.shown(), self.said());
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    fn code(&mut self) -> i32 {
        let mut code = None;
        let has_ended = wait_until(|| {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert!(has_ended, "it goes on: {}\n{}", self.shown(), self.said());
        code.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&text);
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        while let Ok(bytes @ [_, ..]) = reader.fill_buf() {
            let count = bytes.len();
            kept.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(bytes));
            reader.consume(count);
        }
    });
    text
}

/// A server, and a client with a session of these steps.
fn serve(setup: &Setup, steps: &[Value]) -> (Server, Peer, String) {
    setup.script(steps);
    let mut server = Server::start(setup, &[]);
    server.address();
    let mut peer = Peer::unix(&socket(setup)).initialize(json!({}));
    let session = peer.new_session(setup);
    (server, peer, session)
}

fn positions(text: &str, words: &[&str]) -> Vec<usize> {
    let find = |word: &&str| {
        let found: Vec<_> = text.match_indices(word).map(|(at, _)| at).collect();
        assert_eq!(found.len(), 1, "{word} in {text}");
        found[0]
    };
    words.iter().map(find).collect()
}

#[test]
fn the_tail_is_shown_then_each_turn_whoever_prompts() {
    let setup = Setup::host();
    let turn = |reply: &str| [expect_prompt(), chunk(reply), end_turn()];
    let steps = [
        turn("reply-1"),
        turn("reply-2"),
        turn("reply-3"),
        turn("reply-4"),
    ]
    .concat();
    let (_server, mut peer, session) = serve(&setup, &steps);
    for text in ["prompt-1", "prompt-2"] {
        peer.call("session/prompt", prompt(&session, text)).unwrap();
    }
    let mut attached = Attached::start(&setup, &[&session[..20], "--tail", "1"]);
    attached.wait_for("reply-2");
    assert!(
        !attached.shown().contains("prompt-1"),
        "{}",
        attached.shown()
    );
    peer.call("session/prompt", prompt(&session, "prompt-3"))
        .unwrap();
    attached.wait_for("reply-3");
    attached.type_in("prompt-4\n");
    attached.wait_for("reply-4");
    attached.end_input();
    assert_eq!(attached.code(), 0);
    let shown = attached.shown();
    let places = positions(
        &shown,
        &[
            "> prompt-2",
            "reply-2",
            "> prompt-3",
            "reply-3",
            "> prompt-4",
            "reply-4",
        ],
    );
    assert!(places.is_sorted(), "{shown}");
    assert_eq!(attached.said(), "");
    // The session goes on.
    let status = peer.call("_acpbox/server/status", json!({})).unwrap();
    assert_eq!(status["sessions"][0]["state"], "idle");
}

#[test]
fn on_a_terminal_what_was_typed_is_not_shown_again_and_ctrl_d_leaves() {
    let setup = Setup::host();
    let steps = [expect_prompt(), chunk("the reply"), end_turn()];
    let (_server, _peer, session) = serve(&setup, &steps);
    let mut terminal = Terminal::start_by(&["attach", &session], |mut command, arguments| {
        command.args(arguments).env_clear().env("TERM", "xterm");
        let stdio = setup.command();
        let variables = stdio.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        command
    });
    terminal.wait_for("Ctrl-D leaves");
    terminal.type_in("what I typed\n");
    terminal.wait_for("the reply");
    terminal.type_in("\u{3}");
    terminal.wait_for("Ctrl-C again, or Ctrl-D, leaves");
    terminal.type_in("\u{4}");
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    let seen = &terminal.seen;
    assert_eq!(seen.matches("what I typed").count(), 1, "{seen}");
    assert_eq!(seen.matches("the reply").count(), 1, "{seen}");
}

#[test]
fn piped_lines_are_prompts_one_after_the_other_and_the_end_waits_for_the_last_answer() {
    let setup = Setup::host();
    let slow = json!({"sleep_ms": 200});
    let steps = [
        expect_prompt(),
        slow.clone(),
        chunk("first"),
        end_turn(),
        expect_prompt(),
        slow,
        chunk("second"),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"refusal"}}"#}),
    ];
    let (_server, _peer, session) = serve(&setup, &steps);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("one\n\ntwo");
    attached.end_input();
    assert_eq!(
        attached.code(),
        3,
        "the code of the last turn: {}",
        attached.said()
    );
    let shown = attached.shown();
    assert!(
        positions(&shown, &["> one", "first", "> two", "second"]).is_sorted(),
        "{shown}"
    );
}

#[test]
fn a_permission_is_answered_by_a_letter_and_only_by_what_was_offered() {
    let setup = Setup::host();
    let steps = [
        setup.record(),
        expect_prompt(),
        ask_permission("Write \u{1b}]52;c;ZXZpbA==\u{7}x"),
        json!({"expect_answer": 900}),
        chunk("went on"),
        end_turn(),
    ];
    let (_server, peer, session) = serve(&setup, &steps);
    // It would be asked first.
    drop(peer);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("do it\n");
    attached.wait_for("a number or a letter answers: ");
    let shown = attached.shown();
    assert!(shown.contains("  1 r  Refuse\n  2 a  Allow\n"), "{shown}");
    attached.type_in("yes\n");
    attached.wait_for("that line is none of the choices, and was not sent");
    assert!(wait_until(
        || attached.shown().matches("answers: ").count() == 2
    ));
    assert!(!attached.shown().contains("went on"));
    attached.type_in("a\n");
    attached.wait_for("went on");
    attached.end_input();
    assert_eq!(attached.code(), 0);
    let shown = attached.shown();
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    let answer = setup.received();
    assert!(
        answer
            .iter()
            .any(|line| line.contains(r#""optionId":"yes""#)),
        "{answer:#?}"
    );
}

#[test]
fn a_permission_that_is_withdrawn_is_asked_no_more() {
    let setup = Setup::host();
    let withdraw = json!({"send": {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": 900}}});
    let steps = [
        expect_prompt(),
        ask_permission("Write"),
        json!({"sleep_ms": 300}),
        withdraw,
        end_turn(),
        expect_prompt(),
        chunk("the second"),
        end_turn(),
    ];
    let (_server, peer, session) = serve(&setup, &steps);
    drop(peer);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("do it\n");
    attached.wait_for("answers: ");
    attached.wait_for("answered elsewhere");
    // What is typed now is a prompt again.
    attached.type_in("a\n");
    attached.wait_for("the second");
    attached.end_input();
    assert_eq!(attached.code(), 0);
}

#[test]
fn ctrl_c_cancels_the_turn_and_what_it_asked_for() {
    let setup = Setup::host();
    let steps = [
        setup.record(),
        expect_prompt(),
        ask_permission("Write"),
        json!({"expect": "session/cancel"}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ];
    let (_server, peer, session) = serve(&setup, &steps);
    drop(peer);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("do it\n");
    attached.wait_for("answers: ");
    attached.signal(rustix::process::Signal::INT);
    attached.wait_for("cancelling the turn; Ctrl-C again leaves");
    attached.wait_for("the turn ended: cancelled");
    attached.end_input();
    assert_eq!(attached.code(), 4);
    let received = setup.received();
    let is_refused = |line: &String| line.contains(r#"{"outcome":{"outcome":"cancelled"}}"#);
    assert!(received.iter().any(is_refused), "{received:#?}");
}

#[test]
fn ctrl_c_twice_leaves_and_the_turn_goes_on() {
    let setup = Setup::host();
    let steps = [
        expect_prompt(),
        chunk("began"),
        json!({"expect": "session/cancel"}),
        json!({"sleep_ms": 1500}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ];
    let (_server, mut peer, session) = serve(&setup, &steps);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("do it\n");
    attached.wait_for("began");
    attached.signal(rustix::process::Signal::INT);
    attached.wait_for("cancelling the turn");
    attached.signal(rustix::process::Signal::INT);
    assert_eq!(attached.code(), 0);
    let state = |peer: &mut Peer| {
        let status = peer.call("_acpbox/server/status", json!({})).unwrap();
        status["sessions"][0]["state"].clone()
    };
    assert_eq!(state(&mut peer), "prompting");
    assert!(wait_until(|| state(&mut peer) == "idle"));
}

#[test]
fn a_lost_connection_is_taken_up_again_and_nothing_is_missing_or_shown_twice() {
    let setup = Setup::host();
    let steps = [expect_prompt(), chunk("reply-1"), end_turn()];
    let (mut server, _peer, session) = serve(&setup, &steps);
    let mut attached = Attached::start(&setup, &[&session]);
    attached.type_in("prompt-1\n");
    attached.wait_for("reply-1");
    setup.script(&[expect_prompt(), chunk("reply-2"), end_turn()]);
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    attached.wait_for("the connection is lost");
    let mut server = Server::start(&setup, &[]);
    server.address();
    attached.wait_for("connected again");
    attached.type_in("prompt-2\n");
    attached.wait_for("reply-2");
    let shown = attached.shown();
    let words = ["> prompt-1", "reply-1", "> prompt-2", "reply-2"];
    assert!(positions(&shown, &words).is_sorted(), "{shown}");
    attached.end_input();
    assert_eq!(attached.code(), 0, "{}", attached.said());
}

#[test]
fn an_unknown_session_and_one_of_many_are_named() {
    let setup = Setup::host();
    let (_server, mut peer, session) = serve(&setup, &[]);
    peer.new_session(&setup);
    let check = |given: &str, words: &[&str]| {
        let mut attached = Attached::start(&setup, &[given]);
        assert_eq!(attached.code(), 2);
        for word in words {
            attached.wait_for(word);
        }
    };
    check(
        "ffff",
        &["the server has no session `ffff`", "acpbox sessions list"],
    );
    check("0", &["several sessions begin with `0`", &session]);
}
