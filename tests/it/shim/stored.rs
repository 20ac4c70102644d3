//! Sessions that are followed though nothing of them runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Server, in_time};
use crate::support::client::{Client, value};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// How many agents run in the server.
fn running(client: &mut Client) -> usize {
    let status = client.call("_acpbox/server/status", json!({})).unwrap();
    let sessions = status["sessions"].as_array().unwrap();
    let is_awake = |session: &&Value| session["state"] != "asleep";
    sessions.iter().filter(is_awake).count()
}

fn follow(session: &str, more: Value) -> Value {
    let mut ours = json!({"start": false});
    for (key, value) in more.as_object().unwrap() {
        ours[key] = value.clone();
    }
    json!({"sessionId": session, "_meta": {"acpbox": ours}})
}

#[test]
fn twenty_sessions_of_an_editor_start_nothing_after_a_restart_and_the_next_prompt_wakes_one() {
    for is_killed in [false, true] {
        let setup = Setup::host();
        let server = Server::start(&setup);
        let mut client = setup.connect();
        // The script comes with each session, in a variable whose value nobody stores.
        let sessions: Vec<String> = (0..20)
            .map(|_| client.new_session_of(&[expect_prompt(), chunk("one"), end_turn()]))
            .collect();
        let mut other = setup.connect();
        let params = json!({"sessionId": sessions[7], "cwd": setup.workspace(), "mcpServers": []});
        other.call("session/load", params).unwrap();
        assert_eq!(running(&mut client), 20);
        match is_killed {
            false => server.stop_in_peace(),
            true => server.kill(&setup),
        }
        let _server = Server::start(&setup);
        assert_eq!(running(&mut client), 0);
        assert_eq!(running(&mut other), 0);
        let result = client.prompt(&sessions[7], "u").unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], "one");
        assert_eq!(client.texts(), ["one"]);
        assert_eq!(running(&mut client), 1);
        // The other one follows too, and sees who asked.
        other.expect("session/update");
        let update = other.expect("session/update");
        assert!(update.contains("one"), "{update}");
        client.prompt(&sessions[3], "u").unwrap();
        assert_eq!(client.texts(), ["one"]);
        assert_eq!(other.texts(), [""; 0]);
    }
}

#[test]
fn a_session_that_is_not_live_is_replayed_and_followed_and_nothing_is_started() {
    let setup = Setup::host();
    let server = Server::start(&setup);
    setup.script(&[expect_prompt(), chunk("one"), chunk("two"), end_turn()]);
    let mut client = setup.connect();
    let session = client.new_session();
    client.prompt(&session, "u").unwrap();
    let seen = client.updates();
    let first = seen[0]["params"]["_meta"]["acpbox"]["seq"]
        .as_i64()
        .unwrap();
    // A live one is attached to.
    let mut other = setup.connect();
    let result = other
        .call("session/resume", follow(&session, json!({})))
        .unwrap();
    assert_eq!(result["_meta"]["acpbox"]["state"], "live");
    assert_eq!(result["_meta"]["acpbox"]["restored"]["tier"], "attach");
    drop(other);
    drop(client);
    server.stop();
    let _server = Server::start(&setup);

    let mut observer = setup.connect();
    let result = observer.call(
        "session/load",
        follow(&session, json!({"role": "observer"})),
    );
    let meta = &result.unwrap()["_meta"]["acpbox"];
    assert_eq!(meta["state"], "open");
    assert_eq!(meta["agent"], "testy");
    assert!(meta.get("restored").is_none(), "{meta}");
    assert_eq!(observer.texts(), ["u", "one", "two"]);
    let refused = observer.prompt(&session, "me").unwrap_err();
    assert!(
        refused["message"].as_str().unwrap().contains("observer"),
        "{refused}"
    );
    let mut late = setup.connect();
    let params = follow(&session, json!({"after": first}));
    late.call("session/load", params).unwrap();
    assert_eq!(late.texts(), ["two"]);
    let mut bare = setup.connect();
    bare.call("session/resume", follow(&session, json!({})))
        .unwrap();
    assert_eq!(running(&mut late), 0);

    for (params, words) in [
        (follow("nothing", json!({})), "there is no session"),
        (
            follow(&session, json!({"agent": "inline"})),
            "is one of `testy`",
        ),
        (json!({"sessionId": session}), "`cwd` is missing"),
        (follow(&session, json!({"start": 1})), "_meta.acpbox"),
    ] {
        let error = late.call("session/load", params).unwrap_err();
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
    }
    assert_eq!(running(&mut late), 0);

    setup.script(&[expect_prompt(), chunk("three"), end_turn()]);
    let result = late.prompt(&session, "v").unwrap();
    let last = result["_meta"]["acpbox"]["lastSeq"].as_i64().unwrap();
    assert_eq!(late.texts(), ["three"]);
    for follower in [&mut observer, &mut bare] {
        let mut texts = Vec::new();
        assert!(in_time(|| {
            let _ = follower.call("session/list", json!({}));
            texts.extend(follower.texts());
            texts.len() >= 2
        }));
        assert_eq!(texts, ["v", "three"]);
    }
    // One that has all is shown nothing.
    let again = late.call("session/load", follow(&session, json!({"after": last})));
    assert_eq!(again.unwrap()["_meta"]["acpbox"]["lastSeq"], last);
    assert_eq!(late.texts(), [""; 0]);
}

