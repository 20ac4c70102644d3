//! What an agent asks of several clients.

use serde_json::{Value, json};

use super::editor::Editor;
use super::{ask, serve};
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn the_first_answer_wins_and_the_others_are_told() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        json!({"send": {"jsonrpc": "2.0", "id": "form", "method": "elicitation/create",
            "params": {"sessionId": "$SESSION", "mode": "form", "message": "?", "requestedSchema": {"type": "object"}}}}),
        json!({"expect_answer": "form"}),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    let asked_one = one.expect("session/request_permission");
    let asked_two = two.expect("session/request_permission");
    assert_eq!(asked_one["params"], asked_two["params"]);
    two.select(&asked_two, "no");
    let withdrawn = one.expect("$/cancel_request");
    assert_eq!(withdrawn["params"]["requestId"], asked_one["id"]);
    one.select(&asked_one, "yes");
    // An error is no answer as long as another may answer.
    let form_one = one.expect("elicitation/create");
    let form_two = two.expect("elicitation/create");
    let refusal = json!({"jsonrpc": "2.0", "id": form_two["id"], "error": {"code": -32601, "message": "what?"}});
    two.raw(&refusal);
    one.respond(&form_one, json!({"action": "decline"}));
    one.answer(turn).unwrap();
    let answers: Vec<_> = (setup.received().iter())
        .map(|line| value(line))
        .filter(|message| message.get("method").is_none())
        .collect();
    assert_eq!(answers.len(), 2, "{answers:#?}");
    assert_eq!(answers[0]["id"], 7);
    assert_eq!(answers[0]["result"]["outcome"]["optionId"], "no");
    assert_eq!(answers[1]["result"]["action"], "decline");
    let page = one
        .call("_acpbox/session/events", json!({"sessionId": session}))
        .unwrap();
    let kinds = page["events"].as_array().unwrap().iter();
    let kinds = kinds.filter(|event| {
        let kind = event["kind"].as_str().unwrap();
        kind.starts_with("session/request_permission") || kind.starts_with("elicitation/create")
    });
    assert_eq!(
        kinds.count(),
        4,
        "each question once, each answer once: {page:#}"
    );
}

#[test]
fn a_question_outlives_its_clients_and_is_asked_again() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        chunk("granted"),
        json!({"sleep_ms": 200}),
        ask(8),
        json!({"expect_answer": 8}),
        chunk("granted again"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    one.send("session/prompt", prompt(&session, "go"));
    one.expect("session/request_permission");
    one.kill();
    let mut observer = Editor::connect(&path, "observer", 200);
    observer.attach(
        "session/load",
        &setup,
        &session,
        json!({"role": "observer"}),
    );
    assert!(observer.gets_no("session/request_permission"));
    let mut two = Editor::connect(&path, "two", 300);
    two.attach("session/load", &setup, &session, json!({}));
    let asked = two.expect("session/request_permission");
    assert_eq!(asked["params"]["options"][0]["optionId"], "yes");
    assert_eq!(asked["params"]["sessionId"], session);
    two.select(&asked, "yes");
    two.expect_text("granted");
    // The next one comes when only an observer is there.
    two.kill();
    assert!(observer.gets_no("session/request_permission"));
    let mut three = Editor::connect(&path, "three", 400);
    three.attach("session/resume", &setup, &session, json!({}));
    let asked = three.expect("session/request_permission");
    three.select(&asked, "yes");
    observer.expect_text("granted again");
    let received = setup.received();
    for id in [7, 8] {
        let is_answer =
            |line: &&String| value(line).get("method").is_none() && value(line)["id"] == id;
        assert_eq!(received.iter().filter(is_answer).count(), 1, "of {id}");
    }
}

#[test]
fn cancelling_ends_a_question_for_everybody() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    let asked = two.expect("session/request_permission");
    one.expect("session/request_permission");
    one.notify("session/cancel", json!({"sessionId": session}));
    let withdrawn = two.expect("$/cancel_request");
    assert_eq!(withdrawn["params"]["requestId"], asked["id"]);
    two.select(&asked, "yes");
    assert_eq!(one.answer(turn).unwrap()["stopReason"], "cancelled");
    let received = setup.received().join("\n");
    assert!(
        received.contains(r#""outcome":{"outcome":"cancelled"}"#),
        "{received}"
    );
    assert!(!received.contains("\"yes\""), "{received}");
    let mut three = Editor::connect(&path, "three", 300);
    three.attach("session/load", &setup, &session, json!({}));
    assert!(three.gets_no("session/request_permission"));
}

