//! Messages that are JSON and still wrong: each has its error, and the next
//! session works.

use serde_json::{Value, json};

use crate::support::client::{Client, outcome, raw_id};
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

mod answers;
mod floods;

#[track_caller]
fn check(client: &mut Client, line: &str, id: &str, code: i64, message: &str) {
    client.send(line);
    let error = outcome(&client.answer_line(id)).unwrap_err();
    assert_eq!(error["message"], message, "{line}");
    assert_eq!(error["code"], code, "{line}");
}

#[test]
fn envelopes_that_are_wrong_are_named() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let mut check = |line: &str, id: &str, message: &str| {
        check(
            &mut client,
            line,
            id,
            -32600,
            &format!("Invalid Request: {message}"),
        );
    };
    check(
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#,
        "null",
        "duplicate field `id` at line 1 column 28",
    );
    check(
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}"#,
        "null",
        "duplicate field `id` at line 1 column 33",
    );
    check(
        r#"{"jsonrpc":"2.0","method":"m","id":1,"method":"n"}"#,
        "null",
        "duplicate field `method` at line 1 column 45",
    );
    check(
        r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#,
        "null",
        "`id` must be a string, a number or null",
    );
    check(
        r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#,
        "null",
        "`id` must be a string, a number or null",
    );
    check(
        r#"{"jsonrpc":"2.0","id":3,"method":null}"#,
        "3",
        "`method` must be a string",
    );
    check(
        r#"{"jsonrpc":"2.0","id":4,"method":"m","params":"p"}"#,
        "4",
        "`params` must be an object or an array",
    );
    check(
        r#"{"jsonrpc":"2.0","params":{}}"#,
        "null",
        "the message has neither `method` nor `id`",
    );
    check(r#"{"id":5,"method":"m"}"#, "5", "`jsonrpc` must be \"2.0\"");
    check(
        r#"{"jsonrpc":2.0,"id":6,"method":"m"}"#,
        "6",
        "`jsonrpc` must be \"2.0\"",
    );
    check(
        r#"{"jsonrpc":"1.0","method":"m"}"#,
        "null",
        "`jsonrpc` must be \"2.0\"",
    );
    check(
        "\"text\"",
        "null",
        "invalid type: string \"text\", expected struct Envelope at line 1 column 6",
    );
    client.check_next_session();
}

#[test]
fn ids_of_every_spelling_are_answered_as_they_were_written() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session();
    let ids = [
        "null",
        "0",
        "1",
        "1.0",
        "1e0",
        "\"1\"",
        "\"\\u0031\"",
        "-0",
        "18446744073709551616",
        "1e400",
        "\"\"",
        "\"\\ud800\"",
        "123456789012345678901234567890.5",
    ];
    // All at once, so that those that look alike could be mistaken for each other.
    let methods = [
        "\"_acpbox/vm/list\"".to_owned(),
        format!("\"_v/relayed\",\"params\":{{\"sessionId\":\"{session}\"}}"),
        "\"session/list\",\"params\":{}".to_owned(),
        "\"initialize\",\"params\":{\"protocolVersion\":1}".to_owned(),
    ];
    for method in methods {
        for id in ids {
            client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":{method}}}"#
            ));
        }
        let mut answered: Vec<String> = ids.iter().map(|_| raw_id(&client.receive())).collect();
        let mut expected = ids.map(str::to_owned);
        answered.sort_unstable();
        expected.sort_unstable();
        assert_eq!(answered, expected);
    }
    client.check_next_session();
}

#[test]
fn nothing_is_served_before_initialize() {
    let setup = Setup::host();
    let mut client = setup.start();
    for method in [
        "session/new",
        "session/prompt",
        "session/list",
        "_acpbox/vm/list",
        "authenticate",
        "_v/m",
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}","params":{{}}}}"#);
        let message = format!(
            "Invalid Request: `{method}` came before `initialize`; send `initialize` first"
        );
        check(&mut client, &line, "\"x\"", -32600, &message);
    }
    client.notify("session/cancel", json!({"sessionId": "x"}));
    client.initialize();
    client.check_next_session();
}

