//! Several clients on one live session: who may do what, who is asked, and that
//! all see the same.

mod asking;
mod cancels;
mod echoes;
mod editor;
mod foreign;
mod lagging;
mod loads;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::serve::{Server, socket};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};
use editor::{Editor, shown};

/// A server, and where its clients find it.
fn serve(setup: &Setup) -> (Server, PathBuf) {
    let mut server = Server::start(setup, &[]);
    server.address();
    (server, socket(setup))
}

/// A step in which the agent asks for permission, under this id.
fn ask(id: u64) -> Value {
    json!({"send": {"jsonrpc": "2.0", "id": id, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"}, "options": [
            {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
            {"optionId": "no", "name": "No", "kind": "reject_once"}]}}})
}

#[test]
fn an_observer_sees_all_and_may_do_nothing() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        chunk("done"),
        end_turn(),
    ]);
    let mut editor = Editor::connect(&path, "editor", 100);
    let session = editor.new_session(&setup);
    let mut observer = Editor::connect(&path, "observer", 200);
    observer.attach(
        "session/resume",
        &setup,
        &session,
        json!({"role": "observer"}),
    );
    for (method, params) in [
        ("session/prompt", prompt(&session, "mine")),
        (
            "session/set_mode",
            json!({"sessionId": session, "modeId": "m"}),
        ),
        ("_v/anything", json!({"sessionId": session})),
        ("session/close", json!({"sessionId": session})),
        ("session/delete", json!({"sessionId": session})),
    ] {
        let error = observer.call(method, params).unwrap_err();
        assert_eq!(error["code"], -32600, "{method}: {error}");
        let what = error["message"].as_str().unwrap();
        assert!(what.contains("is an observer of the session"), "{what}");
    }
    let turn = editor.send("session/prompt", prompt(&session, "go"));
    let asked = editor.expect("session/request_permission");
    observer.notify("session/cancel", json!({"sessionId": session}));
    assert!(
        observer.gets_no("session/request_permission"),
        "an observer was asked"
    );
    editor.select(&asked, "yes");
    assert_eq!(editor.answer(turn).unwrap()["stopReason"], "end_turn");
    observer.expect_text("done");
    let received = setup.received().join("\n");
    for word in ["mine", "set_mode", "_v/anything", "session/cancel"] {
        assert!(!received.contains(word), "{word} reached the agent");
    }
    // It may become a controller, which it is by default.
    observer.attach("session/resume", &setup, &session, json!({}));
    observer.prompt(&session, "mine").unwrap();
    editor.take();
    let wrong = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": [],
        "_meta": {"acpbox": {"role": "boss"}}});
    let error = observer.call("session/resume", wrong).unwrap_err();
    assert!(error.to_string().contains("boss"), "{error}");
}