#[test]
fn a_session_that_sleeps_is_followed_without_being_woken_and_its_agent_is_asked_later() {
    let setup = Setup::host().vm("agent_sleep_after = \"200ms\"\nsleep_after = \"200ms\"");
    let _server = Server::start(&setup);
    let ask = json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "c", "title": "t"},
            "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]}}});
    let capabilities = json!({"loadSession": false, "sessionCapabilities": {"resume": {}}});
    setup.script(&[
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
        json!({"on": "session/resume", "result": {}}),
        expect_prompt(),
        ask,
        json!({"expect_answer": 0}),
        end_turn(),
    ]);
    let mut client = setup.connect();
    let session = client.new_session();
    drop(client);
    let mut other = setup.connect();
    let is_asleep = |client: &mut Client| running(client) == 0;
    assert!(in_time(|| is_asleep(&mut other)));
    let result = other
        .call("session/resume", follow(&session, json!({})))
        .unwrap();
    let state = &result["_meta"]["acpbox"]["state"];
    assert!(state == "sleeping" || state == "open", "{result}");
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_asleep(&mut other));
    let mut waker = setup.connect();
    let turn = waker.request("session/prompt", prompt(&session, "u"));
    // Both are asked, and the follower's answer counts.
    let question = other.expect("session/request_permission");
    other.respond(
        &question,
        r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#,
    );
    waker.answer(turn).unwrap();
    waker.expect("session/request_permission");
    waker.expect("$/cancel_request");
    other.take("session/update");
}

#[test]
fn a_session_that_was_only_prompted_is_followed_again_after_a_restart() {
    let setup = Setup::host();
    let server = Server::start(&setup);
    setup.script(&[expect_prompt(), chunk("one"), end_turn()]);
    let mut first = setup.connect();
    let session = first.new_session();
    let mut second = setup.connect();
    second.prompt(&session, "u").unwrap();
    assert_eq!(second.texts(), ["one"]);
    let mut third = setup.connect();
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    third.call("session/resume", params).unwrap();
    server.kill(&setup);
    let _server = Server::start(&setup);
    for client in [&mut second, &mut third] {
        assert_eq!(running(client), 0);
    }
    first.prompt(&session, "v").unwrap();
    for client in [&mut second, &mut third] {
        let asked = value(&client.expect("session/update"));
        assert_eq!(asked["params"]["update"]["content"]["text"], "v");
        let said = value(&client.expect("session/update"));
        assert_eq!(said["params"]["update"]["content"]["text"], "one");
    }
    first.take("session/update");
}

#[test]
fn how_a_session_comes_back_is_said_by_those_who_may_control_it() {
    for role in ["controller", "observer"] {
        let setup = Setup::host().vm("agent_sleep_after = \"200ms\"\nsleep_after = \"200ms\"");
        let _server = Server::start(&setup);
        let capabilities = json!({"loadSession": false, "sessionCapabilities": {"resume": {}}});
        setup.script(&[
            setup.record(),
            json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
            json!({"on": "session/resume", "result": {}}),
            expect_prompt(),
            end_turn(),
        ]);
        // That server knows nothing of how it was started once it is another one.
        let mut client = setup.connect();
        let session = client.new_session();
        drop(client);
        drop(_server);
        let _server = Server::start(&setup);
        let mut other = setup.connect();
        let server = json!({"name": "said", "command": "/bin/true", "args": [], "env": []});
        let mut params = follow(&session, json!({"role": role}));
        params["mcpServers"] = json!([server]);
        other.call("session/resume", params).unwrap();
        let mut waker = setup.connect();
        waker.prompt(&session, "u").unwrap();
        let came_back = setup.received();
        let came_back = came_back
            .iter()
            .find(|line| line.contains("\"session/resume\""));
        let is_told = came_back.unwrap().contains("\"said\"");
        assert_eq!(is_told, role == "controller", "{came_back:?}");
        other.expect("session/update");
    }
}
