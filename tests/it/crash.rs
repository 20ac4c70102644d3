//! acpbox is killed at any moment: what a client saw is in the database, and no
//! process of the VM lives on.

use acpbox::store::{EventPage, Store};
use serde_json::json;

use crate::support::client::{envelope, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{expect_prompt, prompt};

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
        let session = client.new_session_of(&steps);
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
