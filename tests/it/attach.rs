//! Several clients on one live session: who may do what, who is asked, and that
//! all see the same.

mod asking;
mod editor;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::serve::{Server, socket};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};
use editor::Editor;

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
