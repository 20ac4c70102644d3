//! How an agent gets its conversation back.

use serde_json::{Value, json};

use super::{reconnect, replayed};
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

fn capable(capabilities: Value) -> Value {
    json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

/// Runs one turn, starts acpbox anew with this script, and resumes.
fn resumed(steps: &[Value]) -> (Setup, Value, Vec<String>, Vec<Value>) {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "u1").unwrap();
    client.updates();
    drop(client);
    let mut script = vec![setup.record()];
    script.extend_from_slice(steps);
    setup.script(&script);
    let mut client = setup.connect();
    let result = reconnect(&mut client, "session/load", &session, json!({}));
    let shown: Vec<String> = replayed(&mut client)
        .into_iter()
        .map(|(_, text, _)| text)
        .collect();
    // Whatever else the agent sends right behind its answer has come by now.
    client.prompt(&session, "u2").unwrap();
    let mut texts = shown;
    texts.extend(client.texts());
    let events = client.events(&session);
    (setup, result, texts, events)
}

/// A replay, the answer, and something new in one write.
fn replay_then_answer() -> Value {
    let update = |text: &str| {
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "testy-session",
            "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}}})
    };
    let answer = r#"{"jsonrpc":"2.0","id":$ID,"result":{"modes":{"currentModeId":"m","availableModes":[]}}}"#;
    json!({"raw": format!("{}\n{answer}\n{}\n", update("replayed by the agent"), update("new"))})
}

#[test]
fn an_agent_that_can_load_does_and_its_own_replay_is_swallowed() {
    let steps = [
        capable(json!({"loadSession": true})),
        json!({"expect": "session/load"}),
        replay_then_answer(),
    ];
    let (setup, result, texts, events) = resumed(&steps);
    assert_eq!(
        result["_meta"]["acpbox"]["restored"],
        json!({"tier": "load", "reasons": ["the agent does not offer session/resume"],
            "agentSession": "testy-session", "settings": {"mode": "m"}})
    );
    assert_eq!(result["modes"]["currentModeId"], "m");
    let texts: Vec<_> = texts.iter().filter(|text| *text != "new").collect();
    assert_eq!(texts, ["u1", "a1"]);
    let stored = events.iter().map(Value::to_string).collect::<String>();
    assert!(!stored.contains("replayed by the agent"));
    assert!(
        stored.contains("\"text\":\"new\""),
        "what follows the answer is kept"
    );
    let load = setup
        .received()
        .iter()
        .map(|line| value(line))
        .find(|line| line["method"] == "session/load");
    let load = load.unwrap();
    assert_eq!(load["params"]["sessionId"], "testy-session");
    assert_eq!(load["params"]["cwd"], json!(setup.workspace()));
    assert_eq!(load["params"]["mcpServers"], json!([]));
}

#[test]
fn an_agent_that_can_resume_is_not_made_to_load() {
    let steps = [
        capable(json!({"loadSession": true, "sessionCapabilities": {"resume": {}}})),
        json!({"expect": "session/resume"}),
        replay_then_answer(),
    ];
    let (_, result, texts, _) = resumed(&steps);
    assert_eq!(
        result["_meta"]["acpbox"]["restored"],
        json!({"tier": "resume", "agentSession": "testy-session", "settings": {"mode": "m"}})
    );
    assert!(!texts.contains(&"replayed by the agent".to_owned()));
}

#[test]
fn an_agent_whose_load_fails_gets_a_new_session_and_the_reason_is_told() {
    let error = json!({"code": -32002, "message": "gone"});
    let steps = [
        capable(json!({"loadSession": true})),
        json!({"on": "session/load", "error": error}),
        json!({"on": "session/new", "result": {"sessionId": "another"}}),
    ];
    let (setup, result, texts, events) = resumed(&steps);
    let restored = &result["_meta"]["acpbox"]["restored"];
    assert_eq!(restored["tier"], "new");
    assert_eq!(
        restored["reasons"][1],
        "session/load failed: {\"code\":-32002,\"message\":\"gone\"}"
    );
    assert_eq!(texts, ["u1", "a1"]);
    let note = events
        .iter()
        .find(|event| event["kind"] == "_acpbox/session/restored")
        .unwrap();
    assert_eq!(note["message"]["params"], *restored);
    let prompt = value(setup.received().last().unwrap());
    assert_eq!(prompt["params"]["sessionId"], "another");
}

#[test]
fn an_agent_that_dies_while_it_is_brought_back_leaves_the_transcript_readable() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "u1").unwrap();
    client.updates();
    drop(client);
    setup.script(&[
        json!({"expect": "session/new"}),
        json!({"stderr": "cannot"}),
        json!({"exit": 5}),
    ]);
    let mut client = setup.connect();
    for method in ["session/load", "session/resume", "session/prompt"] {
        let mut params = client.new_params();
        params["sessionId"] = session.as_str().into();
        params["prompt"] = json!([]);
        let error = client.call(method, params).unwrap_err();
        assert_eq!(error["data"]["exit"], "exit code 5", "{method}: {error}");
        assert_eq!(error["data"]["stderr"], json!(["cannot"]));
    }
    assert!(client.updates().is_empty());
    assert!(
        client
            .events(&session)
            .iter()
            .any(|event| event["kind"] == "agent_message_chunk")
    );
    // Its right to the session was given back.
    setup.script(&[]);
    client.prompt(&session, "u2").unwrap();
}
