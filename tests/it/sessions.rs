//! Sessions after their first turn: listed, read, brought back, closed, deleted.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod list;
mod mounts;
mod replay;
mod restore;

/// Two turns with a user's and an agent's words each.
fn two_turns(setup: &Setup, client: &mut Client) -> String {
    setup.script(&[
        expect_prompt(),
        chunk("a1"),
        end_turn(),
        expect_prompt(),
        chunk("a2"),
        end_turn(),
    ]);
    let session = client.new_session();
    client.prompt(&session, "u1").unwrap();
    client.prompt(&session, "u2").unwrap();
    assert_eq!(client.texts(), ["a1", "a2"]);
    session
}

/// Kind, text and number of the updates that came already.
fn replayed(client: &mut Client) -> Vec<(String, String, i64)> {
    let of = |update: &Value| {
        let params = &update["params"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&params["update"]["sessionUpdate"]),
            text(&params["update"]["content"]["text"]),
            params["_meta"]["acpbox"]["seq"].as_i64().unwrap(),
        )
    };
    client.updates().iter().map(of).collect()
}

fn reconnect(client: &mut Client, method: &str, session: &str, options: Value) -> Value {
    let mut params = client.new_params();
    params["sessionId"] = session.into();
    params["_meta"] = json!({"acpbox": options});
    client.call(method, params).unwrap()
}

#[test]
fn a_load_replays_all_in_order_before_its_answer() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = two_turns(&setup, &mut client);
    let numbers: Vec<i64> = client
        .events(&session)
        .iter()
        .filter(|event| {
            ["session/prompt", "agent_message_chunk"].contains(&event["kind"].as_str().unwrap())
        })
        .map(|event| event["seq"].as_i64().unwrap())
        .collect();
    let kinds = [
        "user_message_chunk",
        "agent_message_chunk",
        "user_message_chunk",
        "agent_message_chunk",
    ];
    let expected: Vec<_> = kinds
        .into_iter()
        .zip(["u1", "a1", "u2", "a2"])
        .zip(numbers)
        .map(|((kind, text), seq)| (kind.to_owned(), text.to_owned(), seq))
        .collect();
    // Live in this process.
    let result = reconnect(&mut client, "session/load", &session, json!({}));
    assert_eq!(result["_meta"]["acpbox"]["restored"]["tier"], "attach");
    assert_eq!(replayed(&mut client), expected);
    let after = expected[1].2;
    reconnect(
        &mut client,
        "session/load",
        &session,
        json!({"after": after}),
    );
    assert_eq!(replayed(&mut client), expected[2..]);
    reconnect(
        &mut client,
        "session/load",
        &session,
        json!({"after": 1_000_000}),
    );
    assert_eq!(replayed(&mut client), []);
    drop(client);
    // In another process, with another agent.
    let mut client = setup.connect();
    let result = reconnect(&mut client, "session/load", &session, json!({}));
    assert_eq!(result["_meta"]["acpbox"]["restored"]["tier"], "new");
    assert_eq!(replayed(&mut client), expected);
    setup.script(&[]);
    let last = result["_meta"]["acpbox"]["lastSeq"].as_i64().unwrap();
    let turn = client.prompt(&session, "u3").unwrap();
    assert!(turn["_meta"]["acpbox"]["lastSeq"].as_i64().unwrap() > last);
    client.updates();
}

#[test]
fn a_resume_replays_nothing_and_goes_on() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = two_turns(&setup, &mut client);
    drop(client);
    let mut client = setup.connect();
    let result = reconnect(&mut client, "session/resume", &session, json!({}));
    assert_eq!(result["_meta"]["acpbox"]["agent"], "testy");
    assert!(client.updates().is_empty());
    assert_eq!(
        client.prompt(&session, "u3").unwrap()["_meta"]["acpbox"]["text"],
        "a1"
    );
    client.updates();
}

