//! Mode, model and config options after a session came back.

use serde_json::{Value, json};

use super::{load, of_all, restored, sent};
use crate::support::client::Client;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt};

fn modes(current: &str) -> Value {
    let mode = |id: &str| json!({"id": id, "name": id});
    json!({"currentModeId": current, "availableModes": [mode("ask"), mode("code")]})
}

fn select(id: &str, category: &str, current: &str, values: &[&str]) -> Value {
    let value = |value: &&str| json!({"value": value, "name": value});
    json!({"type": "select", "id": id, "name": id, "category": category,
        "currentValue": current, "options": values.iter().map(value).collect::<Vec<_>>()})
}

/// The options of a model; the small one knows no high thought level.
fn options(model: &str, level: &str, fast: bool) -> Value {
    let levels: &[&str] = if model == "large" {
        &["low", "high"]
    } else {
        &["low"]
    };
    json!([
        select("level", "thought_level", level, levels),
        {"type": "boolean", "id": "fast", "name": "fast", "currentValue": fast},
        select("model", "model", model, &["small", "large"]),
    ])
}

fn answer_set(result: &Value) -> [Value; 2] {
    let line = json!({"jsonrpc": "2.0", "id": "$ID", "result": result}).to_string();
    let line = line.replace("\"$ID\"", "$ID");
    [
        json!({"expect": "session/set_config_option"}),
        json!({"send": line}),
    ]
}

/// A session that was set to everything but its defaults, and whose acpbox has ended.
fn changed(setup: &Setup) -> String {
    let begin = json!({"sessionId": "testy-session", "modes": modes("ask"),
        "configOptions": options("small", "low", false)});
    let announced = json!({"jsonrpc": "2.0", "method": "session/update", "params": {
        "sessionId": "$SESSION", "update": {"sessionUpdate": "current_mode_update", "currentModeId": "code"}}});
    let set = [
        answer_set(&json!({"configOptions": options("large", "low", false)})),
        answer_set(&json!({"configOptions": options("large", "high", false)})),
        answer_set(&json!({"configOptions": options("large", "high", true)})),
    ];
    let turn = [
        expect_prompt(),
        json!({"send": announced}),
        chunk("a1"),
        end_turn(),
    ];
    let steps = [
        vec![json!({"on": "session/new", "result": begin})],
        set.concat(),
        turn.to_vec(),
    ];
    setup.script(&steps.concat());
    let mut client = setup.connect();
    let session = client.new_session();
    for (id, value) in [
        ("model", json!("large")),
        ("level", json!("high")),
        ("fast", json!(true)),
    ] {
        let params = json!({"sessionId": session, "configId": id, "value": value});
        client.call("session/set_config_option", params).unwrap();
    }
    client.prompt(&session, "u1").unwrap();
    client.updates();
    session
}

fn settings(result: &Value) -> Vec<Value> {
    let option = |id: &str| {
        let options = result["configOptions"].as_array().unwrap();
        options.iter().find(|option| option["id"] == id).unwrap()["currentValue"].clone()
    };
    vec![
        result["modes"]["currentModeId"].clone(),
        option("model"),
        option("level"),
        option("fast"),
    ]
}

fn as_it_was(client: &mut Client, session: &str) -> Value {
    let loaded = load(client, session).unwrap();
    assert_eq!(
        settings(&loaded),
        [json!("code"), json!("large"), json!("high"), json!(true)]
    );
    loaded
}

#[test]
fn what_the_agent_forgot_is_set_again_in_an_order_that_works() {
    let setup = Setup::new();
    let session = changed(&setup);
    let result = json!({"modes": modes("ask"), "configOptions": options("small", "low", false)});
    let set = [
        answer_set(&json!({"configOptions": options("large", "low", false)})),
        answer_set(&json!({"configOptions": options("large", "low", true)})),
        answer_set(&json!({"configOptions": options("large", "high", true)})),
    ];
    let steps = [
        vec![
            setup.record(),
            of_all(),
            json!({"on": "session/resume", "result": result}),
            json!({"on": "session/set_mode", "result": {}}),
        ],
        set.concat(),
    ];
    setup.script(&steps.concat());
    let mut client = setup.connect();
    let loaded = as_it_was(&mut client, &session);
    assert_eq!(
        restored(&loaded)["putBack"],
        json!(["model", "fast", "level", "mode"])
    );
    assert_eq!(restored(&loaded)["tier"], "resume");
    assert!(restored(&loaded)["reasons"].is_null());
    let asked = sent(&setup, "session/set_config_option");
    assert_eq!(
        asked[1],
        json!({"sessionId": "testy-session", "configId": "fast", "value": true, "type": "boolean"})
    );
    drop(client);
    // An agent that remembers is left alone.
    let result = json!({"modes": modes("code"), "configOptions": options("large", "high", true)});
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": result}),
    ]);
    let mut client = setup.connect();
    let loaded = as_it_was(&mut client, &session);
    assert!(restored(&loaded)["putBack"].is_null());
    assert_eq!(sent(&setup, "session/set_config_option").len(), 3);
    assert_eq!(sent(&setup, "session/set_mode").len(), 1);
}