#[test]
fn a_prompt_is_shown_to_the_others_where_its_turn_begins() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let wait = json!({"expect": "_v/go_on"});
    setup.script(&[
        expect_prompt(),
        chunk("a1"),
        wait.clone(),
        chunk("a2"),
        end_turn(),
        expect_prompt(),
        chunk("b1"),
        end_turn(),
        expect_prompt(),
        chunk("c1"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/load", &setup, &session, json!({}));
    let first = one.send("session/prompt", prompt(&session, "from one"));
    one.expect_text("a1");
    let second = two.send("session/prompt", prompt(&session, "from two"));
    // It waits once what was sent behind it is answered.
    two.call("session/list", json!({})).unwrap();
    let third = one.send("session/prompt", prompt(&session, "again from one"));
    one.call("session/list", json!({})).unwrap();
    // One that comes meanwhile is shown them where they begin, too.
    let mut late = Editor::connect(&path, "late", 300);
    late.attach("session/load", &setup, &session, json!({}));
    one.notify("_v/go_on", json!({"sessionId": session}));
    one.answer(third).unwrap();
    let of = |editor: &mut Editor| shown(&editor.take());
    let texts = |seen: &[(i64, String)]| -> Vec<String> {
        seen.iter().map(|(_, text)| text.clone()).collect()
    };
    one.answer(first).unwrap();
    two.answer(second).unwrap();
    two.expect_last("c1");
    late.expect_last("c1");
    assert_eq!(texts(&of(&mut one)), ["a2", "from two", "b1", "c1"]);
    let seen_by_two = two.take();
    let froms: Vec<&Value> = (seen_by_two.iter())
        .filter(|it| it["params"]["update"]["sessionUpdate"] == "user_message_chunk")
        .map(|it| &it["params"]["_meta"]["acpbox"]["from"])
        .collect();
    assert_eq!(froms, ["one", "one"]);
    assert_eq!(
        texts(&shown(&seen_by_two)),
        ["from one", "a1", "a2", "b1", "again from one", "c1"]
    );
    let all = [
        "from one",
        "a1",
        "a2",
        "from two",
        "b1",
        "again from one",
        "c1",
    ];
    let seen_by_late = of(&mut late);
    assert_eq!(texts(&seen_by_late), all);
    // A replay is the same sequence, number by number.
    let mut later = Editor::connect(&path, "later", 400);
    later.attach("session/load", &setup, &session, json!({}));
    assert_eq!(of(&mut later), seen_by_late);
    for at in 0..all.len() {
        let after = seen_by_late[at].0;
        later.attach("session/load", &setup, &session, json!({"after": after}));
        assert_eq!(of(&mut later), seen_by_late[at + 1..], "after {after}");
    }
    let page = later.call("_acpbox/session/events", json!({"sessionId": session}));
    let page = page.unwrap();
    let events = page["events"].as_array().unwrap();
    let prompts = events.iter().filter(|it| it["kind"] == "session/prompt");
    assert_eq!(prompts.count(), 3);
    assert!(!page.to_string().contains("user_message_chunk"));
}

#[test]
fn who_comes_to_a_live_session_is_told_what_it_can_be_set_to() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let offered = json!({
        "modes": {"currentModeId": "ask", "availableModes": [
            {"id": "ask", "name": "Ask"}, {"id": "auto", "name": "Auto"}]},
        "configOptions": [{"id": "effort", "name": "Effort", "type": "select",
            "currentValue": "low", "options": [
                {"value": "low", "name": "Low"}, {"value": "high", "name": "High"}]}]});
    let mut begin = offered.clone();
    begin["sessionId"] = "inner".into();
    let answer = |result: &Value| {
        let line = json!({"jsonrpc": "2.0", "id": "$ID", "result": result}).to_string();
        json!({"send": line.replace("\"$ID\"", "$ID")})
    };
    let mut options = offered["configOptions"].clone();
    options[0]["currentValue"] = "high".into();
    setup.script(&[
        json!({"on": "session/new", "result": begin}),
        json!({"expect": "session/set_mode"}),
        answer(&json!({})),
        json!({"expect": "session/set_config_option"}),
        answer(&json!({"configOptions": options})),
    ]);
    let mut first = Editor::connect(&path, "first", 100);
    let session = first.new_session(&setup);
    let mut second = Editor::connect(&path, "second", 200);
    let found = second.attach("session/load", &setup, &session, json!({}));
    assert_eq!(found["modes"], offered["modes"]);
    assert_eq!(found["configOptions"], offered["configOptions"]);
    let mode = json!({"sessionId": session, "modeId": "auto"});
    first.call("session/set_mode", mode).unwrap();
    let effort = json!({"sessionId": session, "configId": "effort", "value": "high"});
    first.call("session/set_config_option", effort).unwrap();
    let mut third = Editor::connect(&path, "third", 300);
    let found = third.attach("session/resume", &setup, &session, json!({}));
    assert_eq!(found["modes"]["currentModeId"], "auto", "{found}");
    assert_eq!(found["configOptions"][0]["currentValue"], "high", "{found}");
}
