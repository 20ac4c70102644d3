//! Several editors on several sessions, under a server that goes again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Server, break_connections, in_time};
use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

const ROUNDS: usize = 12;
/// So many if turns only ended in one way until then.
const MOST_ROUNDS: usize = 48;
const EDITORS: usize = 3;
const SESSIONS: usize = 3;

/// Chunks of a turn, and how long each takes.
const CHUNKS: u64 = 40;
const PACE: u64 = 3;

/// What one editor saw of a session.
#[derive(Default)]
struct Seen {
    /// The numbers of the agent's updates.
    said: Vec<i64>,
    /// Prompts that it was shown.
    asked: Vec<String>,
}

#[test]
fn every_editor_sees_every_update_once_and_each_prompt_of_another_at_most_once() {
    let setup = Setup::host();
    let turn = json!({"repeat": CHUNKS, "sleep_ms": PACE, "send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": {"sessionUpdate": "agent_message_chunk",
            "content": {"type": "text", "text": "$N "}}}}});
    let turns = (0..3 * MOST_ROUNDS).flat_map(|_| [expect_prompt(), turn.clone(), end_turn()]);
    setup.script(&turns.collect::<Vec<_>>());
    let mut server = Server::start(&setup);
    let mut editors: Vec<Client> = (0..EDITORS).map(|_| setup.connect()).collect();
    let sessions: Vec<String> = (0..SESSIONS)
        .map(|number| editors[number % EDITORS].new_session())
        .collect();
    for (number, session) in sessions.iter().enumerate() {
        for (at, editor) in editors.iter_mut().enumerate() {
            if at != number % EDITORS {
                let params =
                    json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
                editor.call("session/load", params).unwrap();
            }
        }
    }
    let mut seen: BTreeMap<(usize, usize), Seen> = BTreeMap::new();
    // Who sent each prompt, to which session, and whether it was answered in peace.
    let mut prompts: Vec<(String, usize, usize, bool)> = Vec::new();
    // Any sequence of moments will do, as long as a failure can be repeated.
    let given = std::env::var("ACPBOX_TEST_SEED").ok();
    let mut random = given.map_or(0x9E37_79B9_7F4A_7C15, |seed| seed.parse::<u64>().unwrap());
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..MOST_ROUNDS {
        let has = |is_answered| prompts.iter().any(|prompt| prompt.3 == is_answered);
        if round >= ROUNDS && has(true) && has(false) {
            break;
        }
        let mut waiting = Vec::new();
        for count in 0..=next(3) {
            let (editor, session) = (
                next(EDITORS as u64) as usize,
                next(SESSIONS as u64) as usize,
            );
            let text = format!("p{round}.{count}");
            let params = prompt(&sessions[session], &text);
            let id = editors[editor].request("session/prompt", params);
            waiting.push((id, editor, session, text));
        }
        std::thread::sleep(Duration::from_millis(next(CHUNKS * PACE * 2)));
        match next(5) {
            // Only the connections go.
            0 => break_connections(&server),
            end => {
                match end {
                    1 => server.stop_in_peace(),
                    2 => server.stop(),
                    _ => server.kill(&setup),
                }
                server = Server::start(&setup);
            }
        }
        for (id, editor, session, text) in waiting {
            let answer = editors[editor].answer(id);
            if let Err(error) = &answer {
                let why = error["message"].as_str().unwrap();
                assert!(why.contains("restarted"), "{error}");
            }
            prompts.push((text, editor, session, answer.is_ok()));
        }
    }
    // The last turn of each comes to all, and with it all before.
    for session in &sessions {
        let result = editors[0].prompt(session, "the last").unwrap();
        assert_eq!(result["stopReason"], "end_turn");
    }
    for (number, session) in sessions.iter().enumerate() {
        let events = editors[0].events(session);
        let is_said = |event: &&Value| event["kind"] == "agent_message_chunk";
        let stored: Vec<i64> = (events.iter().filter(is_said))
            .map(|event| event["seq"].as_i64().unwrap())
            .collect();
        for (at, editor) in editors.iter_mut().enumerate() {
            let seen = seen.entry((at, number)).or_default();
            let is_all = in_time(|| {
                // Whatever came is taken in with the answer.
                editor.call("session/list", json!({})).unwrap();
                for update in editor.updates_of(session) {
                    take(seen, &update);
                }
                seen.said.len() >= stored.len()
            });
            assert!(
                is_all,
                "editor {at}, session {number}: {} of {}",
                seen.said.len(),
                stored.len()
            );
            assert_eq!(seen.said, stored, "editor {at}, session {number}");
        }
    }
    assert!(
        prompts.iter().any(|prompt| prompt.3),
        "no turn ended in peace"
    );
    assert!(
        prompts.iter().any(|prompt| !prompt.3),
        "no turn was cut short"
    );
    for (text, sender, session, is_answered) in &prompts {
        for at in 0..EDITORS {
            let shown = &seen[&(at, *session)].asked;
            let count = shown.iter().filter(|it| *it == text).count();
            match at == *sender {
                true => assert_eq!(count, 0, "{text} was shown to its own sender"),
                false if *is_answered => assert_eq!(count, 1, "{text} to editor {at}"),
                false => assert!(count <= 1, "{text} to editor {at}: {count} times"),
            }
        }
    }
}

fn take(seen: &mut Seen, update: &Value) {
    let params = &update["params"];
    let text = params["update"]["content"]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    match params["update"]["sessionUpdate"].as_str().unwrap() {
        "user_message_chunk" => seen.asked.push(text),
        "agent_message_chunk" => {
            let seq = params["_meta"]["acpbox"]["seq"].as_i64().unwrap();
            seen.said.push(seq);
        }
        other => panic!("{other}"),
    }
}
