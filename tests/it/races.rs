//! Things that happen at once or right behind each other, and answers that come late.

use serde_json::{Value, json};

use crate::callbacks::answers;
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod full;
mod logins;
mod meeting;
mod shutdown;
mod terminals;

/// A stored session that nobody drives, of an agent that does these steps next.
fn stored_session(setup: &Setup, steps: &[Value]) -> String {
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "u1").unwrap();
    client.updates();
    drop(client);
    setup.script(steps);
    session
}

#[test]
fn a_cancel_right_behind_a_prompt_to_a_stored_session_reaches_its_agent() {
    let setup = Setup::host().limits("cancel_grace = \"5s\"");
    let session = stored_session(
        &setup,
        &[
            expect_prompt(),
            json!({"expect": "session/cancel"}),
            json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled","seen":1}}"#}),
        ],
    );
    let mut client = setup.connect();
    // One write, as a client that thinks twice at once.
    let turn = json!({"jsonrpc": "2.0", "id": 77, "method": "session/prompt", "params": prompt(&session, "go")});
    let cancel =
        json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}});
    client.send_bytes(format!("{turn}\n{cancel}\n").as_bytes());
    let answer = value(&client.answer_line("77"));
    assert_eq!(answer["result"]["seen"], 1, "{answer}");
}

#[test]
fn what_an_agent_says_right_behind_its_resume_is_shown() {
    let setup = Setup::host();
    let update = json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "testy-session",
        "update": {"sessionUpdate": "available_commands_update", "availableCommands": []}}});
    let answer = r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#;
    let initialized = json!({"on": "initialize", "result": {"protocolVersion": 1,
        "agentCapabilities": {"sessionCapabilities": {"resume": {}}}}});
    let resume = [
        initialized,
        json!({"expect": "session/resume"}),
        json!({"raw": format!("{answer}\n{update}\n")}),
    ];
    let session = stored_session(&setup, &resume);
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    let id = client.request("session/resume", params);
    // The answer first: it is what makes the session known.
    assert_eq!(value(&client.receive())["id"], id);
    let shown = value(&client.expect("session/update"));
    assert_eq!(
        shown["params"]["update"]["sessionUpdate"],
        "available_commands_update"
    );
    assert!(shown["params"]["_meta"]["acpbox"]["seq"].is_number());
    drop(client);
    // The same for a session that a prompt brings back.
    let mut client = setup.connect();
    client.prompt(&session, "go").unwrap();
    assert_eq!(client.updates().len(), 1);
}

#[test]
fn a_command_that_outlives_its_agent_does_not_disturb_the_session_that_comes_back() {
    let setup = Setup::host();
    let request = |id: u64, method: &str, params: Value| json!({"send": {"jsonrpc": "2.0", "id": id, "method": method, "params": params}});
    let terminal = json!({"sessionId": "$SESSION", "terminalId": "term_1"});
    setup.script(&[
        expect_prompt(),
        request(
            0,
            "terminal/create",
            json!({"sessionId": "$SESSION", "command": "sleep", "args": ["100"]}),
        ),
        json!({"expect_answer": 0}),
        request(1, "terminal/wait_for_exit", terminal),
        json!({"sleep_ms": 100}),
        json!({"exit": 3}),
    ]);
    let mut client = setup.connect();
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "go"));
    setup.script(&[
        expect_prompt(),
        json!({"sleep_ms": 500}),
        chunk("back"),
        end_turn(),
    ]);
    client.answer(turn).unwrap_err();
    let result = client.prompt(&session, "again").unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "back");
    client.updates();
    let seqs: Vec<i64> = client
        .events(&session)
        .iter()
        .map(|event| event["seq"].as_i64().unwrap())
        .collect();
    let all: Vec<i64> = (1..=seqs.len() as i64).collect();
    assert_eq!(seqs, all, "{:#?}", client.events(&session));
}

#[test]
fn an_approval_after_a_cancel_is_none() {
    let setup = Setup::host();
    let ask = json!({"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"}, "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]});
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": ask}}),
        json!({"expect_answer": 0}),
        json!({"sleep_ms": 300}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ];
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = client.expect("session/request_permission");
    client.notify("session/cancel", json!({"sessionId": session}));
    client.respond(
        &asked,
        r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#,
    );
    assert_eq!(client.answer(turn).unwrap()["stopReason"], "cancelled");
    assert_eq!(
        answers(&setup, 1)[0]["result"],
        json!({"outcome": {"outcome": "cancelled"}})
    );
    let received = setup.received().concat();
    assert!(!received.contains("\"yes\""), "{received}");
    let events = client.events(&session);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"_acpbox/permission/denied"), "{kinds:?}");
}

#[test]
fn a_busy_agent_gets_large_answers_once_it_reads() {
    let setup = Setup::host();
    let path = setup.workspace().join("large");
    std::fs::write(&path, "").unwrap();
    let read = |id: u64| json!({"send": {"jsonrpc": "2.0", "id": id, "method": "fs/read_text_file", "params": {"sessionId": "$SESSION", "path": path}}});
    let steps = [
        expect_prompt(),
        read(0),
        read(1),
        read(2),
        // More than a client is held up for.
        json!({"sleep_ms": 3000}),
        json!({"expect_answer": 0}),
        json!({"expect_answer": 1}),
        json!({"expect_answer": 2}),
        end_turn(),
    ];
    let mut client = setup.connect();
    client.answers.insert(
        "fs/read_text_file",
        json!({"content": "x".repeat(3 << 20)}).to_string(),
    );
    let session = client.new_session_of(&steps);
    let result = client.prompt(&session, "go").unwrap();
    assert_eq!(result["stopReason"], "end_turn");
}

#[test]
fn a_load_right_behind_a_prompt_replays_that_prompt_too() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        json!({"sleep_ms": 300}),
        chunk("reply"),
        end_turn(),
    ]);
    let mut params = client.new_params();
    params["sessionId"] = session.as_str().into();
    let turn = json!({"jsonrpc": "2.0", "id": 77, "method": "session/prompt", "params": prompt(&session, "asked")});
    let load = json!({"jsonrpc": "2.0", "id": 78, "method": "session/load", "params": params});
    client.send_bytes(format!("{turn}\n{load}\n").as_bytes());
    client.answer_line("78");
    client.answer_line("77");
    assert_eq!(client.texts(), ["asked", "reply"]);
}
