//! Much at once, and large: all of it arrives, in order.

use serde_json::json;

use crate::support::client::value;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, expect_prompt, prompt};

#[test]
fn notifications_of_the_clients_reach_the_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [setup.record(), json!({"expect": "_vendor/last"})];
    let session = client.new_session_of(&steps);
    let lines = [
        format!(
            r#"{{"jsonrpc":"2.0","method":"_vendor/tell","params":{{"sessionId":"{session}","n":1e400}}}}"#
        ),
        r#"{"jsonrpc":"2.0","method":"_vendor/without_session","params":{"n":1.0}}"#.into(),
        r#"{"jsonrpc":"2.0","method":"_vendor/without_params"}"#.into(),
        format!(
            r#"{{"jsonrpc":"2.0","method":"_vendor/last","params":{{"sessionId":"{session}"}}}}"#
        ),
    ];
    for line in &lines {
        client.send(line);
    }
    let is_there = || {
        setup
            .received()
            .iter()
            .any(|line| line.contains("_vendor/last"))
    };
    assert!(wait_until(is_there), "{:#?}", setup.received());
    let received = setup.received();
    let expected: Vec<String> = lines
        .iter()
        .map(|line| line.replace(&session, "testy-session"))
        .collect();
    assert_eq!(received[received.len() - 4..], expected);
}

#[test]
fn a_burst_of_notifications_loses_none_and_keeps_its_order() {
    let setup = Setup::new();
    let mut client = setup.connect();
    // Slow to read at first.
    let steps = [
        json!({"sleep_ms": 300}),
        setup.record(),
        json!({"expect": "_vendor/last"}),
        chunk("all here"),
    ];
    let mut first = vec![json!({"expect": "_vendor/first"})];
    first.extend(steps);
    let session = client.new_session_of(&first);
    client.notify("_vendor/first", json!({"sessionId": session}));
    let count = 20_000;
    let mut burst = String::new();
    for number in 0..count {
        burst += &format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"_v/n\",\"params\":{{\"sessionId\":\"{session}\",\"n\":{number}}}}}\n"
        );
    }
    client.send_bytes(burst.as_bytes());
    client.notify("_vendor/last", json!({"sessionId": session}));
    client.expect("session/update");
    let received = setup.received();
    let numbers: Vec<u64> = received
        .iter()
        .filter_map(|line| value(line)["params"]["n"].as_u64())
        .collect();
    assert_eq!(numbers.len(), count as usize);
    assert!(numbers.is_sorted());
}

#[test]
fn a_burst_of_the_agents_requests_has_every_one_answered() {
    let setup = Setup::host();
    let mut client = setup.start();
    client.initialize_offering(json!({}));
    // Refused by acpbox itself, more than any queue holds.
    let ask = r#"{"id":$N,"method":"fs/read_text_file"}"#;
    let steps = [
        expect_prompt(),
        json!({"repeat": 5000, "send": ask}),
        json!({"expect_answer": 4999}),
        json!({"send": {"jsonrpc": "2.0", "method": "session/update", "params": {}}}),
    ];
    let session = client.new_session_of(&steps);
    client.request("session/prompt", prompt(&session, "go"));
    client.expect("session/update");
    client.kill();
}

#[test]
fn a_large_prompt_follows_right_behind_other_requests() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&[setup.record()]);
    let mode = client.request(
        "session/set_mode",
        json!({"sessionId": session, "modeId": "x"}),
    );
    // More than may wait for one peer: it passes alone.
    let text = "x".repeat(6 << 20);
    let result = client.prompt(&session, &text).unwrap();
    assert_eq!(result["stopReason"], "end_turn");
    assert_eq!(client.answer(mode).unwrap_err()["code"], -32601);
    let prompt = setup
        .received()
        .into_iter()
        .find(|line| line.contains("session/prompt"));
    assert!(prompt.unwrap().contains(&text));
}

#[test]
fn an_agent_that_reads_nothing_holds_its_client_up_only_once() {
    let setup = Setup::new().limits("cancel_grace = \"300ms\"");
    let mut client = setup.connect();
    let stuck = client.new_session_of(&[expect_prompt(), chunk("stuck"), json!({"stop": true})]);
    let other = client.new_session_of(&[]);
    let turn = client.request("session/prompt", prompt(&stuck, "go"));
    client.expect("session/update");
    let text = "x".repeat(1 << 20);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        client.notify("_v/big", json!({"sessionId": stuck, "text": text}));
    }
    let answered = client.request("_v/big", json!({"sessionId": stuck, "text": text}));
    client.prompt(&other, "are you there?").unwrap();
    assert!(
        start.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let error = client.answer(answered).unwrap_err();
    assert_eq!(
        error["message"],
        "the agent `inline` cannot be reached: the peer does not read: 4194304 bytes already wait for it"
    );
    client.notify("session/cancel", json!({"sessionId": stuck}));
    assert_eq!(client.answer(turn).unwrap()["stopReason"], "cancelled");
    assert!(
        client.peak_memory() < 100 * 1024,
        "{} KiB",
        client.peak_memory()
    );
    client
        .call("session/close", json!({"sessionId": stuck}))
        .unwrap();
    client.check_next_session();
}

#[test]
fn a_client_that_reads_nothing_makes_the_agent_wait_and_loses_nothing() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let count = 30_000;
    let text = "x".repeat(400);
    let update = json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "$SESSION",
        "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": format!("$N {text}")}}}});
    let steps = [
        expect_prompt(),
        json!({"repeat": count, "send": update}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"end_turn"}}"#}),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(
        client.peak_memory() < 80 * 1024,
        "{} KiB",
        client.peak_memory()
    );
    client.answer(turn).unwrap();
    let updates = client.updates();
    assert_eq!(updates.len(), count);
    for (number, update) in updates.iter().enumerate() {
        let text = update["params"]["update"]["content"]["text"]
            .as_str()
            .unwrap();
        assert!(text.starts_with(&format!("{number} ")), "{text}");
        let seq = &update["params"]["_meta"]["acpbox"]["seq"];
        assert_eq!(
            *seq,
            json!(
                updates[0]["params"]["_meta"]["acpbox"]["seq"]
                    .as_u64()
                    .unwrap()
                    + number as u64
            )
        );
    }
    assert!(
        client.peak_memory() < 80 * 1024,
        "{} KiB",
        client.peak_memory()
    );
}
