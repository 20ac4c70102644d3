//! Ids of requests: each side has its own, and never sees the other's.

use serde_json::{Value, json};

use crate::support::client::{raw_id, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn two_agents_in_one_vm_keep_their_colliding_ids_apart() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = |name: &str| {
        vec![
            expect_prompt(),
            json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "_vendor/who", "params": {"sessionId": "$SESSION", "i": name}}}),
            json!({"expect_answer": 0}),
            json!({"send": {"jsonrpc": "2.0", "id": 1, "method": "session/request_permission", "params": {"sessionId": "$SESSION", "i": name}}}),
            json!({"expect_answer": 1}),
            chunk(name),
            end_turn(),
        ]
    };
    // Both agents call their sessions `testy-session` and count from the same number.
    let [one, two] = ["one", "two"].map(|name| (name, client.new_session_of(&steps(name))));
    assert_ne!(one.1, two.1);
    let turns = [&one, &two].map(|(_, id)| client.request("session/prompt", prompt(id, "go")));
    let asked = [0, 1].map(|_| client.expect("_vendor/who"));
    for line in asked.iter().rev() {
        client.respond(line, "{}");
    }
    let asked = [0, 1].map(|_| client.expect("session/request_permission"));
    for line in &asked {
        let params = &value(line)["params"];
        let (_, own) = [&one, &two]
            .into_iter()
            .find(|(name, _)| params["i"] == *name)
            .unwrap();
        assert_eq!(params["sessionId"], own.as_str());
        client.respond(line, "{\"outcome\":{\"outcome\":\"cancelled\"}}");
    }
    for ((name, id), turn) in [&one, &two].into_iter().zip(turns) {
        let result = client.answer(turn).unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], *name);
        let update = client.updates_of(id);
        assert_eq!(update[0]["params"]["update"]["content"]["text"], *name);
    }
    let vms = client.call("_acpbox/vm/list", json!({})).unwrap();
    assert_eq!(vms["vms"][0]["liveSessions"], 2);
    assert_eq!(vms["vms"].as_array().unwrap().len(), 1);
}

#[test]
fn a_request_that_the_client_gives_up_is_cancelled_at_the_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        setup.record(),
        json!({"expect": "_vendor/slow"}),
        json!({"expect": "$/cancel_request"}),
    ];
    let session = client.new_session_of(&steps);
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":"mine","method":"_vendor/slow","params":{{"sessionId":"{session}"}}}}"#
    ));
    client.notify("$/cancel_request", json!({"requestId": "nobody's"}));
    client.notify("$/cancel_request", json!({"requestId": "mine"}));
    let is_there = || {
        setup
            .received()
            .iter()
            .any(|line| line.contains("$/cancel"))
    };
    assert!(wait_until(is_there));
    let received: Vec<Value> = setup.received().iter().map(|line| value(line)).collect();
    let [slow, cancel] = &received[received.len() - 2..] else {
        panic!()
    };
    assert_eq!(slow["method"], "_vendor/slow");
    assert_eq!(cancel["params"], json!({"requestId": slow["id"]}));
    // Nobody answers; the end of the session does.
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    let error = value(&client.answer_line("\"mine\""));
    assert_eq!(error["error"]["message"], "the session was closed");
}

#[test]
fn a_request_that_the_agent_gives_up_is_cancelled_at_the_client() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"send": r#"{"jsonrpc":"2.0","id":"ask","method":"session/request_permission","params":{"sessionId":"$SESSION"}}"#}),
        json!({"send": r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":"nobody's"}}"#}),
        json!({"send": r#"{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":"ask"}}"#}),
        json!({"expect_answer": "ask"}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = client.expect("session/request_permission");
    let cancel = client.expect("$/cancel_request");
    assert_eq!(
        value(&cancel)["params"]["requestId"].to_string(),
        raw_id(&asked)
    );
    // It need not answer, and what it answers is nobody's.
    client.respond(
        &asked,
        r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#,
    );
    client.answer(turn).unwrap();
    let received = setup.received();
    let answers: Vec<Value> = (received.iter().map(|line| value(line)))
        .filter(|message| message["id"] == "ask")
        .collect();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert_eq!(answers[0]["error"]["code"], -32800);
}

#[test]
fn of_an_effect_that_the_agent_gives_up_the_client_says_what_came_of_it_if_it_does_in_time() {
    let setup = Setup::new().limits("cancel_grace = \"1s\"");
    let mut client = setup.connect();
    let ask = |id: &str| {
        json!({"send": {"jsonrpc": "2.0", "id": id, "method": "_v/draw",
        "params": {"sessionId": "$SESSION"}}})
    };
    let withdraw = |id: &str| {
        json!({"send": {"jsonrpc": "2.0", "method": "$/cancel_request",
        "params": {"requestId": id}}})
    };
    let steps = [
        setup.record(),
        expect_prompt(),
        ask("one"),
        withdraw("one"),
        withdraw("one"),
        json!({"expect_answer": "one"}),
        ask("two"),
        withdraw("two"),
        json!({"expect_answer": "two"}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let one = client.expect("_v/draw");
    let cancel = value(&client.expect("$/cancel_request"));
    assert_eq!(cancel["params"]["requestId"].to_string(), raw_id(&one));
    client.respond(&one, r#"{"drawn":true}"#);
    client.expect("_v/draw");
    client.expect("$/cancel_request");
    client.answer(turn).unwrap();
    let received = setup.received();
    let answers: Vec<Value> = (received.iter().map(|line| value(line)))
        .filter(|message| message.get("method").is_none())
        .collect();
    assert_eq!(answers.len(), 2, "{answers:#?}");
    assert_eq!(answers[0]["result"]["drawn"], true);
    assert_eq!(answers[1]["error"]["code"], -32800);
}

#[test]
fn an_elicitation_for_a_request_names_it_as_the_client_does() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let ask = r#"{"jsonrpc":"2.0","id":9,"method":"elicitation/create","params":{"requestId":$ID,"mode":"form","message":"?","requestedSchema":{"type":"object"}}}"#;
    let steps = [
        json!({"expect": "_vendor/login"}),
        json!({"send": ask}),
        json!({"expect_answer": 9}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#}),
    ];
    let session = client.new_session_of(&steps);
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":"\u006dine","method":"_vendor/login","params":{{"sessionId":"{session}"}}}}"#
    ));
    let asked = client.expect("elicitation/create");
    assert!(
        asked.contains(r#""params":{"requestId":"\u006dine","mode""#),
        "{asked}"
    );
    client.respond(&asked, r#"{"action":"decline"}"#);
    client.answer_line(r#""\u006dine""#);
}