#[test]
fn any_version_that_is_a_number_is_answered_with_ours() {
    let setup = Setup::host();
    let mut client = setup.start();
    let bad = [
        ("\"1\"", "\"1\""),
        ("1.5", "1.5"),
        ("-1", "-1"),
        ("65536", "65536"),
        ("null", "null"),
        ("[1]", "[1]"),
    ];
    for (version, shown) in bad {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":{version}}}}}"#
        );
        let message = format!(
            "Invalid params: `protocolVersion` must be a whole number such as 1; it is {shown}"
        );
        check(&mut client, &line, "1", -32602, &message);
    }
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let message =
        "Invalid params: `protocolVersion` must be a whole number such as 1; it is absent";
    check(&mut client, line, "1", -32602, message);
    for params in ["", ",\"params\":[]", ",\"params\":null"] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize"{params}}}"#);
        let message = "Invalid params: `params` must be an object with `protocolVersion`";
        check(&mut client, &line, "1", -32602, message);
    }
    // Not initialized yet.
    assert_eq!(
        client.call("session/list", json!({})).unwrap_err()["code"],
        -32600
    );
    client.kill();
    for version in [0, 1, 2, 65535] {
        let mut client = setup.start();
        let result = client
            .call("initialize", json!({"protocolVersion": version}))
            .unwrap();
        assert_eq!(result["protocolVersion"], 1);
        assert_eq!(result["agentInfo"]["name"], "acpbox");
        client.check_next_session();
    }
}

#[test]
fn a_guessed_session_is_unknown_to_every_method() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let real = client.new_session();
    let guess = "0190a000-0000-7000-8000-000000000000";
    for session in [guess, "", "../../etc/passwd", "testy-session", &real[..35]] {
        let message = format!(
            "Resource not found: there is no session `{session}`; session/list names those there are"
        );
        let cwd = setup.workspace();
        let mut check = |method: &str, params: Value| {
            let error = client.call(method, params).unwrap_err();
            assert_eq!(error["message"], message, "{method}");
            assert_eq!(error["code"], -32002, "{method}");
        };
        check("session/prompt", prompt(session, "x"));
        check(
            "session/load",
            json!({"sessionId": session, "cwd": cwd, "mcpServers": []}),
        );
        check(
            "session/resume",
            json!({"sessionId": session, "cwd": cwd, "mcpServers": []}),
        );
        check(
            "session/set_mode",
            json!({"sessionId": session, "modeId": "x"}),
        );
        check(
            "session/set_config_option",
            json!({"sessionId": session, "configId": "x", "value": "y"}),
        );
        check("session/close", json!({"sessionId": session}));
        check("session/delete", json!({"sessionId": session}));
        check("_v/unknown", json!({"sessionId": session}));
        check("_acpbox/session/events", json!({"sessionId": session}));
        check("_acpbox/agent/logs", json!({"sessionId": session}));
        client.notify("session/cancel", json!({"sessionId": session}));
        client.notify("_v/tell", json!({"sessionId": session}));
    }
    for method in [
        "session/prompt",
        "session/load",
        "session/resume",
        "session/set_mode",
        "session/close",
        "session/delete",
    ] {
        for params in [
            json!({}),
            json!({"sessionId": 7}),
            json!({"sessionId": null}),
            json!([]),
        ] {
            let error = client.call(method, params.clone()).unwrap_err();
            assert_eq!(
                error["message"], "Invalid params: `sessionId` is missing, a string",
                "{method} {params}"
            );
            assert_eq!(error["code"], -32602);
        }
    }
    client.prompt(&real, "still here?").unwrap();
}

#[test]
fn an_agent_cannot_speak_for_another_session() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let other = client.new_session_of(&[]);
    let steps = [
        expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": other,
            "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "spoof"}}}}}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    let update = client.updates().remove(0);
    assert_eq!(update["params"]["sessionId"], session.as_str(), "{update}");
    let events = client.events(&other);
    assert!(
        !events
            .iter()
            .any(|event| event.to_string().contains("spoof"))
    );
}
