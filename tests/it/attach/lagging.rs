//! Clients that do not keep up, and clients that come back.

use std::time::Duration;

use serde_json::{Value, json};

use super::editor::{Editor, shown};
use super::serve;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// The length of a chunk's text, about: more than a queue and a socket hold comes
/// of a few thousand.
const BYTES: usize = 1000;

/// How many updates a client misses while it does not read.
fn updates() -> u64 {
    let given = std::env::var("ACPBOX_TEST_UPDATES").ok();
    given.map_or(20_000, |given| given.parse().unwrap())
}

/// Chunks with their numbers.
fn flood(count: u64) -> Value {
    let mut step = chunk(&format!("$N {}", "x".repeat(BYTES)));
    step["repeat"] = json!(count);
    step
}

/// The numbers that chunks of a flood begin with.
fn numbers(texts: &[(i64, String)]) -> Vec<u64> {
    let number = |text: &String| text.split_once(" x")?.0.parse().ok();
    texts.iter().filter_map(|(_, text)| number(text)).collect()
}

/// Resident memory of a process at its highest, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[test]
fn one_that_stops_reading_stalls_nobody_and_gets_all_in_order_afterwards() {
    let count = updates();
    let setup = Setup::host();
    let (server, path) = serve(&setup);
    let ask = super::ask(7);
    setup.script(&[
        expect_prompt(),
        flood(count),
        ask,
        json!({"expect_answer": 7}),
        chunk("answered"),
        end_turn(),
        expect_prompt(),
        chunk("another turn"),
        end_turn(),
    ]);
    let mut stopped = Editor::connect(&path, "stopped", 100);
    let session = stopped.new_session(&setup);
    let mut reader = Editor::connect(&path, "reader", 200);
    reader.attach("session/resume", &setup, &session, json!({}));
    // The one that stops is even the one that prompts.
    let turn = stopped.send("session/prompt", prompt(&session, "go"));
    stopped.expect_text(&format!("0 {}", "x".repeat(BYTES)));
    stopped.stop(true);
    let asked = reader.expect("session/request_permission");
    reader.select(&asked, "yes");
    reader.expect_text("answered");
    reader.prompt(&session, "and").unwrap();
    let seen = shown(&reader.take());
    assert_eq!(numbers(&seen), (0..count).collect::<Vec<_>>());
    let memory = peak_memory(server.child.id());
    assert!(memory < 150 * 1024, "{memory} KiB");

    stopped.stop(false);
    assert_eq!(stopped.answer(turn).unwrap()["stopReason"], "end_turn");
    // Its result did not overtake what was said before it.
    let before: Vec<Value> = stopped.taken();
    let texts = shown(&before);
    assert_eq!(numbers(&texts), (1..count).collect::<Vec<_>>());
    assert_eq!(texts.last().unwrap().1, "answered");
    let methods: Vec<_> = before
        .iter()
        .filter_map(|it| it["method"].as_str())
        .collect();
    let at = |method| methods.iter().position(|it| *it == method).unwrap();
    assert!(
        at("session/request_permission") < at("$/cancel_request"),
        "in this order"
    );
    assert_eq!(at("session/request_permission"), count as usize - 1);
    // It is live again, and sees what another one says.
    let theirs = stopped.expect_text("and");
    assert_eq!(theirs["params"]["_meta"]["acpbox"]["from"], "reader");
    stopped.expect_text("another turn");
    let seqs: Vec<i64> = texts.iter().map(|(seq, _)| *seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next));
}

#[test]
fn a_single_slow_client_slows_its_agent() {
    const COUNT: u64 = 20_000;
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let done = setup.path().join("done");
    setup.script(&[
        expect_prompt(),
        flood(COUNT),
        json!({"environment": done}),
        end_turn(),
    ]);
    let mut only = Editor::connect(&path, "only", 100);
    let session = only.new_session(&setup);
    let turn = only.send("session/prompt", prompt(&session, "go"));
    only.expect_text(&format!("0 {}", "x".repeat(BYTES)));
    only.stop(true);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!done.exists(), "the agent ran away from its only client");
    // Another that comes is not held up by it, nor is the agent any more.
    let mut other = Editor::connect(&path, "other", 200);
    other.attach("session/load", &setup, &session, json!({}));
    let last = format!("{} {}", COUNT - 1, "x".repeat(BYTES));
    other.expect_text(&last);
    assert!(wait_until(|| done.exists()));
    only.stop(false);
    only.answer(turn).unwrap();
    assert_eq!(
        numbers(&shown(&only.taken())),
        (1..COUNT).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&shown(&other.taken())),
        (0..COUNT - 1).collect::<Vec<_>>()
    );
}

