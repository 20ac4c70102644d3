//! Many messages, and messages at the wrong moment.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::outcome;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn a_flood_of_unknown_methods_is_answered_one_by_one() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[]);
    let flood = |name: &str, params: &str| -> String {
        (0..10_000)
            .map(|id| format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{name}{id}\",\"method\":\"_{name}/x\"{params}}}\n"))
            .collect()
    };
    let of_session = format!(",\"params\":{{\"sessionId\":\"{session}\"}}");
    let start = Instant::now();
    for (name, params) in [
        ("acpbox", ""),
        ("none", ""),
        ("session", of_session.as_str()),
    ] {
        let bytes = flood(name, params);
        let mut refused = 0;
        // Sent while the answers are read: a client that does not read is made to wait.
        for (lines, part) in bytes
            .as_bytes()
            .split_inclusive(|byte| *byte == b'\n')
            .collect::<Vec<_>>()
            .chunks(500)
            .enumerate()
        {
            client.send_bytes(&part.concat());
            for id in 0..part.len() {
                let id = lines * 500 + id;
                let error = outcome(&client.answer_line(&format!("\"{name}{id}\""))).unwrap_err();
                refused += u32::from(error["code"] == -32601);
            }
        }
        assert_eq!(refused, 10_000, "{name}");
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(
        client.peak_memory() < 200 * 1024,
        "{} KiB",
        client.peak_memory()
    );
    client.check_next_session();
}

#[test]
fn a_flood_without_a_pause_is_answered_too() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[]);
    let flood: String = (0..3000)
        .map(|id| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"_x/y\",\"params\":{{\"sessionId\":\"{session}\"}}}}\n"))
        .collect();
    client.send_bytes(flood.as_bytes());
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..3000 {
        let error = outcome(&client.receive()).unwrap_err();
        *codes.entry(error["code"].as_i64().unwrap()).or_insert(0) += 1;
    }
    // Relayed to the agent, or refused for the many that wait for it.
    let relayed = codes.remove(&-32601).unwrap_or(0);
    let refused = codes.remove(&-32603).unwrap_or(0);
    assert!(codes.is_empty(), "{codes:?}");
    assert_eq!(relayed + refused, 3000);
    assert!(relayed >= 1024, "{relayed}");
    client.check_next_session();
}

#[test]
fn a_cancel_that_races_the_turns_end_leaves_one_answer() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let mut steps = Vec::new();
    for round in 0..50 {
        steps.push(expect_prompt());
        steps.push(json!({"sleep_ms": round % 4}));
        steps.push(chunk("x"));
        steps.push(end_turn());
    }
    let session = client.new_session_of(&steps);
    for round in 0..50 {
        let turn = client.request("session/prompt", prompt(&session, "go"));
        std::thread::sleep(Duration::from_millis(round % 5));
        client.notify("session/cancel", json!({"sessionId": session}));
        let result = client.answer(turn).unwrap();
        assert_eq!(result["stopReason"], "end_turn");
        assert_eq!(result["_meta"]["acpbox"]["text"], "x");
        assert_eq!(client.texts(), ["x"]);
    }
    assert!(client.is_quiet(Duration::from_millis(100)));
    let ends = client.events(&session);
    let ends = ends
        .iter()
        .filter(|event| event["kind"] == "session/prompt:result");
    assert_eq!(ends.count(), 50);
}
