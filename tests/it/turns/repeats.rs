//! Prompts that come again with the same `idempotencyKey`: nothing runs twice.

use serde_json::{Value, json};

use super::waiting::prompt_with;
use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

fn keyed(session: &str, text: &str, key: &str) -> Value {
    prompt_with(session, text, json!({"idempotencyKey": key}))
}

fn prompts_received(setup: &Setup) -> usize {
    let received = setup.received();
    let prompts = received
        .iter()
        .filter(|line| line.contains("session/prompt"));
    prompts.count()
}

fn prompts_stored(client: &mut Client, session: &str) -> usize {
    let events = client.events(session);
    events
        .iter()
        .filter(|event| event["kind"] == "session/prompt")
        .count()
}

#[test]
fn a_prompt_that_comes_again_during_its_turn_gets_the_same_answer() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk("one "),
        json!({"expect": "_v/go_on"}),
        chunk("two"),
        end_turn(),
        expect_prompt(),
        chunk("three"),
        end_turn(),
    ]);
    let session = client.new_session();
    let first = client.request("session/prompt", keyed(&session, "a", "key a"));
    client.expect("session/update");
    let waiting = client.request("session/prompt", keyed(&session, "b", "key b"));
    let again = client.request("session/prompt", keyed(&session, "a", "key a"));
    let waiting_again = client.request("session/prompt", keyed(&session, "b", "key b"));
    client.notify("_v/go_on", json!({"sessionId": session}));
    // `$ID` is the prompt's: a notification has none.
    let result = client.answer(first).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "one two");
    assert_eq!(client.answer(again).unwrap(), result);
    let result = client.answer(waiting).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "three");
    assert_eq!(client.answer(waiting_again).unwrap(), result);
    assert_eq!(client.texts(), ["two", "three"]);
    assert_eq!(prompts_received(&setup), 2);
    assert_eq!(prompts_stored(&mut client, &session), 2);
}

#[test]
fn a_prompt_that_comes_again_later_gets_the_stored_result_without_an_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let result = r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"max_tokens","n":1.0,"_meta":{"theirs":1}}}"#;
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk("before"),
        end_turn(),
        expect_prompt(),
        chunk("the "),
        chunk("reply"),
        json!({"send": result}),
    ]);
    let session = client.new_session();
    client.prompt(&session, "another").unwrap();
    let first = client
        .call("session/prompt", keyed(&session, "a", "k"))
        .unwrap();
    client.texts();
    let mut expected = first.clone();
    expected["_meta"]["acpbox"]["repeated"] = true.into();
    assert_eq!(expected["_meta"]["acpbox"]["text"], "the reply");
    let again = client.call("session/prompt", keyed(&session, "a", "k"));
    assert_eq!(again.unwrap(), expected);
    drop(client);
    // In another process no agent is started for it: this one would not start.
    setup.script(&[json!({"exit": 9})]);
    let mut client = setup.connect();
    let again = client.call("session/prompt", keyed(&session, "a", "k"));
    assert_eq!(again.unwrap(), expected);
    // The same words written otherwise are the same prompt.
    let spaced = format!(
        r#"{{"jsonrpc":"2.0","id":99,"method":"session/prompt","params":{{"sessionId":"{session}","prompt":[ {{"text":"\u0061","type":"text"}} ],"_meta":{{"acpbox":{{"idempotencyKey":"k"}}}}}}}}"#
    );
    client.send(&spaced);
    assert_eq!(client.answer(99).unwrap(), expected);
    assert_eq!(prompts_received(&setup), 2);
    assert_eq!(prompts_stored(&mut client, &session), 2);
    let error = client
        .call("session/prompt", keyed(&session, "b", "k"))
        .unwrap_err();
    assert_eq!(error["code"], -32602);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("idempotencyKey"),
        "{error}"
    );
}

