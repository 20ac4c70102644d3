//! Answers that are due while the disk is full: each comes, and comes once.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::durability::full::Disk;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

/// Fills the disk, so that nothing more can be stored.
fn fill(disk: &Disk) {
    let mut ballast = File::create(disk.0.join("ballast")).unwrap();
    while ballast.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
}

/// Runs one turn on a disk that is full from then on, which `then` may make use of.
fn check(steps: &[Value], then: impl Fn(&mut crate::support::client::Client, &str, &Disk)) {
    let setup = Setup::host();
    let folder = setup.path().join("small");
    let Some(disk) = Disk::mount(&folder, "4m") else {
        return;
    };
    let database = disk.0.join("acpbox.db").display().to_string();
    let setup = setup.argument("--db").argument(&database);
    let mut client = setup.connect();
    let session = client.new_session_of(steps);
    client.prompt(&session, "first").unwrap();
    then(&mut client, &session, &disk);
    drop(client);
}

#[test]
fn a_large_prompt_on_a_full_disk_is_answered_once() {
    let steps = [
        expect_prompt(),
        end_turn(),
        expect_prompt(),
        json!({"sleep_ms": 200}),
        end_turn(),
    ];
    check(&steps, |client, session, disk| {
        fill(disk);
        let text = "x".repeat(300 << 10);
        let error = client.prompt(session, &text).unwrap_err();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("is full"), "{message}");
        assert!(
            client.is_quiet(Duration::from_millis(600)),
            "a second answer"
        );
    });
}

#[test]
fn waiting_prompts_that_are_cancelled_on_a_full_disk_are_answered() {
    let steps = [
        expect_prompt(),
        end_turn(),
        expect_prompt(),
        json!({"expect": "session/cancel"}),
        json!({"sleep_ms": 200}),
        end_turn(),
    ];
    check(&steps, |client, session, disk| {
        let turns = ["one", "two", "three"]
            .map(|text| client.request("session/prompt", prompt(session, text)));
        client
            .call("_v/none", json!({"sessionId": session}))
            .unwrap_err();
        std::thread::sleep(Duration::from_millis(50));
        fill(disk);
        client.notify("session/cancel", json!({"sessionId": session}));
        for turn in turns {
            client.answer(turn).unwrap_err();
        }
        assert!(
            client.is_quiet(Duration::from_millis(400)),
            "a second answer"
        );
    });
}
