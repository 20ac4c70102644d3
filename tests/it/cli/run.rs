//! `acpbox run`.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Ended, Place};

#[test]
fn text_prints_the_reply_and_nothing_else_on_stdout() {
    let place = Place::new();
    let ended = place
        .run(&["--yes", "[[say:first]] [[write:a.txt|new]] [[say:second]]"])
        .expect(0);
    assert_eq!(ended.stdout, "first\n\nsecondDONE 1 tool results\n");
    assert!(ended.stderr.contains("✓ edit Write a.txt"), "{ended:?}");
    let session = place.only_session();
    let id = session["sessionId"].as_str().unwrap();
    let way_on = format!("acpbox run --session {id}");
    assert!(ended.stderr.contains(&way_on), "{ended:?}");
    assert!(
        !ended.stderr.contains('\x1b'),
        "no colours on a pipe: {ended:?}"
    );
    let written = std::fs::read_to_string(place.workspace().join("a.txt")).unwrap();
    assert_eq!(written, "new");
}

#[test]
fn json_prints_one_object_at_the_end() {
    let place = Place::new();
    let ended = place.run(&["--format", "json", "[[say:hello ]]"]).expect(0);
    assert_eq!(ended.stdout.lines().count(), 1);
    let summary = ended.json();
    assert_eq!(summary["text"], "hello DONE 0 tool results");
    assert_eq!(summary["stopReason"], "end_turn");
    assert_eq!(summary["error"], Value::Null);
    let id = summary["sessionId"].as_str().unwrap();
    let stored = place.acpbox(&["sessions", "show", id, "--json"]).json();
    let events = stored["events"].as_array().unwrap();
    let last = events
        .iter()
        .find(|event| event["kind"] == "session/prompt:result")
        .unwrap();
    assert_eq!(summary["lastSeq"], last["seq"]);
}

