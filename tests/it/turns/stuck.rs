//! Agents that do not stop when their turn is cancelled.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SOON;
use super::waiting::prompt_with;
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

const GRACE: &str = "cancel_grace = \"200ms\"\nstop_grace = \"400ms\"";

fn update(update: Value) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": update}}})
}

fn request(id: u64, method: &str, params: Value) -> [Value; 2] {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    [json!({"send": request}), json!({"expect_answer": id})]
}

#[test]
fn what_comes_after_the_forced_end_is_stored_and_shown_to_nobody() {
    let setup = Setup::new().limits("cancel_grace = \"200ms\"\nstop_grace = \"20s\"");
    let mut client = setup.connect();
    let permission = json!({"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"},
        "options": [{"optionId": "y", "name": "Yes", "kind": "allow_once"}]});
    let file = json!({"sessionId": "$SESSION", "path": "$CWD/.testy"});
    let command = json!({"sessionId": "$SESSION", "command": "true"});
    let mut steps = vec![
        setup.record(),
        expect_prompt(),
        chunk("partial"),
        json!({"expect": "_v/late"}),
        chunk("late"),
        update(json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "late"})),
        update(json!({"sessionUpdate": "current_mode_update", "currentModeId": "m"})),
    ];
    // The answer to `session/prompt` needs its id: `$ID` is kept over these.
    steps.extend(request(100, "session/request_permission", permission));
    steps.extend(request(101, "fs/read_text_file", file));
    steps.extend(request(102, "terminal/create", command));
    steps.extend([
        json!({"send": {"jsonrpc": "2.0", "method": "_v/done", "params": {"sessionId": "$SESSION"}}}),
        json!({"expect": "_v/now"}),
        end_turn(),
        expect_prompt(),
        chunk("second"),
        end_turn(),
    ]);
    setup.script(&steps);
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    client.notify("session/cancel", json!({"sessionId": session}));
    let result = client.answer(turn).unwrap();
    assert_eq!(result["stopReason"], "cancelled");
    assert_eq!(result["_meta"]["acpbox"]["text"], "partial");
    let next = client.request("session/prompt", prompt(&session, "next"));
    let refuse = prompt_with(&session, "now", json!({"whenBusy": "refuse"}));
    client.call("session/prompt", refuse).unwrap_err();
    client.notify("_v/late", json!({"sessionId": session}));
    client.expect("_v/done");
    let shown = client.updates();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["params"]["update"]["currentModeId"], "m");
    let is_prompt = |line: &&String| line.contains("session/prompt");
    assert_eq!(
        setup.received().iter().filter(is_prompt).count(),
        1,
        "the next one waits"
    );
    client.notify("_v/now", json!({"sessionId": session}));
    let result = client.answer(next).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "second");
    assert_eq!(client.texts(), ["second"]);
    let answers: Vec<Value> = (setup.received().iter().map(|line| value(line)))
        .filter(|line| line.get("method").is_none())
        .collect();
    assert_eq!(answers[0]["result"]["outcome"]["outcome"], "cancelled");
    assert_eq!(answers[1]["error"]["message"], "the turn was cancelled");
    assert_eq!(answers[2]["error"]["message"], "the turn was cancelled");
    let events = client.events(&session);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    for kind in [
        "agent_message_chunk:late",
        "tool_call:late",
        "session/prompt:late",
    ] {
        assert_eq!(
            kinds.iter().filter(|known| **known == kind).count(),
            1,
            "{kind}: {kinds:?}"
        );
    }
    // Nor does a replay show it.
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    client.call("session/load", params).unwrap();
    let shown = client.texts();
    assert_eq!(shown, ["go", "partial", "now", "", "next", "second"]);
}

#[test]
fn an_agent_that_does_not_stop_is_started_anew_for_the_prompts_that_wait() {
    for stuck in [json!({"hang": true}), json!({"stop": true})] {
        let setup = Setup::new().limits(GRACE);
        let mut client = setup.start();
        client.initialize_offering(json!({"_meta": {"acpbox": {"agentNotifications": true}}}));
        setup.script(&[setup.record(), expect_prompt(), chunk("partial"), stuck]);
        let session = client.new_session();
        let turn = client.request("session/prompt", prompt(&session, "go"));
        client.expect("session/update");
        let start = Instant::now();
        client.notify("session/cancel", json!({"sessionId": session}));
        assert_eq!(client.answer(turn).unwrap()["stopReason"], "cancelled");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let mut steps = vec![setup.record()];
        for reply in ["two", "three"] {
            steps.extend([expect_prompt(), chunk(reply), end_turn()]);
        }
        setup.script(&steps);
        let turns =
            ["next", "last"].map(|text| client.request("session/prompt", prompt(&session, text)));
        let given_up = client.request("session/prompt", prompt(&session, "given up"));
        client.notify("$/cancel_request", json!({"requestId": given_up}));
        assert_eq!(client.answer(given_up).unwrap_err()["code"], -32800);
        let replies =
            turns.map(|turn| client.answer(turn).unwrap()["_meta"]["acpbox"]["text"].clone());
        assert_eq!(replies, ["two", "three"]);
        assert!(start.elapsed() < 2 * SOON, "{:?}", start.elapsed());
        assert_eq!(client.texts(), ["two", "three"]);
        let exit = value(&client.expect("_acpbox/agent/exit"));
        let reason = "the agent `testy` was ended: it did not stop within 400ms after its cancelled turn had ended";
        assert_eq!(exit["params"]["reason"], reason);
        let events = client.events(&session);
        let prompts = events
            .iter()
            .filter(|event| event["kind"] == "session/prompt");
        assert_eq!(prompts.count(), 4, "none is recorded twice");
        assert!(
            events
                .iter()
                .any(|event| event["kind"] == "_acpbox/session/restored")
        );
    }
}

#[test]
fn prompts_that_wait_for_an_agent_which_cannot_be_started_are_told() {
    let setup = Setup::new().limits(GRACE);
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("partial"), json!({"hang": true})]);
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    client.notify("session/cancel", json!({"sessionId": session}));
    client.answer(turn).unwrap();
    setup.script(&[json!({"stderr": "no license"}), json!({"exit": 5})]);
    let turns =
        ["next", "last"].map(|text| client.request("session/prompt", prompt(&session, text)));
    for turn in turns {
        let error = client.answer(turn).unwrap_err();
        assert_eq!(error["data"]["exit"], "exit code 5", "{error}");
    }
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    let result = client.prompt(&session, "again").unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "back");
    assert_eq!(client.texts(), ["back"]);
}

#[test]
fn a_stopped_agent_keeps_its_prompt_waiting_until_it_is_cancelled() {
    let setup = Setup::new().limits(GRACE);
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), json!({"stop": true})]);
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "go"));
    assert!(
        client.is_quiet(Duration::from_millis(800)),
        "time alone ends no turn"
    );
    // Prompts that wait go with the cancelled turn, since they came before it.
    let waiting = client.request("session/prompt", prompt(&session, "later"));
    client.notify("session/cancel", json!({"sessionId": session}));
    for turn in [turn, waiting] {
        assert_eq!(client.answer(turn).unwrap()["stopReason"], "cancelled");
    }
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    let result = client.prompt(&session, "again").unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "back");
    assert_eq!(client.texts(), ["back"]);
}
