//! `[hooks]`: the user's commands, run with real scripts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::status::{ask_permission, command};
use crate::support::client::Client;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt};

/// An executable script below the set-up's folder.
fn program(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `[hooks]` whose commands all append what they get to `told`, a line each.
fn telling(setup: Setup, further: &str) -> Setup {
    let folder = setup.path().to_path_buf();
    let told = folder.join("told");
    // One write a line: several run at once.
    let body = format!(
        "read -r line; printf '%s %s %s %s\\n' \"$1\" \"$ACPBOX_EVENT\" \"$ACPBOX_SESSION\" \"$line\" >> {}",
        told.display()
    );
    let script = program(&folder, "hook", &body);
    let hook = |word: &str| format!("[{:?}, {word:?}]", script.display().to_string());
    setup.config(&format!(
        "[hooks]\nturn_ended = {}\npermission_asked = {}\nagent_exited = {}\n{further}\n",
        hook("one"),
        hook("two"),
        hook("three"),
    ))
}

/// What was told: the argument, the event, the session, the object.
fn told(setup: &Setup) -> Vec<(String, String, String, Value)> {
    let text = std::fs::read_to_string(setup.path().join("told")).unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let object = serde_json::from_str(words[3]).unwrap();
        (words[0].into(), words[1].into(), words[2].into(), object)
    };
    text.lines().map(parse).collect()
}

fn wait_for_told(setup: &Setup, count: usize) -> Vec<(String, String, String, Value)> {
    let is_there = wait_until(|| told(setup).len() >= count);
    assert!(is_there, "{:#?}", told(setup));
    told(setup)
}

fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

/// Answers what the agent asks, and ends the turn.
fn prompt_and_allow(client: &mut Client, session: &str) {
    let allow = r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#;
    client
        .answers
        .insert("session/request_permission", allow.into());
    client.prompt(session, "the title").unwrap();
}

#[test]
fn each_occasion_runs_its_hook_once_and_a_replay_runs_none() {
    let setup = telling(Setup::host(), "");
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        ask_permission("Write \u{1b}[31mit"),
        json!({"expect_answer": 900}),
        chunk("done"),
        end_turn(),
        expect_prompt(),
        json!({"exit": 3}),
    ]);
    prompt_and_allow(&mut client, &session);
    let all = wait_for_told(&setup, 2);
    let (argument, event, id, asked) = &all[0];
    assert_eq!(
        (argument.as_str(), event.as_str()),
        ("two", "permission_asked")
    );
    assert_eq!(*id, session);
    assert_eq!(asked["event"], "permission_asked");
    assert_eq!(asked["sessionId"], session.as_str());
    assert_eq!(asked["cwd"], json!(setup.workspace()));
    assert_eq!(asked["agent"], "inline");
    let title = asked["toolCall"]["title"].as_str().unwrap();
    assert!(
        title.starts_with("Write ") && !title.contains(char::is_control),
        "{title:?}"
    );
    assert_eq!(
        asked["options"][1],
        json!({"name": "Allow", "kind": "allow_once"})
    );
    let (argument, event, _, ended) = &all[1];
    assert_eq!((argument.as_str(), event.as_str()), ("one", "turn_ended"));
    assert_eq!(ended["stopReason"], "end_turn");
    assert_eq!(ended["title"], "the title");

    client.prompt(&session, "again").unwrap_err();
    let all = wait_for_told(&setup, 4);
    let of = |name: &str| all[2..].iter().find(|it| it.1 == name).unwrap();
    assert_eq!(of("agent_exited").3["code"], 3);
    assert_eq!(of("turn_ended").3["reason"], "agent_exit");
    let error = of("turn_ended").3["error"].as_str().unwrap();
    assert!(error.contains("ended during the turn"), "{error}");

    // Coming back, replaying and closing are no news.
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": [],
        "_meta": {"acpbox": {"env": {"TESTY_SCRIPT": ""}}}});
    client.call("session/load", params).unwrap();
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    settle();
    assert_eq!(told(&setup).len(), 4, "{:#?}", told(&setup));
    client.take_rest();
}

