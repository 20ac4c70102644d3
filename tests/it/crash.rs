//! acpbox is killed at any moment: what a client saw is in the database, and no
//! process of the VM lives on.

use acpbox::store::{EventPage, Store};
use serde_json::json;

use crate::support::client::{Client, envelope, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

const ROUNDS: u64 = 20;

#[test]
fn whatever_a_client_saw_before_a_kill_is_in_the_database() {
    for round in 0..ROUNDS {
        let setup = Setup::new();
        let beat = setup.workspace().join("beat");
        let update = json!({"method": "session/update", "params": {"sessionId": "$SESSION",
            "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "number $N"}}}});
        let steps = [
            json!({"fork_daemon": beat}),
            expect_prompt(),
            json!({"repeat": 1_000_000, "send": update}),
        ];
        let mut client = setup.connect();
        setup.script(&steps);
        let session = client.new_session();
        client.request("session/prompt", prompt(&session, "go"));
        client.expect("session/update");
        // Spread over the first tenth of a second, in no order.
        std::thread::sleep(std::time::Duration::from_millis(round * 37 % 101));
        let seen = client.kill();
        let numbers: Vec<i64> = seen
            .iter()
            // The last line may have been cut by the kill.
            .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
            .filter(|line| envelope(line).method.as_deref() == Some("session/update"))
            .map(|line| {
                value(line)["params"]["_meta"]["acpbox"]["seq"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        let last = numbers.iter().max().copied().unwrap_or(0);
        assert_eq!(
            stored(&setup, &session, last),
            (1..=last).collect::<Vec<_>>(),
            "round {round}"
        );
        // The agent's daemon goes with its VM.
        let beats = || std::fs::metadata(&beat).map_or(0, |it| it.len());
        let is_dead = || {
            let before = beats();
            std::thread::sleep(std::time::Duration::from_millis(120));
            beats() == before
        };
        assert!(wait_until(is_dead), "round {round}");
        // Whoever takes it up again finds the turn ended, once.
        setup.script(&[]);
        let mut client = setup.connect();
        client.prompt(&session, "again").unwrap();
        assert_eq!(
            reasons(&mut client, &session),
            ["interrupted"],
            "round {round}"
        );
        drop(client);
        std::fs::remove_file(setup.path().join("killed")).unwrap();
    }
}

/// The numbers of the stored events up to one.
fn stored(setup: &Setup, session: &str, last: i64) -> Vec<i64> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&setup.state().join("acpbox.db")).unwrap();
        let page = EventPage {
            session: session.to_owned(),
            before: Some(last + 1),
            limit: usize::MAX,
            max_bytes: usize::MAX,
            ..EventPage::default()
        };
        let rows = store.events(page).await.unwrap();
        store.close().await.unwrap();
        rows.iter().map(|row| row.seq).collect()
    })
}

#[test]
fn a_turn_that_a_killed_acpbox_left_open_is_ended_by_whoever_comes_next() {
    let setup = Setup::new();
    let steps = [expect_prompt(), chunk("partial"), json!({"hang": true})];
    setup.script(&steps);
    let mut sessions = Vec::new();
    let mut client = setup.connect();
    for _ in 0..3 {
        let session = client.new_session();
        client.request("session/prompt", prompt(&session, "go"));
        client.request("session/prompt", prompt(&session, "waits"));
        client.expect("session/update");
        sessions.push(session);
    }
    // What was sent before this is stored.
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.kill();
    let shown = show(&setup, &sessions[0]);
    assert!(
        shown.contains("acpbox was killed during the turn"),
        "{shown}"
    );
    assert!(
        shown.contains("killed before the prompt's turn had begun"),
        "{shown}"
    );
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    let mut client = setup.connect();
    assert!(
        reasons(&mut client, &sessions[0]).is_empty(),
        "showing writes nothing"
    );
    // Whichever way a session is taken up again.
    client.prompt(&sessions[0], "again").unwrap();
    let mut params = client.new_params();
    params["sessionId"] = sessions[1].as_str().into();
    client.call("session/load", params).unwrap();
    client
        .call("session/close", json!({"sessionId": sessions[2]}))
        .unwrap();
    client.take_rest();
    for session in &sessions {
        assert_eq!(
            reasons(&mut client, session),
            ["interrupted", "interrupted"]
        );
        let events = client.events(session);
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| event["kind"].as_str().unwrap())
            .collect();
        let end = kinds
            .iter()
            .position(|kind| *kind == "_acpbox/turn/end")
            .unwrap();
        let restored = kinds
            .iter()
            .position(|kind| *kind == "_acpbox/session/restored");
        assert!(
            restored.is_none_or(|restored| end < restored),
            "before anything new: {kinds:?}"
        );
    }
    let again = show(&setup, &sessions[0]);
    assert_eq!(
        again.matches("acpbox was killed during the turn").count(),
        1,
        "{again}"
    );
    drop(client);
    // From here on nothing may be open.
    std::fs::remove_file(setup.path().join("killed")).unwrap();
}

fn reasons(client: &mut Client, session: &str) -> Vec<String> {
    let events = client.events(session);
    let ends = events
        .iter()
        .filter(|event| event["kind"] == "_acpbox/turn/end");
    ends.map(|event| {
        event["message"]["params"]["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    })
    .collect()
}

/// What `acpbox sessions show` prints.
fn show(setup: &Setup, session: &str) -> String {
    let command = setup.command();
    let mut plain = std::process::Command::new(command.get_program());
    plain.env_clear().args(["sessions", "show", session]);
    for (name, value) in command.get_envs() {
        plain.env(name, value.unwrap_or_default());
    }
    let output = plain.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
