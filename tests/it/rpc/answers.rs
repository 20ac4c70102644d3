//! Answers that are wrong, late or to nobody.

use serde_json::json;

use crate::support::client::{raw_id, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn answers_that_nobody_waits_for_are_let_go() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"session/request_permission","params":{"sessionId":"$SESSION","options":[{"optionId":"first","name":"1","kind":"allow_once"},{"optionId":"second","name":"2","kind":"allow_always"}]}}"#;
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"send": ask}),
        json!({"expect_answer": 1}),
        json!({"expect": "_v/go_on"}),
        // The agent answers what nobody asked, and its prompt twice.
        json!({"send": {"jsonrpc": "2.0", "id": 4711, "result": {}}}),
        json!({"send": {"jsonrpc": "2.0", "id": "1", "result": {}}}),
        json!({"send": {"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "what?"}}}),
        json!({"expect": "session/prompt"}),
        end_turn(),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = client.expect("session/request_permission");
    client.send(r#"{"jsonrpc":"2.0","id":4711,"result":{}}"#);
    client.send(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}"#);
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":"{}","result":{{}}}}"#,
        raw_id(&asked)
    ));
    client.respond(
        &asked,
        r#"{"outcome":{"outcome":"selected","optionId":"first"}}"#,
    );
    client.respond(
        &asked,
        r#"{"outcome":{"outcome":"selected","optionId":"second"}}"#,
    );
    client.notify("_v/go_on", json!({"sessionId": session}));
    // Its prompt was never answered by name: a second one waits behind it.
    client.notify("session/cancel", json!({"sessionId": session}));
    let received = || setup.received().join("\n");
    assert!(wait_until(|| received().contains("session/cancel")));
    assert!(received().contains("\"first\"") && !received().contains("\"second\""));
    assert!(!received().contains("4711") && !received().contains("what?"));
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    assert_eq!(
        client.answer(turn).unwrap_err()["message"],
        "the session was closed"
    );
    client.check_next_session();
}

#[test]
fn a_second_answer_of_the_agents_is_let_go() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        end_turn(),
        end_turn(),
        expect_prompt(),
        chunk("two"),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "one").unwrap();
    let result = client.prompt(&session, "two").unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "two");
    assert_eq!(client.texts(), ["two"]);
}

#[test]
fn an_answer_with_both_result_and_error_is_an_error_to_who_waits() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let ask = r#"{"jsonrpc":"2.0","id":"q","method":"session/request_permission","params":{"sessionId":"$SESSION"}}"#;
    let both = r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"end_turn"},"error":{"code":1,"message":"m"}}"#;
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"send": ask}),
        json!({"expect_answer": "q"}),
        json!({"send": both}),
        expect_prompt(),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID}"#}),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = raw_id(&client.expect("session/request_permission"));
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":{asked},"result":{{}},"error":{{"code":1,"message":"m"}}}}"#
    ));
    let error = client.answer(turn).unwrap_err();
    assert_eq!(
        error["message"],
        "the agent's answer is not JSON-RPC: Invalid Request: the response has both `result` and `error`"
    );
    assert_eq!(error["code"], -32603);
    let received = setup.received();
    let answer = value(received.last().unwrap());
    assert_eq!(
        answer,
        json!({"jsonrpc": "2.0", "id": "q", "error": {"code": -32600,
        "message": "Invalid Request: the response has both `result` and `error`"}})
    );
    let error = client.prompt(&session, "again").unwrap_err();
    assert_eq!(
        error["message"],
        "the agent's answer is not JSON-RPC: Invalid Request: the message has neither `method` nor `result` nor `error`"
    );
    client.check_next_session();
}
