//! Terminals that tool calls show: clients see what they printed.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{end_turn, expect_prompt};

fn update(update: Value) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": update}}})
}

fn request(id: u64, method: &str, mut params: Value) -> [Value; 2] {
    params["sessionId"] = "$SESSION".into();
    [
        json!({"send": {"jsonrpc": "2.0", "id": id, "method": method, "params": params}}),
        json!({"expect_answer": id}),
    ]
}

fn shows(terminal: &str) -> Value {
    json!([{"type": "terminal", "terminalId": terminal}])
}

/// The texts that the tool call shows, update by update.
fn shown(updates: &[Value], tool: &str) -> Vec<String> {
    let of = |update: &Value| {
        let update = &update["params"]["update"];
        if update["toolCallId"] != tool || update["content"].is_null() {
            return None;
        }
        assert_eq!(update["content"][0]["type"], "content", "{update}");
        let text = update["content"][0]["content"]["text"].as_str().unwrap();
        Some(text.to_owned())
    };
    updates.iter().filter_map(of).collect()
}

fn turn(setup: &Setup, client: &mut Client, steps: Vec<Value>) -> (String, Vec<Value>) {
    let mut script = vec![setup.record(), expect_prompt()];
    script.extend(steps);
    script.push(end_turn());
    setup.script(&script);
    let session = client.new_session();
    client.prompt(&session, "go").unwrap();
    (session, client.updates())
}

#[test]
fn a_tool_call_shows_what_its_terminal_printed_live_and_replayed() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut steps = Vec::new();
    steps.extend(request(
        0,
        "terminal/create",
        json!({"command": "echo first; read line < go; echo second; exit 3"}),
    ));
    steps.push(update(json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "run", "status": "in_progress", "content": shows("term_1")})));
    // Ids that are not acpbox's stay: they are the agent's own affair.
    steps.push(update(json!({"sessionUpdate": "tool_call", "toolCallId": "u", "title": "theirs", "content": shows("u")})));
    steps.extend(request(
        1,
        "terminal/create",
        json!({"command": "sleep 0.2; echo x > go"}),
    ));
    steps.extend(request(
        2,
        "terminal/wait_for_exit",
        json!({"terminalId": "term_1"}),
    ));
    steps.extend(request(
        3,
        "terminal/release",
        json!({"terminalId": "term_1"}),
    ));
    steps.push(update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed", "content": shows("term_1")})));
    let status = std::process::Command::new("mkfifo")
        .arg(setup.workspace().join("go"))
        .status()
        .unwrap();
    assert!(status.success());
    let (session, live) = turn(&setup, &mut client, steps);
    let last = "```console\nfirst\nsecond\n```\nexit code 3";
    let texts = shown(&live, "t");
    assert_eq!(texts.last().unwrap(), last);
    assert!(texts[0].starts_with("```console\n"), "{texts:?}");
    let theirs = live
        .iter()
        .find(|update| update["params"]["update"]["toolCallId"] == "u")
        .unwrap();
    assert_eq!(theirs["params"]["update"]["content"], shows("u"));
    drop(client);
    setup.script(&[]);

    let mut client = setup.connect();
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    client.call("session/load", params).unwrap();
    let replayed = client.updates();
    assert_eq!(shown(&replayed, "t"), texts);
}

#[test]
fn a_terminal_that_runs_on_is_shown_as_it_prints_and_at_the_agents_end() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut steps = Vec::new();
    steps.extend(request(
        0,
        "terminal/create",
        json!({"command": "echo one; sleep 0.3; echo two; sleep 600"}),
    ));
    steps.push(update(json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "run", "content": shows("term_1")})));
    let (session, mut updates) = turn(&setup, &mut client, steps);
    let both = "```console\none\ntwo\n```";
    // Nothing but time brings it: the agent says no more.
    assert!(wait_until(|| {
        updates.extend(client.updates());
        client.call("_acpbox/vm/list", json!({})).unwrap();
        shown(&updates, "t").last().is_some_and(|text| text == both)
    }));
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    client.updates();
    setup.script(&[]);
    client.call("session/load", params).unwrap();
    let replayed = client.updates();
    assert!(
        shown(&replayed, "t")
            .last()
            .unwrap()
            .starts_with("```console\none\ntwo\n```")
    );
    let states: Vec<&str> = replayed
        .iter()
        .filter_map(|update| update["params"]["update"]["status"].as_str())
        .collect();
    assert_eq!(
        states,
        ["failed"],
        "its agent is gone, so nobody will end it"
    );
}