#[test]
fn a_kill_while_a_session_is_begun_anew_leaves_the_agent_its_own() {
    let setup = Setup::host();
    let session = changed(&setup);
    // Its own session cannot be had for now; the new one is lost with its process.
    setup.script(&[
        setup.record(),
        json!({"on": "session/new", "result": {"sessionId": "another", "modes": modes("ask")}}),
        json!({"expect": "session/set_mode"}),
        json!({"sleep_ms": 500}),
        json!({"exit": 5}),
    ]);
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    client.request("session/resume", params);
    assert!(wait_until(|| !sent(&setup, "session/set_mode").is_empty()));
    setup.script(&[
        setup.record(),
        json!({"expect": "session/new"}),
        json!({"hang": true}),
    ]);
    assert!(wait_until(|| sent(&setup, "session/new").len() == 2));
    std::fs::write(setup.path().join("killed"), "").unwrap();
    client.child.kill().unwrap();
    drop(client);

    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": {}}),
    ]);
    let mut client = setup.connect();
    let loaded = load(&mut client, &session).unwrap();
    assert_eq!(restored(&loaded)["tier"], "resume", "{loaded}");
    let resumed = sent(&setup, "session/resume").pop().unwrap();
    assert_eq!(resumed["sessionId"], "testy-session");
}

#[test]
fn what_is_not_offered_any_more_or_fails_is_a_reason_and_not_tried_again() {
    let setup = Setup::new();
    let session = changed(&setup);
    let options = json!([select("model", "model", "tiny", &["tiny"])]);
    let result = json!({"modes": modes("ask"), "configOptions": options});
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": result}),
        json!({"on": "session/set_mode", "error": {"code": 1, "message": "not now"}}),
    ]);
    let mut client = setup.connect();
    let loaded = load(&mut client, &session).unwrap();
    assert_eq!(loaded["modes"]["currentModeId"], "ask");
    assert_eq!(loaded["configOptions"], options);
    let reasons = restored(&loaded)["reasons"].as_array().unwrap();
    let has = |words: &str| {
        reasons
            .iter()
            .any(|reason| reason.as_str().unwrap().contains(words))
    };
    assert!(
        has("the option `model` does not offer `large` any more"),
        "{reasons:?}"
    );
    assert!(
        has("the option `level` is not offered any more"),
        "{reasons:?}"
    );
    assert!(
        has("`mode` could not be put back to `code`: {\"code\":1"),
        "{reasons:?}"
    );
    assert!(sent(&setup, "session/set_config_option").is_empty());
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    let loaded = load(&mut client, &session).unwrap();
    assert!(
        restored(&loaded)["reasons"].is_null(),
        "what it is now is what it was"
    );
    assert_eq!(
        restored(&loaded)["settings"],
        json!({"mode": "ask", "configOptions": {"model": "tiny"}})
    );
}

#[test]
fn an_agent_that_dies_of_a_setting_comes_back_without_it() {
    let setup = Setup::new();
    let session = changed(&setup);
    let result = json!({"modes": modes("ask")});
    setup.script(&[
        of_all(),
        json!({"on": "session/resume", "result": result}),
        json!({"on": "session/set_config_option", "result": {}}),
        json!({"expect": "session/set_mode"}),
        json!({"exit": 3}),
    ]);
    let mut client = setup.connect();
    let loaded = load(&mut client, &session).unwrap();
    assert_eq!(restored(&loaded)["tier"], "resume");
    let reasons = restored(&loaded)["reasons"].to_string();
    assert!(
        reasons.contains("its settings could not be put back"),
        "{reasons}"
    );
    client.prompt(&session, "u2").unwrap();
}

#[test]
fn settings_are_put_back_in_a_new_session_too() {
    let setup = Setup::new();
    let session = changed(&setup);
    let result = json!({"sessionId": "another", "modes": modes("ask")});
    setup.script(&[
        setup.record(),
        json!({"on": "session/new", "result": result}),
        json!({"on": "session/set_mode", "result": {}}),
    ]);
    let mut client = setup.connect();
    // By a prompt alone.
    client.prompt(&session, "u2").unwrap();
    let set = sent(&setup, "session/set_mode");
    assert_eq!(set, [json!({"modeId": "code", "sessionId": "another"})]);
    // This agent knows no options any more: one is tried.
    assert_eq!(sent(&setup, "session/set_config_option").len(), 1);
    let events = client.events(&session);
    let note = events
        .iter()
        .rev()
        .find(|event| event["kind"] == "_acpbox/session/restored")
        .unwrap();
    assert_eq!(note["message"]["params"]["putBack"], json!(["mode"]));
}
