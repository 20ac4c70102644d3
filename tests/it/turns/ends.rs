//! Turns that end because a process does: the agent, the client or acpbox.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SOON;
use crate::support::client::value;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn an_agent_that_ends_during_its_turn_ends_the_turn_with_the_reason() {
    let cases = [
        (json!({"exit": 0}), "exit code 0"),
        (json!({"exit": 3}), "exit code 3"),
        (json!({"signal": 9}), "killed by signal 9"),
        (json!({"signal": 6}), "killed by signal 6"),
    ];
    for (end, exit) in cases {
        let setup = Setup::new();
        let mut client = setup.connect();
        setup.script(&[
            expect_prompt(),
            chunk("partial"),
            json!({"stderr": "something broke"}),
            json!({"stderr": "badly"}),
            // Long enough for the second prompt to come and wait.
            json!({"sleep_ms": 150}),
            end,
        ]);
        let session = client.new_session();
        setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
        let start = Instant::now();
        let turn = client.request("session/prompt", prompt(&session, "go"));
        let queued = client.request("session/prompt", prompt(&session, "later"));
        let error = client.answer(turn).unwrap_err();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(error["code"], -32603);
        assert_eq!(error["message"], "the agent `testy` ended during the turn");
        assert_eq!(error["data"]["phase"], "turn");
        assert_eq!(error["data"]["exit"], exit);
        assert_eq!(error["data"]["stderr"], json!(["something broke", "badly"]));
        assert_eq!(
            error["data"]["hint"],
            format!("the transcript is kept; see `acpbox logs {session}`")
        );
        assert_eq!(client.answer(queued).unwrap_err()["data"]["exit"], exit);
        assert_eq!(client.texts(), ["partial"]);
        let events = client.events(&session);
        let of = |kind: &str| events.iter().find(|event| event["kind"] == kind).unwrap();
        assert_eq!(of("_acpbox/agent/exit")["message"]["params"]["exit"], exit);
        assert_eq!(
            of("_acpbox/turn/end")["message"]["params"]["reason"],
            "agent_exit"
        );
        assert_eq!(
            of("agent_message_chunk")["message"]["params"]["update"]["content"]["text"],
            "partial"
        );
        // The next prompt brings it back.
        let result = client.prompt(&session, "again").unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], "back");
        assert_eq!(client.texts(), ["back"]);
    }
}

#[test]
fn an_agent_that_closes_its_output_and_lives_on_is_ended() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        json!({"ignore_sigterm": true, "close_stdout": true}),
        json!({"hang": true}),
    ];
    let session = client.new_session_of(&steps);
    let start = Instant::now();
    let error = client.prompt(&session, "go").unwrap_err();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(error["message"], "the agent `inline` ended during the turn");
    client.check_next_session();
}

#[test]
fn a_client_that_asked_for_it_hears_of_stderr_and_exits() {
    let setup = Setup::new();
    let mut client = setup.start();
    client.initialize_offering(json!({"_meta": {"acpbox": {"agentNotifications": true}}}));
    let steps = [
        expect_prompt(),
        json!({"stderr": "last words"}),
        json!({"sleep_ms": 50}),
        json!({"exit": 4}),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap_err();
    let said = value(&client.expect("_acpbox/agent/stderr"));
    assert_eq!(
        said["params"],
        json!({"sessionId": session, "lines": ["last words"]})
    );
    let exit = value(&client.expect("_acpbox/agent/exit"));
    assert_eq!(exit["params"]["code"], 4);
    assert_eq!(exit["params"]["stderr"], json!(["last words"]));
}

#[test]
fn a_client_that_closes_its_side_still_gets_the_rest_of_the_turn() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let ask = r#"{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":"$SESSION"}}"#;
    let steps = [
        setup.record(),
        expect_prompt(),
        chunk("one"),
        json!({"sleep_ms": 300}),
        chunk("two"),
        json!({"send": ask}),
        json!({"expect_answer": 0}),
        chunk("three"),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    client.close_input();
    let result = client.answer(turn).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "onetwothree");
    assert_eq!(client.texts(), ["two", "three"]);
    assert!(client.wait_for_end(SOON).unwrap().success());
    // Nobody could be asked any more.
    let last = setup.received().pop().unwrap();
    assert_eq!(
        last,
        r#"{"jsonrpc":"2.0","id":0,"result":{"outcome":{"outcome":"cancelled"}}}"#
    );
}

#[test]
fn a_client_that_closes_both_sides_stops_everything() {
    let setup = Setup::new();
    let beat = setup.workspace().join("beat");
    let steps = [
        json!({"expect": "session/new"}),
        json!({"fork_daemon": beat}),
        json!({"ignore_sigterm": true}),
        json!({"hang": true}),
    ];
    setup.script(&steps);
    let mut child = setup
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let new = json!({"cwd": setup.workspace(), "mcpServers": []});
    let requests = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":1}}}}\n\
         {{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"session/new\",\"params\":{new}}}\n"
    );
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(requests.as_bytes())
        .unwrap();
    let has_begun = || std::fs::metadata(&beat).is_ok_and(|beat| beat.len() > 0);
    assert!(wait_until(has_begun));
    drop((child.stdin.take(), child.stdout.take()));
    let start = Instant::now();
    assert!(wait_until(|| child.try_wait().unwrap().is_some()));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // The VM took the agent and what it left behind with it.
    let beats = || std::fs::metadata(&beat).map_or(0, |it| it.len());
    let before = beats();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(beats(), before);
    assert!(before > 0);
}

#[test]
fn a_terminated_acpbox_ends_its_agents_and_tells_the_client() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session =
        client.new_session_of(&[expect_prompt(), chunk("started"), json!({"hang": true})]);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    let pid = rustix::process::Pid::from_child(&client.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(client.wait_for_end(SOON).is_some());
    let mut again = setup.connect();
    let kinds: Vec<Value> = again
        .events(&session)
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert_eq!(
        kinds[kinds.len() - 2..],
        ["_acpbox/turn/end", "session/prompt:error"],
        "{kinds:?}"
    );
    let _ = turn;
    client.take_rest();
}

#[test]
fn a_shell_pipe_gets_the_answers_to_all_that_it_sent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("before"), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "one").unwrap();
    client.texts();
    drop(client);
    let mut steps = Vec::new();
    for reply in ["two", "three", "four"] {
        steps.extend([expect_prompt(), chunk(reply), end_turn()]);
    }
    setup.script(&steps);
    let mut client = setup.start();
    client.request("initialize", json!({"protocolVersion": 1}));
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    let load = client.request("session/load", params);
    let turns =
        ["2", "3", "4"].map(|text| client.request("session/prompt", prompt(&session, text)));
    client.close_input();
    client.answer(1).unwrap();
    client.answer(load).unwrap();
    let replies = turns.map(|turn| client.answer(turn).unwrap()["_meta"]["acpbox"]["text"].clone());
    assert_eq!(replies, ["two", "three", "four"]);
    assert_eq!(client.texts(), ["one", "before", "two", "three", "four"]);
    assert!(client.wait_for_end(SOON).unwrap().success());
}