#[test]
fn a_prompt_whose_acpbox_was_killed_is_not_run_twice() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk("begun"),
        json!({"hang": true}),
    ]);
    let session = client.new_session();
    client.request("session/prompt", keyed(&session, "a", "k"));
    client.request("session/prompt", keyed(&session, "b", "waits"));
    client.expect("session/update");
    // The second one is stored once the third is refused.
    client
        .call("session/prompt", keyed(&session, "c", "k"))
        .unwrap_err();
    client.kill();
    setup.script(&[setup.record(), expect_prompt(), chunk("anew"), end_turn()]);
    let mut client = setup.connect();
    for _ in 0..2 {
        let error = client
            .call("session/prompt", keyed(&session, "a", "k"))
            .unwrap_err();
        assert_eq!(error["message"], "acpbox was killed during the turn");
        assert_eq!(error["data"]["phase"], "turn");
        let hint = error["data"]["hint"].as_str().unwrap();
        assert!(hint.contains("a new idempotencyKey"), "{hint}");
    }
    let error = client
        .call("session/prompt", keyed(&session, "b", "waits"))
        .unwrap_err();
    assert_eq!(
        error["message"],
        "acpbox was killed before the prompt's turn had begun"
    );
    assert_eq!(prompts_received(&setup), 1);
    let result = client
        .call("session/prompt", keyed(&session, "a", "k2"))
        .unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "anew");
    assert_eq!(client.texts(), ["anew"]);
}

#[test]
fn a_prompt_whose_agent_died_gets_the_same_error_again() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[setup.record(), expect_prompt(), json!({"exit": 3})]);
    let session = client.new_session();
    let error = client
        .call("session/prompt", keyed(&session, "a", "k"))
        .unwrap_err();
    assert_eq!(error["data"]["exit"], "exit code 3");
    let again = client
        .call("session/prompt", keyed(&session, "a", "k"))
        .unwrap_err();
    assert_eq!(again["message"], error["message"]);
    assert_eq!(again["data"]["exit"], "exit code 3");
    assert!(
        again["data"]["hint"]
            .as_str()
            .unwrap()
            .contains("a new idempotencyKey")
    );
    assert_eq!(prompts_received(&setup), 1);
}

#[test]
fn a_prompt_that_was_refused_for_being_early_may_come_again() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        chunk("begun"),
        json!({"expect": "_v/go_on"}),
        end_turn(),
    ]);
    let first = client.request("session/prompt", prompt(&session, "one"));
    client.expect("session/update");
    let options = json!({"idempotencyKey": "k", "whenBusy": "refuse"});
    let second = prompt_with(&session, "two", options);
    client.call("session/prompt", second.clone()).unwrap_err();
    client.notify("_v/go_on", json!({"sessionId": session}));
    client.answer(first).unwrap();
    let result = client.call("session/prompt", second).unwrap();
    assert_eq!(result["_meta"]["acpbox"].get("repeated"), None);
}

#[test]
fn a_deleted_session_takes_its_keys_along() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[]);
    client
        .call("session/prompt", keyed(&session, "a", "canary-key"))
        .unwrap();
    client
        .call("session/delete", json!({"sessionId": session}))
        .unwrap();
    drop(client);
    let file = std::fs::read(setup.state().join("acpbox.db")).unwrap();
    let canary = b"canary-key";
    assert!(!file.windows(canary.len()).any(|window| window == canary));
}

#[test]
fn only_so_many_wait_for_the_same_prompt() {
    let setup = Setup::host().limits("pending_requests = 4");
    let mut client = setup.connect();
    setup.script(&[
        expect_prompt(),
        chunk("one"),
        json!({"expect": "_v/go_on"}),
        end_turn(),
    ]);
    let session = client.new_session();
    let first = client.request("session/prompt", keyed(&session, "a", "k"));
    client.expect("session/update");
    let again: Vec<u64> = (0..6)
        .map(|_| client.request("session/prompt", keyed(&session, "a", "k")))
        .collect();
    for id in &again[4..] {
        let error = client.answer(*id).unwrap_err();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("too many requests wait"), "{message}");
    }
    client.notify("_v/go_on", json!({"sessionId": session}));
    for id in [first].iter().chain(&again[..4]) {
        client.answer(*id).unwrap();
    }
}