#[test]
fn a_question_that_nobody_answers_in_time_is_refused_also_in_an_empty_room() {
    let setup = Setup::host().config("[permissions]\nunanswered = \"600ms\"");
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        chunk("refused once"),
        ask(8),
        json!({"expect_answer": 8}),
        chunk("refused twice"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let mut observer = Editor::connect(&path, "observer", 300);
    let role = json!({"role": "observer"});
    observer.attach("session/resume", &setup, &session, role);
    one.send("session/prompt", prompt(&session, "go"));
    for editor in [&mut one, &mut two] {
        let asked = editor.expect("session/request_permission");
        let withdrawn = editor.expect("$/cancel_request");
        assert_eq!(withdrawn["params"]["requestId"], asked["id"]);
        editor.select(&asked, "yes");
    }
    observer.expect_text("refused once");
    one.kill();
    two.kill();
    observer.expect_text("refused twice");
    let received = setup.received();
    let refused = r#""result":{"outcome":{"outcome":"cancelled"}}"#;
    let answers = received.iter().filter(|line| line.contains(refused));
    assert_eq!(answers.count(), 2, "{received:#?}");
    assert!(!received.join("\n").contains("\"yes\""), "{received:#?}");
}

#[test]
fn what_was_not_offered_is_no_answer_as_long_as_another_may_answer() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    let asked_one = one.expect("session/request_permission");
    let asked_two = two.expect("session/request_permission");
    two.select(&asked_two, "allow");
    // Another request's answer says that the selection has been read.
    two.call("session/list", json!({})).unwrap();
    one.select(&asked_one, "yes");
    one.answer(turn).unwrap();
    let received = setup.received();
    let answers = (received.iter())
        .map(|line| value(line))
        .filter(|message| message.get("method").is_none());
    let chosen: Vec<_> = answers
        .map(|it| it["result"]["outcome"]["optionId"].clone())
        .collect();
    assert_eq!(chosen, ["yes"]);
}

#[test]
fn what_the_agent_withdraws_is_over_for_everybody_and_its_session_is_idle() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let form = json!({"send": {"jsonrpc": "2.0", "id": "form", "method": "elicitation/create",
        "params": {"sessionId": "$SESSION", "mode": "form", "message": "?", "requestedSchema": {"type": "object"}}}});
    let withdraw = |id: Value| json!({"send": {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": id}}});
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        form,
        json!({"expect": "_v/go"}),
        withdraw(json!(7)),
        withdraw(json!("form")),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    let asked = ["session/request_permission", "elicitation/create"].map(|method| {
        two.expect(method);
        one.expect(method)
    });
    one.notify("_v/go", json!({"sessionId": session}));
    for question in &asked {
        let withdrawn = one.expect("$/cancel_request");
        assert_eq!(withdrawn["params"]["requestId"], question["id"]);
        two.expect("$/cancel_request");
    }
    one.answer(turn).unwrap();
    one.select(&asked[0], "yes");
    // Nobody answers, and nobody is asked again.
    let status = two.call("_acpbox/server/status", json!({})).unwrap();
    let state = &status["sessions"][0];
    assert_eq!(state["state"], "idle", "{status:#}");
    assert_eq!(state["pendingRequests"], 0, "{status:#}");
    let mut three = Editor::connect(&path, "three", 300);
    three.attach("session/load", &setup, &session, json!({}));
    assert!(three.gets_no("session/request_permission"));
    let received = setup.received();
    let answers: Vec<Value> = (received.iter().map(|line| value(line)))
        .filter(|message| message.get("method").is_none())
        .collect();
    let codes: Vec<_> = answers.iter().map(|it| &it["error"]["code"]).collect();
    assert_eq!(codes, [-32800, -32800], "{answers:#?}");
}
