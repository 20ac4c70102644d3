//! Prompts that find the session busy.

use serde_json::{Value, json};

use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// The params of a prompt with something in `_meta.acpbox`.
pub fn prompt_with(session: &str, text: &str, options: Value) -> Value {
    let mut params = prompt(session, text);
    params["_meta"] = json!({"acpbox": options});
    params
}

#[test]
fn a_prompt_that_does_not_want_to_wait_is_refused_while_a_turn_runs() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        setup.record(),
        expect_prompt(),
        chunk("begun"),
        json!({"expect": "_v/go_on"}),
        end_turn(),
    ]);
    let refuse = |text| prompt_with(&session, text, json!({"whenBusy": "refuse"}));
    // Nothing runs: it is taken.
    let first = client.request("session/prompt", refuse("one"));
    client.expect("session/update");
    let error = client.call("session/prompt", refuse("two")).unwrap_err();
    assert_eq!(error["message"], "a turn runs in this session already");
    assert_eq!(error["data"]["phase"], "turn");
    let waiting = prompt_with(&session, "three", json!({"whenBusy": "queue"}));
    let waiting = client.request("session/prompt", waiting);
    client.notify("_v/go_on", json!({"sessionId": session}));
    for turn in [first, waiting] {
        assert_eq!(client.answer(turn).unwrap()["stopReason"], "end_turn");
    }
    let received = setup.received();
    let prompts = received
        .iter()
        .filter(|line| line.contains("session/prompt"));
    let prompts: String = prompts.map(String::as_str).collect();
    assert!(prompts.contains("one") && prompts.contains("three") && !prompts.contains("two"));
    assert!(
        !prompts.contains("acpbox"),
        "what is meant for acpbox goes no further: {prompts}"
    );
}

#[test]
fn how_many_prompts_wait_is_configured() {
    let setup = Setup::host().limits("queued_prompts = 1");
    let mut client = setup.connect();
    let session =
        client.new_session_of(&[expect_prompt(), json!({"expect": "_v/go_on"}), end_turn()]);
    let turns = ["one", "two", "three"]
        .map(|text| client.request("session/prompt", prompt(&session, text)));
    let error = client.answer(turns[2]).unwrap_err();
    assert_eq!(error["message"], "1 prompts wait in this session already");
    client.notify("_v/go_on", json!({"sessionId": session}));
    client.answer(turns[0]).unwrap();
    client.answer(turns[1]).unwrap();
}

#[test]
fn wishes_that_acpbox_does_not_know_are_named() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[]);
    let cases = [
        (json!({"whenBussy": "queue"}), "whenBussy"),
        (json!({"whenBusy": "later"}), "later"),
        (json!({"idempotencyKey": 7}), "idempotencyKey"),
        (json!({"idempotencyKey": ""}), "1 to 255 bytes"),
        (json!({"idempotencyKey": "k".repeat(256)}), "1 to 255 bytes"),
        (json!(["queue"]), "_meta.acpbox"),
    ];
    for (options, words) in cases {
        let params = prompt_with(&session, "x", options.clone());
        let error = client.call("session/prompt", params).unwrap_err();
        let message = error["message"].as_str().unwrap();
        if words != "idempotencyKey" {
            assert!(message.contains(words), "{options}: {message}");
        }
        assert_eq!(error["code"], -32602, "{options}: {message}");
    }
    assert_eq!(client.events(&session).len(), 2, "none of them is an event");
}