#[test]
fn jsonl_prints_every_stored_event() {
    let place = Place::new();
    let ended = place
        .run(&[
            "--format",
            "jsonl",
            "--yes",
            "[[write:a|x]] [[shell:echo hi]]",
        ])
        .expect(0);
    let events: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<i64> = events
        .iter()
        .map(|it| it["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=events.len() as i64).collect::<Vec<_>>());
    for kind in [
        "session/new",
        "session/request_permission",
        "terminal/create",
        "session/prompt:result",
    ] {
        assert!(
            events.iter().any(|it| it["kind"] == kind),
            "{kind}: {ended:?}"
        );
    }
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let exported = place.acpbox(&["sessions", "export", &id]).expect(0).stdout;
    let (_, stored) = exported.split_once('\n').unwrap();
    assert!(
        stored.starts_with(&ended.stdout),
        "the same bytes as stored"
    );
}

#[test]
fn the_prompt_is_the_arguments_and_then_standard_input() {
    let place = Place::new();
    let args = ["run", "--agent", "example", "--format", "jsonl"];
    let asked = |args: &[&str], input: &str| -> String {
        let ended = place.acpbox_with_input(args, input.as_bytes()).expect(0);
        let events = ended
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let prompt = events
            .into_iter()
            .find(|event| event["kind"] == "session/prompt")
            .unwrap();
        let text = &prompt["message"]["params"]["prompt"][0]["text"];
        text.as_str().unwrap().to_owned()
    };
    assert_eq!(asked(&args, "[[say:piped]]\n"), "[[say:piped]]\n");
    let both = [&args[..], &["[[say:a]]", "b"]].concat();
    assert_eq!(asked(&both, "piped"), "[[say:a]] b\n\npiped");
    assert_eq!(asked(&both, ""), "[[say:a]] b");
    place
        .acpbox_with_input(&args, b"\xff\xfe")
        .expect_words(2, &["not UTF-8"]);
}

#[test]
fn a_prompt_over_the_limit_is_refused_however_it_gets_there() {
    let place = Place::new();
    place.configure("[limits]\nline_bytes = 5000\n");
    let args = ["run", "--agent", "example"];
    // Over the limit as it is, with the request around it, and as JSON has it.
    for input in ["a".repeat(6000), "a".repeat(4990), "\"".repeat(3000)] {
        place
            .acpbox_with_input(&args, input.as_bytes())
            .expect_words(2, &["limits.line_bytes", "5000"]);
    }
}

#[test]
fn a_reply_may_be_longer_than_one_message_may_be() {
    let place = Place::new();
    place.configure("[limits]\nline_bytes = 2000\n");
    let prompt = "[[ask:a]]".repeat(150);
    let ended = place.run(&["--yes", &prompt]).expect(0);
    assert!(ended.stdout.len() > 2000, "{}", ended.stdout.len());
}

#[test]
fn two_runs_make_a_pipe() {
    let place = Place::new();
    let mut first = place
        .command(&["run", "--agent", "example", "[[say:from the first]]"])
        .spawn()
        .unwrap();
    let output = first.stdout.take().unwrap();
    let second = place
        .command(&[
            "run",
            "--agent",
            "example",
            "--format",
            "jsonl",
            "[[say:second]]",
        ])
        .stdin(Stdio::from(output))
        .output()
        .unwrap();
    assert!(first.wait().unwrap().success());
    let asked = Ended::of(second).expect(0).stdout;
    let asked = asked
        .lines()
        .find(|line| line.contains("session/prompt"))
        .unwrap();
    let both = "[[say:second]]\\n\\nfrom the firstDONE 0 tool results";
    assert!(asked.contains(both), "{asked}");
}

#[test]
fn permission_is_given_refused_or_by_default_refused() {
    let place = Place::new();
    let check = |flags: &[&str], chosen: &str| {
        let args = [flags, &["[[ask:May I?]]"]].concat();
        let ended = place.run(&args).expect(0);
        assert!(ended.stdout.contains(chosen), "{flags:?}: {ended:?}");
        ended
    };
    check(&["--yes"], "ASK allow_once");
    let quiet = check(&["--deny"], "ASK reject_once");
    assert!(!quiet.stderr.contains("--yes"), "{quiet:?}");
    let told = check(&[], "ASK reject_once");
    assert!(told.stderr.contains("--yes"), "{told:?}");
    place.run(&["--deny", "[[write:no.txt|x]]"]).expect(0);
    assert!(!place.workspace().join("no.txt").exists());
}

#[test]
fn exit_codes_tell_how_the_turn_ended() {
    let place = Place::new();
    place.run(&["[[refuse:]]"]).expect(3);
    let ended = place
        .run(&["[[say:part]] [[exit:7]]"])
        .expect_words(5, &["exit code 7", "acpbox logs"]);
    assert_eq!(ended.stdout, "part\n", "what was said before stays");
    let ended = place
        .run(&["--format", "json", "[[say:part]] [[exit:7]]"])
        .expect(5);
    let summary = ended.json();
    assert_eq!(summary["text"], "part");
    assert_eq!(summary["stopReason"], Value::Null);
    assert_eq!(summary["error"]["data"]["phase"], "turn");
}

#[test]
fn an_agent_that_cannot_start_is_an_agent_failure() {
    let place = Place::new();
    place.configure("[agents.mine]\ncommand = \"no-such-program\"\n");
    place
        .acpbox(&["run", "--agent", "mine", "x"])
        .expect_words(5, &["no-such-program"]);
}

#[test]
fn a_session_goes_on() {
    let place = Place::new();
    let id = place.session("[[say:one]]");
    let again = place
        .acpbox(&["run", "--session", &id, "--format", "json", "[[say:two]]"])
        .expect(0)
        .json();
    assert_eq!(again["sessionId"], json!(id));
    assert_eq!(again["text"], "twoDONE 0 tool results");
    // As much of the id as is unique will do.
    let part = &id[..13];
    let ended = place
        .acpbox(&["run", "--session", part, "[[say:three]]"])
        .expect(0);
    assert_eq!(ended.stdout, "threeDONE 0 tool results\n");
    let shown = place.acpbox(&["sessions", "show", &id]).expect(0).stdout;
    for word in ["one", "two", "three"] {
        assert!(shown.contains(&format!("> [[say:{word}]]")), "{shown}");
    }
    place
        .acpbox(&["run", "--session", &id, "--agent", "claude", "x"])
        .expect_words(2, &["belongs to agent `example`"]);
}

#[test]
fn a_session_goes_on_in_its_folder_and_elsewhere_only_if_that_is_gone() {
    let place = Place::new();
    let [old, link, moved] = ["old", "link", "moved"].map(|name| place.workspace().join(name));
    std::fs::create_dir(&old).unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    let in_folder = |folder: &std::path::Path| folder.to_str().unwrap().to_owned();
    let begun = place.acpbox(&[
        "run",
        "--agent",
        "example",
        "--cwd",
        &in_folder(&old),
        "[[say:one]]",
    ]);
    begun.expect(0);
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let go_on = |folder: &std::path::Path| {
        place.acpbox(&[
            "run",
            "--session",
            &id,
            "--cwd",
            &in_folder(folder),
            "[[say:two]]",
        ])
    };
    go_on(&link).expect(0);
    let elsewhere = place.workspace();
    go_on(&elsewhere).expect_words(2, &["works in", &in_folder(&old), "leave out --cwd"]);
    std::fs::rename(&old, &moved).unwrap();
    let refused = place.acpbox(&["run", "--session", &id, "x"]).expect(5);
    assert!(refused.stderr.contains("is gone"), "{refused:?}");
    assert!(
        !refused.stderr.contains("Resource not found"),
        "{refused:?}"
    );
    go_on(&moved).expect(0);
}

#[test]
fn an_interrupt_cancels_the_turn_and_keeps_what_was_said() {
    let place = Place::new();
    let turn = place.long_turn(&[]);
    turn.signal(Signal::INT);
    let ended = turn.end().expect_words(4, &["cancelling", "cancelled"]);
    assert!(ended.stdout.starts_with("chunk0 "), "{ended:?}");
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let stored = place.acpbox(&["sessions", "show", &id]).expect(0).stdout;
    assert!(stored.contains("chunk0"), "{stored}");
    // The session is not spoiled by it.
    place
        .acpbox(&["run", "--session", &id, "[[say:on]]"])
        .expect(0);
}

#[test]
fn a_second_interrupt_and_a_termination_stop_at_once() {
    let place = Place::new();
    let turn = place.long_turn(&[]);
    turn.signal(Signal::TERM);
    turn.end().expect(4);
    // An agent that does not hear the cancellation.
    let args = [
        "run",
        "--agent",
        "example",
        "[[say:go]] [[shell:trap '' TERM; sleep 600]]",
    ];
    let mut child = place.command(&args).spawn().unwrap();
    let mut begun = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut begun).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    Ended::of(child.wait_with_output().unwrap()).expect(4);
}

#[test]
fn a_reader_that_goes_away_ends_the_turn() {
    let place = Place::new();
    let mut child = place
        .command(&["run", "--agent", "example", "[[slow:600]]"])
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(child.wait_with_output().unwrap()).expect(4);
    assert!(!ended.stderr.contains("closed"), "{ended:?}");
}

#[test]
fn a_reader_that_does_not_read_does_not_keep_a_signal_from_being_heard() {
    let place = Place::new();
    // More than a pipe holds.
    let child = place
        .command(&[
            "run",
            "--agent",
            "example",
            "--format",
            "jsonl",
            "[[flood:20000]]",
        ])
        .spawn()
        .unwrap();
    super::eventually("the pipe is full", || {
        let ready = rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap());
        ready.is_ok_and(|bytes| bytes >= 32 * 1024)
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let mut child = child;
    super::eventually("it ends without having been read", || {
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().code(), Some(4));
}