#[test]
fn a_session_that_is_live_elsewhere_is_refused_and_can_still_be_read() {
    let setup = Setup::new();
    let mut first = setup.connect();
    let session = two_turns(&setup, &mut first);
    let mut second = setup.connect();
    let mut params = second.new_params();
    params["sessionId"] = session.as_str().into();
    for method in [
        "session/load",
        "session/resume",
        "session/prompt",
        "session/delete",
    ] {
        let error = second.call(method, params.clone()).unwrap_err();
        assert_eq!(
            error["message"],
            format!(
                "the session `{session}` is live in another acpbox process ({})",
                first.child.id()
            ),
            "{method}"
        );
        assert_eq!(
            error["data"]["hint"],
            "end that one first; its transcript can be read meanwhile"
        );
    }
    assert_eq!(second.events(&session), first.events(&session));
    drop(first);
    reconnect(&mut second, "session/resume", &session, json!({}));
}

#[test]
fn events_come_in_pages_of_some_kinds() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = two_turns(&setup, &mut client);
    let mut page = |options: Value| {
        let mut params = options;
        params["sessionId"] = session.as_str().into();
        let result = client.call("_acpbox/session/events", params).unwrap();
        let events = result["events"].as_array().unwrap().iter();
        (
            events
                .map(|event| event["seq"].as_i64().unwrap())
                .collect::<Vec<_>>(),
            result["lastSeq"].as_i64().unwrap(),
        )
    };
    let all: Vec<i64> = (1..=8).collect();
    assert_eq!(page(json!({})), (all.clone(), 8));
    assert_eq!(page(json!({"limit": 3})), (vec![1, 2, 3], 8));
    assert_eq!(page(json!({"after": 3, "limit": 2})), (vec![4, 5], 8));
    assert_eq!(page(json!({"before": 8, "limit": 2})), (vec![6, 7], 8));
    assert_eq!(page(json!({"after": 2, "before": 5})), (vec![3, 4], 8));
    assert_eq!(
        page(json!({"kinds": ["agent_message_chunk"]})),
        (vec![4, 7], 8)
    );
    assert_eq!(
        page(json!({"kinds": ["session/prompt", "session/prompt:result"]})),
        (vec![3, 5, 6, 8], 8)
    );
    assert_eq!(page(json!({"kinds": ["none"]})), (vec![], 8));
    let mut refused = |options: Value, message: &str| {
        let mut params = options;
        params["sessionId"] = session.as_str().into();
        let error = client.call("_acpbox/session/events", params).unwrap_err();
        assert_eq!(error["code"], -32602);
        assert!(
            error["message"].as_str().unwrap().starts_with(message),
            "{error}"
        );
    };
    refused(
        json!({"limit": 0}),
        "Invalid params: `limit` must be from 1 to 10000, not 0",
    );
    refused(
        json!({"limit": 10_001}),
        "Invalid params: `limit` must be from 1 to 10000, not 10001",
    );
    refused(
        json!({"limit": -1}),
        "Invalid params: invalid value: integer `-1`",
    );
    refused(json!({"kind": "x"}), "Invalid params: unknown field `kind`");
    let error = client
        .call("_acpbox/session/events", json!({}))
        .unwrap_err();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("Invalid params: missing field `sessionId`")
    );
    let error = client.call("_acpbox/no/such", json!({})).unwrap_err();
    assert_eq!(error["code"], -32601);
}

#[test]
fn a_closed_session_is_kept_and_comes_back_with_a_prompt() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = two_turns(&setup, &mut client);
    let before = client.events(&session).len();
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    let list = client.call("session/list", json!({})).unwrap();
    assert_eq!(list["sessions"][0]["_meta"]["acpbox"]["state"], "closed");
    assert_eq!(list["sessions"][0]["title"], "u1");
    assert!(client.events(&session).len() >= before);
    assert_eq!(
        client.prompt(&session, "u3").unwrap()["_meta"]["acpbox"]["text"],
        "a1"
    );
    let list = client.call("session/list", json!({})).unwrap();
    assert_eq!(list["sessions"][0]["_meta"]["acpbox"]["state"], "live");
    client.updates();
}