#[test]
fn a_question_has_the_title_and_kind_that_were_told_before() {
    let setup = telling(Setup::host(), "");
    let mut client = setup.connect();
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "Run make", "kind": "execute"});
    let ask = |id: u64, call: Value| {
        let yes = json!({"optionId": "yes", "name": "Allow", "kind": "allow_once"});
        json!({"send": {"jsonrpc": "2.0", "id": id, "method": "session/request_permission",
            "params": {"sessionId": "$SESSION", "toolCall": call, "options": [yes]}}})
    };
    let session = client.new_session_of(&[
        expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "method": "session/update",
            "params": {"sessionId": "$SESSION", "update": call}}}),
        ask(1, json!({"toolCallId": "c"})),
        json!({"expect_answer": 1}),
        ask(
            2,
            json!({"toolCallId": "c", "title": "Run it", "kind": null}),
        ),
        json!({"expect_answer": 2}),
        ask(3, json!({"toolCallId": "d"})),
        json!({"expect_answer": 3}),
        end_turn(),
    ]);
    prompt_and_allow(&mut client, &session);
    let all = wait_for_told(&setup, 4);
    let mut asked: Vec<&Value> = all
        .iter()
        .filter(|it| it.1 == "permission_asked")
        .map(|it| &it.3)
        .collect();
    // They may run at once.
    asked.sort_by_key(|it| it["seq"].as_i64());
    let calls: Vec<&Value> = asked.iter().map(|it| &it["toolCall"]).collect();
    assert_eq!(*calls[0], json!({"title": "Run make", "kind": "execute"}));
    assert_eq!(*calls[1], json!({"title": "Run it", "kind": "execute"}));
    assert_eq!(*calls[2], json!({"title": "", "kind": ""}));
    client.take_rest();
}

#[test]
fn what_a_rule_answers_is_no_question() {
    let rule = "[[permissions.rules]]\nkind = [\"edit\"]\ndecide = \"allow\"";
    let setup = telling(Setup::host(), rule);
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        ask_permission("Write"),
        json!({"expect_answer": 900}),
        end_turn(),
    ]);
    client.prompt(&session, "go").unwrap();
    let all = wait_for_told(&setup, 1);
    assert_eq!(all[0].1, "turn_ended", "{all:#?}");
    settle();
    assert_eq!(told(&setup).len(), 1);
}

#[test]
fn what_is_asked_after_a_cancel_is_no_question() {
    let setup = telling(Setup::host(), "");
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        json!({"expect": "session/cancel"}),
        ask_permission("Too late"),
        json!({"expect_answer": 900}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ]);
    let prompt = client.request(
        "session/prompt",
        crate::support::steps::prompt(&session, "go"),
    );
    std::thread::sleep(Duration::from_millis(100));
    client.notify("session/cancel", json!({"sessionId": session}));
    client.answer(prompt).unwrap();
    let all = wait_for_told(&setup, 1);
    settle();
    assert_eq!(all.len(), told(&setup).len());
    assert_eq!(all[0].1, "turn_ended");
    assert_eq!(all[0].3["stopReason"], "cancelled");
}

#[test]
fn hooks_that_hang_fail_or_do_not_exist_are_logged_and_hold_up_nothing() {
    let setup = Setup::host();
    let folder = setup.path().to_path_buf();
    let pids = folder.join("pids");
    let hang = format!("sleep 1000 & echo $! >> {}; wait", pids.display());
    let hang = program(&folder, "hang", &hang);
    let fail = program(&folder, "fail", "printf 'no \\033[31mluck' >&2; exit 7");
    let setup = setup.config(&format!(
        "[hooks]\nturn_ended = [{:?}]\npermission_asked = [{:?}]\n\
         agent_exited = [\"no-such-program\"]\ntimeout = \"400ms\"\n",
        hang.display().to_string(),
        fail.display().to_string(),
    ));
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        ask_permission("Write"),
        json!({"expect_answer": 900}),
        end_turn(),
        expect_prompt(),
        end_turn(),
        expect_prompt(),
        json!({"exit": 0}),
    ]);
    prompt_and_allow(&mut client, &session);
    client.prompt(&session, "two").unwrap();
    client.prompt(&session, "three").unwrap_err();
    let words = [
        "a hook failed",
        "luck",
        "it ran too long (hooks.timeout)",
        "a hook did not start",
        "no-such-program",
    ];
    let is_said = wait_until(|| {
        let said = client.stderr();
        words.iter().all(|word| said.contains(word))
            && said.matches("a hook was killed").count() == 3
    });
    let said = client.stderr();
    assert!(is_said && !said.contains('\u{1b}'), "{said:?}");
    assert!(
        said.contains(&format!("session{{id=\"{session}\"}}")),
        "{said}"
    );
    // What the killed ones had started is gone too.
    let pids = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(pids.lines().count(), 3);
    let is_gone = |pid: &str| !Path::new("/proc").join(pid).exists();
    assert!(wait_until(|| pids.lines().all(is_gone)), "{pids}");
    client.check_next_session();
}

