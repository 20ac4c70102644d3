//! Two things that meet at one session: a fork and a prompt, a close and another
//! process, a prompt that waits and a deletion.

use std::time::Duration;

use serde_json::{Value, json};

use super::stored_session;
use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// The step of an agent that can resume and fork sessions.
pub(super) fn capable() -> Value {
    let capabilities = json!({"sessionCapabilities": {"resume": {}, "fork": {}}});
    json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

pub(super) fn resumes() -> Value {
    json!({"on": "session/resume", "result": {}})
}

pub(super) fn params_of(client: &Client, session: &str) -> Value {
    let mut params = client.new_params();
    params["sessionId"] = session.into();
    params
}

#[test]
fn a_prompt_to_a_session_that_is_being_forked_waits_for_the_fork() {
    let setup = Setup::host();
    let steps = [
        capable(),
        resumes(),
        json!({"on": "session/prompt", "result": {"stopReason": "end_turn"}}),
        json!({"expect": "session/fork"}),
        json!({"sleep_ms": 1000}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"forked"}}"#}),
    ];
    let session = stored_session(&setup, &steps);
    let mut client = setup.connect();
    let params = params_of(&client, &session);
    let fork = client.request("session/fork", params);
    std::thread::sleep(Duration::from_millis(400));
    let turn = client.request("session/prompt", prompt(&session, "u2"));
    client.answer(turn).unwrap();
    let forked = client.answer(fork).unwrap();
    assert_eq!(forked["_meta"]["acpbox"]["restored"]["tier"], "fork");
}

#[test]
fn a_session_that_went_on_in_another_acpbox_cannot_be_closed_here() {
    let setup = Setup::host();
    let mut here = setup.connect();
    setup.script(&[expect_prompt(), json!({"exit": 3})]);
    let session = here.new_session();
    here.prompt(&session, "u1").unwrap_err();
    setup.script(&[
        capable(),
        resumes(),
        expect_prompt(),
        chunk("a2"),
        end_turn(),
    ]);
    let mut there = setup.connect();
    let params = params_of(&there, &session);
    there.call("session/resume", params).unwrap();
    let closed = here.call("session/close", json!({"sessionId": session}));
    let message = closed.unwrap_err()["message"].to_string();
    assert!(
        message.contains("live in another acpbox process"),
        "{message}"
    );
    there.prompt(&session, "u2").unwrap();
    there.updates();
}

#[test]
fn values_that_an_agent_lacks_are_named_each_time_that_it_comes_back() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["mcpServers"] = json!([{"name": "tools", "command": "/bin/true", "args": [],
        "env": [{"name": "KEY", "value": "secret"}]}]);
    let created = client.call("session/new", params).unwrap();
    let session = created["sessionId"].as_str().unwrap().to_owned();
    client.prompt(&session, "u1").unwrap();
    drop(client);
    setup.script(&[capable(), resumes(), expect_prompt(), json!({"exit": 3})]);
    let mut client = setup.connect();
    client.prompt(&session, "u2").unwrap_err();
    client.prompt(&session, "u3").unwrap_err();
    let events = client.events(&session);
    let missing: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "_acpbox/session/restored")
        .map(|event| &event["message"]["params"]["missing"])
        .collect();
    let key = json!(["mcpServers/tools/env/KEY"]);
    assert_eq!(missing, [&key, &key], "{events:#?}");
}

#[test]
fn a_prompt_that_waits_while_its_session_is_deleted_leaves_nothing() {
    let setup = Setup::host().limits("cancel_grace = \"200ms\"\nstop_grace = \"700ms\"");
    let capabilities = json!({"sessionCapabilities": {"delete": {}}});
    let mut client = setup.connect();
    setup.script(&[
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
        expect_prompt(),
        json!({"hang": true}),
    ]);
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "u1"));
    std::thread::sleep(Duration::from_millis(100));
    client.notify("session/cancel", json!({"sessionId": session}));
    client.answer(turn).unwrap();
    let waiting = client.request("session/prompt", prompt(&session, "u2"));
    std::thread::sleep(Duration::from_millis(100));
    let deleted = client.call("session/delete", json!({"sessionId": session}));
    deleted.unwrap();
    let error = client.answer(waiting).unwrap_err();
    assert!(error["message"].is_string(), "{error}");
    drop(client);
    let database = rusqlite::Connection::open(setup.state().join("acpbox.db")).unwrap();
    for table in ["events", "turns"] {
        let query = format!("SELECT count(*) FROM {table}");
        let count: i64 = database.query_row(&query, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
}