#[test]
fn a_closed_session_ends_its_turn_with_the_reason() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        json!({"ignore_sigterm": true}),
        chunk("x"),
        json!({"hang": true}),
    ]);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    assert_eq!(
        client.answer(turn).unwrap_err()["message"],
        "the session was closed"
    );
}

#[test]
fn a_deleted_session_leaves_nothing() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        expect_prompt(),
        chunk("deleted-canary-of-the-agent"),
        json!({"stderr": "deleted-canary-on-stderr"}),
        end_turn(),
    ]);
    let session = client.new_session();
    client
        .prompt(&session, "deleted-canary-of-the-user")
        .unwrap();
    client.updates();
    let result = client
        .call("session/delete", json!({"sessionId": session}))
        .unwrap();
    assert!(
        result["_meta"]["acpbox"]["removed"]["events"]
            .as_u64()
            .unwrap()
            >= 5
    );
    assert_eq!(
        client.call("session/list", json!({})).unwrap(),
        json!({"sessions": []})
    );
    for method in [
        "session/delete",
        "session/close",
        "session/prompt",
        "_acpbox/session/events",
        "_acpbox/agent/logs",
    ] {
        assert_eq!(
            client
                .call(method, json!({"sessionId": session}))
                .unwrap_err()["code"],
            -32002,
            "{method}"
        );
    }
    drop(client);
    for entry in std::fs::read_dir(setup.state()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains("deleted-canary"),
            "{}",
            entry.path().display()
        );
    }
}

#[test]
fn an_agent_that_wants_a_login_is_kept_until_it_had_one() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let methods = json!([{"id": "key", "name": "A key"}, {"id": "tty", "name": "Terminal", "type": "terminal"}]);
    setup.script(&[
        setup.record(),
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": {"promptCapabilities": {"image": true}}, "authMethods": methods}}),
        json!({"expect": "session/new"}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32000,"message":"log in first"}}"#}),
        json!({"expect": "authenticate"}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"token":1.0}}"#}),
    ]);
    let params = client.new_params();
    let error = client.call("session/new", params.clone()).unwrap_err();
    assert_eq!(error["code"], -32000);
    assert_eq!(error["message"], "log in first");
    let id = client.request("authenticate", json!({"methodId": "key"}));
    let answer = client.answer_line(&id.to_string());
    assert_eq!(
        answer,
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"token":1.0}}}}"#)
    );
    let session = client.call("session/new", params).unwrap();
    client
        .prompt(session["sessionId"].as_str().unwrap(), "go")
        .unwrap();
    // One agent, not two.
    let begun = setup
        .received()
        .iter()
        .filter(|line| line.contains("\"initialize\""))
        .count();
    assert_eq!(begun, 1);
    drop(client);
    // What the agent said is known to the next client at once, but for what would run on the host.
    let mut client = setup.start();
    let said = client.initialize();
    assert_eq!(said["authMethods"], json!([{"id": "key", "name": "A key"}]));
    assert_eq!(
        said["agentCapabilities"]["promptCapabilities"],
        json!({"image": true})
    );
    assert_eq!(said["agentCapabilities"]["loadSession"], true);
}

#[test]
fn a_login_before_any_session_starts_the_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        json!({"on": "authenticate", "result": {}}),
        json!({"on": "logout", "error": {"code": -7, "message": "no"}}),
    ]);
    assert_eq!(
        client
            .call("authenticate", json!({"methodId": "x"}))
            .unwrap(),
        json!({})
    );
    assert_eq!(
        client.call("logout", json!({})).unwrap_err(),
        json!({"code": -7, "message": "no"})
    );
}
