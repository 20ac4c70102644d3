//! Agents and VMs that die, in a turn or out of it, and come back.

use std::time::Instant;

use serde_json::{Value, json};

use super::SOON;
use crate::support::client::value;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn an_agent_that_dies_again_and_again_is_started_only_so_often() {
    let setup = Setup::new().limits("agent_restarts = 2");
    let mut client = setup.connect();
    setup.script(&[
        expect_prompt(),
        json!({"stderr": "bang"}),
        json!({"exit": 1}),
    ]);
    let session = client.new_session();
    for _ in 0..3 {
        let error = client.prompt(&session, "go").unwrap_err();
        assert_eq!(error["message"], "the agent `testy` ended during the turn");
    }
    let error = client.prompt(&session, "go").unwrap_err();
    assert_eq!(
        error["message"],
        "the session's agent ended 3 times within 600s; prompts do not start it again for now"
    );
    let hint = error["data"]["hint"].as_str().unwrap();
    assert!(
        hint.contains("session/load") && hint.contains(&session),
        "{hint}"
    );
    // Others are not concerned.
    client.check_next_session();
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    client.prompt(&session, "go").unwrap_err();
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    client.call("session/load", params).unwrap();
    client.updates();
    client.prompt(&session, "go").unwrap();
    assert_eq!(client.texts(), ["back"]);
}

#[test]
fn an_idle_crash_is_noticed_when_it_happens_and_mended_by_the_next_prompt() {
    for is_told in [true, false] {
        let setup = Setup::new();
        let mut client = setup.start();
        let offer = json!({"_meta": {"acpbox": {"agentNotifications": is_told}}});
        client.initialize_offering(offer);
        setup.script(&[
            expect_prompt(),
            end_turn(),
            json!({"sleep_ms": 100}),
            json!({"signal": 9}),
        ]);
        let session = client.new_session();
        client.prompt(&session, "go").unwrap();
        setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
        let exit = |events: Vec<Value>| {
            let mut exits = events
                .into_iter()
                .filter(|event| event["kind"] == "_acpbox/agent/exit");
            exits.next()
        };
        let mut event = None;
        assert!(wait_until(|| {
            event = exit(client.events(&session));
            event.is_some()
        }));
        assert_eq!(event.unwrap()["message"]["params"]["signal"], 9);
        if is_told {
            let told = value(&client.expect("_acpbox/agent/exit"));
            assert_eq!(told["params"]["signal"], 9);
        }
        let result = client.prompt(&session, "again").unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], "back");
        assert_eq!(client.texts(), ["back"]);
    }
}

#[test]
fn a_vm_that_dies_ends_the_turns_of_all_its_sessions_and_is_booted_again() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("begun"), json!({"hang": true})]);
    let sessions = [(); 3].map(|()| client.new_session());
    let turns = [0, 1].map(|at| client.request("session/prompt", prompt(&sessions[at], "go")));
    client.expect("session/update");
    client.expect("session/update");
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    let start = Instant::now();
    let guests = children_of(client.child.id());
    assert_eq!(guests.len(), 1, "one VM for all three");
    let pid = rustix::process::Pid::from_raw(guests[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    for turn in turns {
        let error = client.answer(turn).unwrap_err();
        assert_eq!(error["message"], "the agent `testy` ended during the turn");
        assert!(error["data"]["exit"].is_string(), "{error}");
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // The idle one too.
    assert!(wait_until(|| {
        let events = client.events(&sessions[2]);
        events
            .iter()
            .any(|event| event["kind"] == "_acpbox/agent/exit")
    }));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for session in &sessions {
        let result = client.prompt(session, "again").unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], "back");
    }
    assert_eq!(client.texts(), ["back", "back", "back"]);
}

fn children_of(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    all.iter()
        .flat_map(|list| list.split_whitespace())
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[test]
fn a_prompt_given_up_while_its_session_comes_back_never_reaches_the_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "one").unwrap();
    drop(client);
    let slow = [
        setup.record(),
        json!({"expect": "session/new"}),
        json!({"sleep_ms": 400}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"testy-session"}}"#}),
    ];
    setup.script(&slow);
    let mut client = setup.connect();
    let turn = client.request("session/prompt", prompt(&session, "given up"));
    assert!(wait_until(|| setup
        .received()
        .iter()
        .any(|line| line.contains("session/new"))));
    client.notify("$/cancel_request", json!({"requestId": turn}));
    assert_eq!(client.answer(turn).unwrap_err()["code"], -32800);
    assert_eq!(
        client.prompt(&session, "two").unwrap()["stopReason"],
        "end_turn"
    );
    assert!(
        !setup
            .received()
            .iter()
            .any(|line| line.contains("given up"))
    );
}

#[test]
fn a_permission_that_is_asked_for_while_its_client_loads_is_still_answered() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let params = json!({"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"},
        "options": [{"optionId": "y", "name": "Yes", "kind": "allow_once"}]});
    let ask = |id: u64| json!({"send": {"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params}});
    let session = client.new_session_of(&[
        setup.record(),
        expect_prompt(),
        json!({"repeat": 3000, "send": {"jsonrpc": "2.0", "method": "session/update", "params":
            {"sessionId": "$SESSION", "update": {"sessionUpdate": "agent_message_chunk",
            "content": {"type": "text", "text": "x".repeat(1000)}}}}}),
        ask(100),
        json!({"expect": "_v/more"}),
        ask(101),
        json!({"expect_answer": 101}),
        end_turn(),
    ]);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let first = client.expect("session/request_permission");
    // The replay takes a while, and in it comes a second question.
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    let load = client.request("session/load", params);
    client.notify("_v/more", json!({"sessionId": session}));
    client.respond(
        &first,
        r#"{"outcome":{"outcome":"selected","optionId":"y"}}"#,
    );
    client.answer(load).unwrap();
    let second = client.expect("session/request_permission");
    client.respond(
        &second,
        r#"{"outcome":{"outcome":"selected","optionId":"y"}}"#,
    );
    assert_eq!(client.answer(turn).unwrap()["stopReason"], "end_turn");
    client.updates();
    let answers = setup.received();
    let answers = answers
        .iter()
        .filter(|line| line.contains("\"optionId\":\"y\""));
    assert_eq!(answers.count(), 2);
}