#[test]
fn hooks_that_hang_hold_up_the_end_of_acpbox_for_a_moment_only() {
    let setup = Setup::host();
    let hang = program(setup.path(), "hang", "exec sleep 1000");
    let hang = hang.display().to_string();
    let setup = setup.config(&format!(
        "[hooks]\nturn_ended = [{hang:?}]\ntimeout = \"5m\"\n"
    ));
    let mut client = setup.connect();
    let session = client.new_session_of(&[]);
    for _ in 0..12 {
        client.prompt(&session, "go").unwrap();
    }
    let began = std::time::Instant::now();
    client.close_input();
    assert!(client.wait_for_end(Duration::from_secs(10)).is_some());
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    client.take_rest();
}

#[test]
fn a_hook_still_runs_when_acpbox_ends_with_the_turn() {
    let setup = telling(Setup::host(), "");
    setup.script(&[expect_prompt(), chunk("hi"), end_turn()]);
    let output = command(&setup, &["run", "hello"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let all = told(&setup);
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].1, "turn_ended");
}

#[test]
fn notifications_take_what_agents_wrote_as_text() {
    let setup = Setup::host();
    let folder = setup.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let shown = setup.path().join("shown");
    let body = format!(
        "for word; do printf '[%s]' \"$word\"; done >> {0}; echo >> {0}",
        shown.display()
    );
    program(&folder, "notify-send", &body);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let setup = setup
        .variable("PATH", &path)
        .config("[hooks]\nnotify = true\n");
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        ask_permission("--urgency=<b>\u{1b}]0;x\u{7}"),
        json!({"expect_answer": 900}),
        end_turn(),
    ]);
    prompt_and_allow(&mut client, &session);
    let text = || std::fs::read_to_string(&shown).unwrap_or_default();
    assert!(wait_until(|| text().lines().count() == 2), "{}", text());
    let text = text();
    let lines: Vec<_> = text.lines().collect();
    let begin = "[--app-name=acpbox][--][inline asks: --urgency=<b>";
    assert!(lines[0].starts_with(begin), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    assert_eq!(
        lines[1],
        "[--app-name=acpbox][--][inline has finished][the title]"
    );
}

#[test]
fn a_wrong_hook_is_an_error_that_names_its_key_and_doctor_finds_missing_programs() {
    let check = |toml: &str, words: &[&str]| {
        let setup = Setup::host().config(toml);
        let output = command(&setup, &["doctor"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in words {
            assert!(said.contains(word), "no {word} in {said}");
        }
    };
    check(
        "[hooks]\nturn_ended = [\"bin/x\"]\n",
        &["✗ configuration", "hooks.turn_ended"],
    );
    check(
        "[hooks]\ntimeout = \"1h\"\n",
        &["✗ configuration", "hooks.timeout"],
    );
    check("[hooks]\nturn_end = []\n", &["did you mean `turn_ended`?"]);
    check(
        "[hooks]\nturn_ended = [\"no-such-program\"]\nagent_exited = [\"sh\"]\n",
        &[
            "! hooks.turn_ended: `no-such-program` is no program on PATH",
            "✓ hooks.agent_exited",
        ],
    );
}