#[test]
fn one_that_comes_back_fifty_times_misses_nothing_and_gets_nothing_twice() {
    const ROUNDS: u64 = 50;
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let mut slow = chunk("$N x");
    slow["repeat"] = json!(4000);
    slow["sleep_ms"] = json!(1);
    setup.script(&[
        expect_prompt(),
        slow.clone(),
        end_turn(),
        expect_prompt(),
        slow,
        end_turn(),
    ]);
    let mut editor = Editor::connect(&path, "editor", 100);
    let session = editor.new_session(&setup);
    let mut steady = Editor::connect(&path, "steady", 200);
    steady.attach("session/load", &setup, &session, json!({}));
    let first = editor.send("session/prompt", prompt(&session, "one"));
    let second = editor.send("session/prompt", prompt(&session, "two"));
    let seed = std::process::id();
    let mut random = seed;
    let mut seen: Vec<(i64, String)> = Vec::new();
    for round in 0..ROUNDS {
        let mut fickle = Editor::connect(&path, "fickle", 1000 + round * 10);
        let after = seen.last().map_or(0, |(seq, _)| *seq);
        let ours = json!({"after": after, "role": "observer"});
        let id = fickle.begin_attach("session/load", &setup, &session, ours);
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let patience = Duration::from_millis(u64::from(random >> 16) % 120);
        match round + 1 == ROUNDS {
            true => {
                fickle.answer(id).unwrap();
                editor.answer(first).unwrap();
                editor.answer(second).unwrap();
                seen.extend(shown(&fickle.taken()));
                while shown_last(&seen) != "3999 x" || seen.len() < 8002 {
                    let message = fickle.receive(Duration::from_secs(15));
                    seen.extend(shown(&[message.unwrap_or_else(|why| {
                        panic!("{why}: {} updates, seed {seed}", seen.len())
                    })]));
                }
            }
            false => {
                std::thread::sleep(patience);
                seen.extend(shown(&fickle.take()));
                fickle.kill();
            }
        }
    }
    let both = |texts: &[(i64, String)]| {
        let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        texts.join("\n")
    };
    let mut expected = Vec::new();
    for prompt in ["one", "two"] {
        expected.push(prompt.to_owned());
        expected.extend((0..4000).map(|number| format!("{number} x")));
    }
    assert_eq!(both(&seen), expected.join("\n"), "seed {seed}");
    steady.expect_seq(seen.last().unwrap().0);
    let steady = shown(&steady.taken());
    // The last of them was taken to wait for it.
    assert_eq!(steady, seen[..seen.len() - 1], "seed {seed}");
}

#[test]
fn one_that_lags_when_the_agent_ends_holds_up_nobody_and_gets_both_agents_words() {
    const COUNT: u64 = 20_000;
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        expect_prompt(),
        flood(COUNT),
        end_turn(),
        json!({"exit": 0}),
    ]);
    let mut reader = Editor::connect(&path, "reader", 100);
    let session = reader.new_session(&setup);
    setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
    let mut stopped = Editor::connect(&path, "stopped", 200);
    stopped.attach("session/resume", &setup, &session, json!({}));
    stopped.stop(true);
    reader.prompt(&session, "go").unwrap();
    let is_live = |reader: &mut Editor| {
        let list = reader.call("session/list", json!({})).unwrap();
        list["sessions"][0]["_meta"]["acpbox"]["state"] == "live"
    };
    assert!(wait_until(|| !is_live(&mut reader)), "the agent runs on");
    reader.prompt(&session, "again").unwrap();
    assert_eq!(
        shown(&reader.taken()).last().map(|(_, text)| text.as_str()),
        Some("back")
    );
    stopped.stop(false);
    stopped.expect_last("back");
    let seen = shown(&stopped.taken());
    assert_eq!(numbers(&seen), (0..COUNT).collect::<Vec<_>>());
    let others: Vec<&str> = (seen.iter())
        .map(|(_, text)| text.as_str())
        .filter(|text| !text.ends_with('x'))
        .collect();
    assert_eq!(others, ["go", "again", "back"]);
    assert!(seen.is_sorted_by(|(one, _), (next, _)| one < next));
}

fn shown_last(seen: &[(i64, String)]) -> &str {
    seen.last().map_or("", |(_, text)| text)
}
