//! Turns: how they run, queue, are cancelled, and how they end when the agent does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::value;
use crate::support::scripted::script;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod crashes;
mod ends;
mod repeats;
pub(crate) mod starts;
mod stuck;
mod waiting;

/// A dead agent ends its turn within this.
pub(crate) const SOON: Duration = Duration::from_secs(2);

#[test]
fn the_result_of_a_turn_carries_the_whole_reply_and_its_number() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let thought = json!({"send": {"method": "session/update", "params": {"sessionId": "$SESSION",
        "update": {"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "hm"}}}}});
    let image = json!({"send": {"method": "session/update", "params": {"sessionId": "$SESSION",
        "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "image", "data": "", "mimeType": "image/png"}}}}});
    let result = r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"end_turn","usage":{"n":1.0},"_meta":{"theirs":null}}}"#;
    let steps = [
        chunk("before any prompt"),
        expect_prompt(),
        chunk("grün "),
        thought,
        image,
        chunk("und \u{1f600}"),
        json!({"send": result}),
        expect_prompt(),
        chunk("second"),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32000,"message":"no","data":[1.0]}}"#}),
        expect_prompt(),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"refusal"}}"#}),
    ];
    let session = client.new_session_of(&steps);
    let first = client.prompt(&session, "one").unwrap();
    let meta = &first["_meta"]["acpbox"];
    assert_eq!(meta["text"], "grün und \u{1f600}");
    assert_eq!(first["_meta"]["theirs"], Value::Null);
    assert_eq!(first["usage"]["n"].to_string(), "1.0");
    let events = client.events(&session);
    assert_eq!(meta["lastSeq"], events.last().unwrap()["seq"]);
    assert_eq!(events.last().unwrap()["kind"], "session/prompt:result");
    assert_eq!(
        client.texts(),
        ["before any prompt", "grün ", "hm", "", "und \u{1f600}"]
    );
    let error = client.prompt(&session, "two").unwrap_err();
    assert_eq!(
        error,
        json!({"code": -32000, "message": "no", "data": [1.0]})
    );
    assert_eq!(client.texts(), ["second"]);
    // Nothing of the turn before is left.
    let third = client.prompt(&session, "three").unwrap();
    assert_eq!(third["_meta"]["acpbox"]["text"], "");
    assert_eq!(third["stopReason"], "refusal");
}

#[test]
fn prompts_that_come_during_a_turn_wait_in_order() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut steps = vec![
        setup.record(),
        expect_prompt(),
        json!({"sleep_ms": 200}),
        end_turn(),
    ];
    for name in ["two", "three", "four"] {
        steps.extend([expect_prompt(), chunk(name), end_turn()]);
    }
    let session = client.new_session_of(&steps);
    let turns = ["one", "two", "three", "four"]
        .map(|text| client.request("session/prompt", prompt(&session, text)));
    let replies = turns.map(|turn| client.answer(turn).unwrap()["_meta"]["acpbox"]["text"].clone());
    assert_eq!(replies, ["", "two", "three", "four"]);
    client.take("session/update");
    let prompts: Vec<Value> = setup.received().iter().map(|line| value(line)).collect();
    let texts: Vec<_> = prompts
        .iter()
        .filter(|line| line["method"] == "session/prompt")
        .map(|line| line["params"]["prompt"][0]["text"].clone())
        .collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
}

#[test]
fn only_so_many_prompts_wait() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        json!({"expect": "session/cancel"}),
        end_turn(),
    ]);
    let turns: Vec<u64> = (0..34)
        .map(|_| client.request("session/prompt", prompt(&session, "x")))
        .collect();
    let error = client.answer(turns[33]).unwrap_err();
    assert_eq!(error["message"], "32 prompts wait in this session already");
    assert_eq!(
        error["data"]["hint"],
        "wait for a turn to end, or cancel it"
    );
    client.notify("session/cancel", json!({"sessionId": session}));
    assert_eq!(client.answer(turns[0]).unwrap()["stopReason"], "end_turn");
    for turn in &turns[1..33] {
        assert_eq!(client.answer(*turn).unwrap()["stopReason"], "cancelled");
    }
}

