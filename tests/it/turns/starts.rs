//! Agents that do not get as far as a session.

use std::time::Instant;

use serde_json::{Value, json};

use super::SOON;
use crate::support::setup::{Setup, wait_until};

/// The error of `session/new` when the agent does this.
fn failed_start(setup: &Setup, steps: &[Value]) -> Value {
    let mut client = setup.connect();
    setup.script(steps);
    let params = client.new_params();
    let start = Instant::now();
    let error = client.call("session/new", params).unwrap_err();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(
        client.call("session/list", json!({})).unwrap(),
        json!({"sessions": []})
    );
    client.check_next_session();
    error
}

#[test]
fn an_agent_that_never_answers_initialize_is_given_up() {
    let setup = Setup::new().limits("initialize_timeout = \"1s\"");
    let steps = [
        json!({"expect": "initialize"}),
        json!({"stderr": "thinking"}),
        json!({"hang": true}),
    ];
    let error = failed_start(&setup, &steps);
    assert_eq!(
        error["message"],
        "the agent `testy` did not answer `initialize` within 1 s"
    );
    assert_eq!(error["data"]["phase"], "initialize");
    assert_eq!(error["data"]["stderr"], json!(["thinking"]));
}

#[test]
fn an_agent_that_never_answers_session_new_is_given_up() {
    let setup = Setup::new().limits("session_timeout = \"1s\"");
    let error = failed_start(
        &setup,
        &[json!({"expect": "session/new"}), json!({"hang": true})],
    );
    assert_eq!(
        error["message"],
        "the agent `testy` did not answer `session/new` within 1 s"
    );
    assert_eq!(error["data"]["phase"], "session");
}

#[test]
fn an_agent_that_prints_garbage_and_leaves_is_named() {
    let setup = Setup::new();
    let steps = [
        json!({"raw": "Usage: testy [OPTIONS]\n"}),
        json!({"stderr": "no such option"}),
        json!({"exit": 0}),
    ];
    let error = failed_start(&setup, &steps);
    assert_eq!(
        error["message"],
        "the agent `testy` ended before its session began"
    );
    assert_eq!(error["data"]["phase"], "initialize");
    assert_eq!(error["data"]["exit"], "exit code 0");
    assert_eq!(error["data"]["stderr"], json!(["no such option"]));
}

#[test]
fn an_agent_that_floods_before_its_session_begins_is_ended() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        json!({"expect": "session/new"}),
        json!({"repeat": 10_000_000, "raw": "{\"method\":\"_v/x\"}\n"}),
        json!({"hang": true}),
    ]);
    let params = client.new_params();
    let error = client.call("session/new", params).unwrap_err();
    let message = "the agent `testy` sent more than 16777216 bytes before its session began";
    assert_eq!(error["message"], message);
    assert!(
        client.peak_memory() < 100 * 1024,
        "{} KiB",
        client.peak_memory()
    );
    client.check_next_session();
}

#[test]
fn an_agent_of_another_protocol_version_is_named() {
    let setup = Setup::new();
    let result = json!({"protocolVersion": 2});
    let error = failed_start(&setup, &[json!({"on": "initialize", "result": result})]);
    assert_eq!(
        error["message"],
        "the agent `testy` speaks ACP version 2, acpbox version 1"
    );
    assert_eq!(error["data"]["phase"], "initialize");
    assert_eq!(
        error["data"]["hint"],
        "use a version of the agent that speaks ACP 1"
    );
}

#[test]
fn an_agent_that_refuses_to_initialize_or_begin_is_quoted() {
    let setup = Setup::new();
    let no = json!({"code": -32603, "message": "no license"});
    let error = failed_start(&setup, &[json!({"on": "initialize", "error": no})]);
    assert_eq!(
        error["message"],
        "the agent `testy` refused to initialize: {\"code\":-32603,\"message\":\"no license\"}"
    );
    let setup = Setup::new();
    let no = json!({"code": -32099, "message": "no folder", "data": [1.0]});
    let error = failed_start(&setup, &[json!({"on": "session/new", "error": no})]);
    assert_eq!(error, no);
    let setup = Setup::new();
    let error = failed_start(&setup, &[json!({"on": "session/new", "result": {"id": 1}})]);
    assert_eq!(
        error["message"],
        "the agent `testy` answered session/new without a `sessionId`"
    );
}

#[test]
fn an_agent_that_is_not_installed_is_named() {
    let setup = Setup::new().config("[agents.ghost]\ncommand = \"ghost-of-an-agent\"");
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["_meta"] = json!({"acpbox": {"agent": "ghost"}});
    let error = client.call("session/new", params.clone()).unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("agent `ghost`: `ghost-of-an-agent` was not found on PATH"),
        "{message}"
    );
    assert_eq!(error["data"]["phase"], "spawn");
    params["_meta"] = json!({"acpbox": {"agent": "testi"}});
    let error = client.call("session/new", params).unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("testi") && message.contains("testy"),
        "{message}"
    );
    assert_eq!(error["code"], -32602);
    client.check_next_session();
}

#[test]
fn a_cancelled_session_new_leaves_no_agent_behind() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let beat = setup.workspace().join("beat");
    setup.script(&[
        json!({"stderr": "up"}),
        json!({"record": beat}),
        json!({"expect": "session/new"}),
        json!({"hang": true}),
    ]);
    let params = client.new_params();
    let id = client.request("session/new", params);
    let is_up = || std::fs::read_to_string(&beat).is_ok_and(|text| text.contains("session/new"));
    assert!(wait_until(is_up));
    let agents = || agents_of(&setup);
    assert_eq!(agents(), 1);
    client.notify("$/cancel_request", json!({"requestId": id}));
    let error = client.answer(id).unwrap_err();
    assert_eq!(error["code"], -32800);
    assert_eq!(error["message"], "Request cancelled: `session/new`");
    assert!(wait_until(|| agents() == 0), "{} agents are left", agents());
    client.check_next_session();
}

/// Processes of the agent `testy` on the host.
pub(crate) fn agents_of(setup: &Setup) -> usize {
    let script = setup.workspace().join(".testy").display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_agent = |entry: &std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).ends_with(&format!("{script}\0"))
    };
    processes.filter(is_agent).count()
}
