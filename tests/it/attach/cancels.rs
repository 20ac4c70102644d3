//! Cancels that race what they are to cancel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::editor::{Editor, shown};
use super::serve;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

const ROUNDS: u64 = 50;

/// Numbers by a seed, which is said when the test fails.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let given = std::env::var("ACPBOX_TEST_SEED").ok();
        let seed = given.map_or(19, |seed| seed.parse().unwrap());
        eprintln!("ACPBOX_TEST_SEED={seed}");
        Random(seed)
    }

    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[test]
fn each_prompt_has_one_answer_however_cancels_and_ends_meet() {
    let mut random = Random::new();
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let mut steps = vec![setup.record()];
    // At most three prompts a round, and one behind all.
    for turn in 0..ROUNDS * 3 + 1 {
        let pause = json!({"sleep_ms": random.below(4)});
        steps.extend([
            expect_prompt(),
            chunk(&format!("t{turn}")),
            pause,
            end_turn(),
        ]);
    }
    setup.script(&steps);
    let mut one = Editor::connect(&path, "one", 1_000);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 1_000_000);
    two.attach("session/load", &setup, &session, json!({}));
    let mut answers: HashMap<&str, u64> = HashMap::new();
    let mut seen = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let count = 1 + random.below(3);
        let mut turns = Vec::new();
        for at in 0..count {
            let of = random.below(2) as usize;
            let editor = [&mut one, &mut two].into_iter().nth(of).unwrap();
            let text = format!("p{round}.{at}");
            turns.push((of, editor.send("session/prompt", prompt(&session, &text))));
        }
        std::thread::sleep(Duration::from_micros(random.below(6_000)));
        for _ in 0..1 + random.below(2) {
            let (_, turn) = turns[random.below(count) as usize];
            let by = random.below(2) as usize;
            let editor = [&mut one, &mut two].into_iter().nth(by).unwrap();
            match random.below(3) {
                // Of a request: it is nothing to another client.
                0 => editor.notify("$/cancel_request", json!({ "requestId": turn })),
                _ => editor.notify("session/cancel", json!({ "sessionId": session })),
            }
        }
        for (of, turn) in turns {
            let editor = [&mut one, &mut two].into_iter().nth(of).unwrap();
            let end = match editor.answer(turn) {
                Ok(result) => match result["stopReason"].as_str() {
                    Some("end_turn") => "end_turn",
                    Some("cancelled") => "cancelled",
                    _ => panic!("round {round}: {result}"),
                },
                Err(error) => {
                    let what = "Request cancelled: the prompt had not begun";
                    assert_eq!(error["message"], what, "round {round}");
                    "not begun"
                }
            };
            *answers.entry(end).or_default() += 1;
        }
        for (seen, editor) in seen.iter_mut().zip([&mut one, &mut two]) {
            seen.extend(editor.take());
        }
    }
    eprintln!("{answers:?}");
    assert!(
        answers["end_turn"] > 0 && answers["cancelled"] > 0,
        "{answers:?}"
    );
    // The next one works, and no cancel was left over for it.
    let result = one.prompt(&session, "finally").unwrap();
    assert_eq!(result["stopReason"], "end_turn");
    let last = result["_meta"]["acpbox"]["text"].as_str().unwrap();
    two.expect_last(last);

    let mut third = Editor::connect(&path, "third", 5_000_000);
    third.attach("session/load", &setup, &session, json!({}));
    let of_agent = |messages: &[Value]| -> Vec<(i64, String)> {
        let all = shown(messages).into_iter();
        all.filter(|(_, text)| text.starts_with('t')).collect()
    };
    let stored = of_agent(&third.take());
    let turns = setup.received();
    let turns = turns
        .iter()
        .filter(|line| line.contains("\"session/prompt\""));
    assert_eq!(stored.len(), turns.count(), "an update of each turn");
    for (mut seen, editor) in seen.into_iter().zip([&mut one, &mut two]) {
        seen.extend(editor.take());
        let is_answer = |it: &&Value| it.get("method").is_none();
        let second: Vec<_> = seen.iter().filter(is_answer).collect();
        assert_eq!(second, Vec::<&Value>::new(), "answered twice");
        assert_eq!(of_agent(&seen), stored);
    }
}

#[test]
fn a_prompt_whose_client_is_lost_while_it_is_let_in_runs_once() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let mut stream = chunk("x");
    stream["repeat"] = json!(200);
    stream["sleep_ms"] = json!(20);
    setup.script(&[
        expect_prompt(),
        chunk("begun"),
        // All that time it reads nothing.
        stream,
        json!({"expect": "_v/long"}),
        end_turn(),
        expect_prompt(),
        chunk("second"),
        end_turn(),
        expect_prompt(),
        chunk("third"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let first = one.send("session/prompt", prompt(&session, "go"));
    one.expect_text("begun");
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let long = json!({"sessionId": session, "long": "x".repeat(5_000_000)});
    two.notify("_v/long", long);
    let mut keyed = prompt(&session, "second");
    keyed["_meta"] = json!({"acpbox": {"idempotencyKey": "k"}});
    two.send("session/prompt", keyed.clone());
    let page = json!({"sessionId": session, "kinds": ["session/prompt"]});
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let events = one.call("_acpbox/session/events", page.clone()).unwrap();
        if events["events"].as_array().unwrap().len() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{events:#}");
    }
    two.kill();
    let mut three = Editor::connect(&path, "three", 300);
    let second = three.call("session/prompt", keyed).unwrap();
    assert_eq!(second["_meta"]["acpbox"]["text"], "second");
    one.answer(first).unwrap();
    let third = one.prompt(&session, "third").unwrap();
    assert_eq!(third["_meta"]["acpbox"]["text"], "third");
}