#[test]
fn a_cancelled_turn_ends_as_the_agent_says() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        chunk("partial"),
        json!({"expect": "session/cancel"}),
        chunk(" output"),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ];
    // After a notification was expected `$ID` is still the prompt's.
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    let queued = client.request("session/prompt", prompt(&session, "later"));
    client.notify("session/cancel", json!({"sessionId": session}));
    let result = client.answer(turn).unwrap();
    assert_eq!(result["stopReason"], "cancelled");
    assert_eq!(result["_meta"]["acpbox"]["text"], "partial output");
    assert_eq!(client.answer(queued).unwrap()["stopReason"], "cancelled");
    assert_eq!(client.texts(), [" output"]);
    assert_eq!(
        client.prompt(&session, "again").unwrap()["stopReason"],
        "end_turn"
    );
}

#[test]
fn a_turn_whose_agent_ignores_the_cancel_ends_after_the_grace_period() {
    let setup = Setup::new().limits("cancel_grace = \"400ms\"");
    let mut client = setup.connect();
    let late = r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"end_turn","late":true}}"#;
    let steps = [
        expect_prompt(),
        chunk("partial"),
        json!({"expect": "_v/now"}),
        json!({"send": late}),
        chunk("after"),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    let start = Instant::now();
    client.notify("session/cancel", json!({"sessionId": session}));
    client.notify("session/cancel", json!({"sessionId": session}));
    let result = client.answer(turn).unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(390),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < SOON);
    assert_eq!(result["stopReason"], "cancelled");
    assert_eq!(result["_meta"]["acpbox"]["text"], "partial");
    // Only now the agent answers: stored, but no second answer.
    client.notify("_v/now", json!({"sessionId": session}));
    client.expect("session/update");
    assert!(client.is_quiet(Duration::from_millis(100)));
    let events = client.raw_events(&session);
    assert!(
        events
            .iter()
            .any(|(kind, raw)| kind == "session/prompt:late" && raw.contains("\"late\":true"))
    );
    let (_, end) = events
        .iter()
        .find(|(kind, _)| kind == "_acpbox/turn/end")
        .unwrap();
    assert_eq!(value(end)["params"]["reason"], "cancel_timeout");
    assert_eq!(
        client.prompt(&session, "next").unwrap()["stopReason"],
        "end_turn"
    );
}

#[test]
fn updates_before_the_session_is_known_come_right_after_its_announcement() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        json!({"expect": "session/new"}),
        chunk("one"),
        chunk("two"),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"testy-session"}}"#}),
        chunk("three"),
    ];
    let mut params = client.new_params();
    params["_meta"] =
        json!({"acpbox": {"agent": "inline", "env": {"TESTY_SCRIPT": script(&steps)}}});
    let id = client.request("session/new", params);
    let first = value(&client.receive());
    assert_eq!(first["id"], id);
    let session = first["result"]["sessionId"].as_str().unwrap();
    for text in ["one", "two", "three"] {
        let update = value(&client.receive());
        assert_eq!(update["params"]["sessionId"], session);
        assert_eq!(update["params"]["update"]["content"]["text"], text);
    }
    let kinds: Vec<Value> = client
        .events(session)
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    let chunk = "agent_message_chunk";
    assert_eq!(kinds[..3], ["session/new", chunk, chunk]);
    // What came in one piece with the answer may be numbered before it.
    assert!(
        kinds[3..].contains(&json!("session/new:result")) && kinds[3..].contains(&json!(chunk))
    );
}

#[test]
fn a_waiting_prompt_can_be_given_up_by_its_id() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        json!({"expect": "_v/go_on"}),
        end_turn(),
        expect_prompt(),
        chunk("third"),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turns = ["one", "two", "three"]
        .map(|text| client.request("session/prompt", prompt(&session, text)));
    client.notify("$/cancel_request", json!({"requestId": turns[1]}));
    let error = client.answer(turns[1]).unwrap_err();
    assert_eq!(error["code"], -32800);
    client.notify("_v/go_on", json!({"sessionId": session}));
    // `$ID` is of the message that was expected last, and a notification has none.
    client.answer(turns[0]).unwrap();
    assert_eq!(
        client.answer(turns[2]).unwrap()["_meta"]["acpbox"]["text"],
        "third"
    );
    client.take("session/update");
}
