//! What a replay makes of turns that did not end as they should.

use serde_json::{Value, json};

use super::reconnect;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

fn update(update: Value) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": update}}})
}

fn tool(id: &str, status: &str) -> Value {
    update(json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": id, "status": status}))
}

fn statuses(updates: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    updates
        .iter()
        .map(|update| &update["params"]["update"])
        .filter(|update| update["status"].is_string())
        .map(|update| (text(&update["toolCallId"]), text(&update["status"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(id, status): &(&str, &str)| ((*id).to_owned(), (*status).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn tool_calls_of_a_crashed_turn_are_replayed_as_failed() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        expect_prompt(),
        tool("done", "in_progress"),
        update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "done", "status": "completed"})),
        tool("open", "in_progress"),
        tool("waiting", "pending"),
        json!({"exit": 1}),
    ]);
    let session = client.new_session();
    client.prompt(&session, "go").unwrap_err();
    let live = statuses(&client.updates());
    let after = client.events(&session);
    let seen = after
        .iter()
        .filter(|event| event["kind"] == "tool_call")
        .map(|event| event["seq"].as_i64().unwrap())
        .max()
        .unwrap();
    setup.script(&[]);
    let mut client = setup.connect();
    reconnect(&mut client, "session/load", &session, json!({}));
    let ended = pairs(&[("open", "failed"), ("waiting", "failed")]);
    let mut expected = live;
    expected.extend(ended.clone());
    assert_eq!(statuses(&client.updates()), expected);
    // A client that saw all of them hears of the end too.
    reconnect(
        &mut client,
        "session/load",
        &session,
        json!({"after": seen}),
    );
    assert_eq!(statuses(&client.updates()), ended);
    let last = client.events(&session).len();
    reconnect(
        &mut client,
        "session/load",
        &session,
        json!({"after": last}),
    );
    assert_eq!(client.updates(), Vec::<Value>::new());
}

#[test]
fn a_tool_call_that_outlives_its_turn_stays_open_while_its_agent_lives() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[expect_prompt(), tool("t", "in_progress"), end_turn()]);
    client.prompt(&session, "go").unwrap();
    client.updates();
    reconnect(&mut client, "session/load", &session, json!({}));
    assert_eq!(statuses(&client.updates()), pairs(&[("t", "in_progress")]));
}

#[test]
fn a_prompt_that_the_agent_echoes_is_replayed_once() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let echo = |text: &str| {
        update(
            json!({"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": text}}),
        )
    };
    let session = client.new_session_of(&[
        expect_prompt(),
        echo("go"),
        echo("not yours"),
        chunk("a"),
        end_turn(),
    ]);
    client.prompt(&session, "go").unwrap();
    client.updates();
    reconnect(&mut client, "session/load", &session, json!({}));
    assert_eq!(client.texts(), ["go", "not yours", "a"]);
}

#[test]
fn an_update_keeps_every_byte_but_its_number() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let raw = |inside: &str| json!({"raw": format!("{}\n", inside)});
    let updates = [
        r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"testy-session","update":{"sessionUpdate":"agent_message_chunk","n":1.0e400,"content":{"type":"text","text":"\ud800 \"_meta\" é"}}}}"#,
        r#"{"jsonrpc":"2.0","method":"session/update","params":{ "_meta" : {"x":1},"sessionId":"testy-session","update":{"sessionUpdate":"new_kind"}}}"#,
        r#"{ "method":"session\/update", "params":{"update":{"sessionUpdate":"plan","entries":[]},"sessionId":"testy-session"},"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","method":"session/update","params":{}}"#,
    ];
    let mut steps = vec![expect_prompt()];
    steps.extend(updates.map(raw));
    steps.push(end_turn());
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    let live = client.take("session/update");
    assert_eq!(live.len(), updates.len());
    reconnect(&mut client, "session/load", &session, json!({}));
    let mut replayed = client.take("session/update");
    replayed.remove(0);
    assert_eq!(replayed, live);
}
