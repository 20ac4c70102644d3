//! Loads that meet other loads, and cancels: each is answered once, and nothing else
//! that a client waits for is lost.

use std::time::Duration;

use serde_json::json;

use super::editor::{Editor, shown};
use super::serve;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// More than a page of a transcript, and than a queue and a socket hold.
const COUNT: u64 = 8000;

/// A step that says so much.
fn flood() -> serde_json::Value {
    let mut step = chunk(&format!("$N {}", "x".repeat(1000)));
    step["repeat"] = json!(COUNT);
    step
}

#[test]
fn loads_that_overtake_each_other_are_all_answered() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[expect_prompt(), flood(), end_turn()]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    one.prompt(&session, "go").unwrap();
    let mut other = Editor::connect(&path, "other", 200);
    let mut loads = Vec::new();
    for _ in 0..30 {
        loads.push(other.begin_attach("session/load", &setup, &session, json!({})));
        std::thread::sleep(Duration::from_millis(5));
    }
    for load in loads {
        other.answer(load).unwrap();
    }
}

#[test]
fn a_load_that_is_cancelled_while_it_replays_is_answered_once_and_loses_no_other_answer() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        expect_prompt(),
        flood(),
        super::ask(7),
        json!({"expect_answer": 7}),
        chunk("done"),
        end_turn(),
        expect_prompt(),
        chunk("another turn"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut other = Editor::connect(&path, "other", 200);
    other.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    one.expect("session/request_permission");
    let asked = other.expect("session/request_permission");
    one.take();

    one.stop(true);
    let load = one.begin_attach("session/load", &setup, &session, json!({}));
    // It is under way, and the result of the turn waits behind it.
    std::thread::sleep(Duration::from_millis(500));
    other.select(&asked, "yes");
    other.expect_text("done");
    std::thread::sleep(Duration::from_millis(200));
    one.notify("$/cancel_request", json!({"requestId": load}));
    std::thread::sleep(Duration::from_millis(200));
    one.stop(false);
    assert_eq!(one.answer(turn).unwrap()["stopReason"], "end_turn");
    one.answer(load).unwrap();
    let seen = shown(&one.taken());
    let chunks = seen.iter().filter(|(_, text)| text.ends_with("xx"));
    assert_eq!(chunks.count() as u64, COUNT);
    // It still follows.
    other.prompt(&session, "and").unwrap();
    one.expect_text("another turn");
    let again = one.take();
    let is_answer = |it: &&serde_json::Value| it.get("method").is_none();
    assert_eq!(again.iter().find(is_answer), None);
}

#[test]
fn a_page_that_comes_again_and_again_keeps_nothing_awake() {
    let setup = Setup::host().vm("sleep_after = \"1s\"");
    let (_server, path) = serve(&setup);
    let capabilities = json!({"sessionCapabilities": {"resume": {}}});
    setup.script(&[
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
    ]);
    let mut own = Editor::connect(&path, "own", 100);
    let session = own.new_session(&setup);
    own.kill();
    let looks = json!({"_meta": {"acpbox": {"letsSleep": true}}});
    let mut page = Editor::connect_offering(&path, "page", 200, looks);
    assert!(wait_until(|| {
        let start = json!({"start": false});
        let seen = page.attach("session/resume", &setup, &session, start);
        std::thread::sleep(Duration::from_millis(100));
        seen["_meta"]["acpbox"]["state"] == "sleeping"
    }));
}
