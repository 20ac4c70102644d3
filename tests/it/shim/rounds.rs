//! A server that goes again and again, at any moment of a turn.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

const ROUNDS: usize = 20;

/// Chunks of a turn, and how long it takes.
const CHUNKS: u64 = 60;
const PACE: u64 = 4;

#[test]
fn twenty_ends_of_the_server_leave_no_gap_and_no_double_in_what_the_client_saw() {
    let setup = Setup::host();
    let turn = json!({"repeat": CHUNKS, "sleep_ms": PACE, "send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": {"sessionUpdate": "agent_message_chunk",
            "content": {"type": "text", "text": "$N "}}}}});
    let turns = (0..2 * ROUNDS).flat_map(|_| [expect_prompt(), turn.clone(), end_turn()]);
    setup.script(&turns.collect::<Vec<_>>());
    let mut server = Server::start(&setup);
    let mut client = setup.connect();
    let session = client.new_session();
    let mut seen: Vec<i64> = Vec::new();
    let mut ends = (0, 0);
    // Any sequence of moments will do, as long as a failure can be repeated.
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let first = client.request("session/prompt", prompt(&session, &format!("u{round}")));
        let second = (random & 4 == 0)
            .then(|| client.request("session/prompt", prompt(&session, &format!("q{round}"))));
        std::thread::sleep(Duration::from_millis(random % (CHUNKS * PACE + 60)));
        match random & 3 {
            0 => server.stop_in_peace(),
            1 => server.stop(),
            _ => server.kill(&setup),
        }
        server = Server::start(&setup);
        for turn in [Some(first), second].into_iter().flatten() {
            match client.answer(turn) {
                Ok(result) => {
                    let text = result["_meta"]["acpbox"]["text"].as_str().unwrap();
                    let whole: String = (0..CHUNKS).map(|n| format!("{n} ")).collect();
                    assert_eq!(text, whole);
                    ends.0 += 1;
                }
                Err(error) => {
                    let why = error["message"].as_str().unwrap();
                    assert!(why.contains("restarted"), "{error}");
                    ends.1 += 1;
                }
            }
        }
        seen.extend(numbers(&client.updates()));
    }
    client.prompt(&session, "the last").unwrap();
    seen.extend(numbers(&client.updates()));
    let events = client.events(&session);
    let stored = events.iter().filter(|event| {
        event["message"]["method"] == "session/update"
            && event["direction"] != "client"
            && !event["kind"].as_str().unwrap().ends_with(":late")
    });
    let stored: Vec<i64> = stored.map(|event| event["seq"].as_i64().unwrap()).collect();
    let unique: BTreeSet<i64> = seen.iter().copied().collect();
    assert_eq!(unique.len(), seen.len(), "something was shown twice");
    assert_eq!(seen, stored, "{ends:?}");
    assert!(ends.0 > 0 && ends.1 > 0, "{ends:?}");
}

fn numbers(updates: &[Value]) -> Vec<i64> {
    let number = |update: &Value| update["params"]["_meta"]["acpbox"]["seq"].as_i64();
    updates.iter().map(|it| number(it).unwrap()).collect()
}
