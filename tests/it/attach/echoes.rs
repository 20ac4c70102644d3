//! Agents that say back what they were told.

use serde_json::{Value, json};

use super::editor::{Editor, shown};
use super::serve;
use crate::support::client::value;
use crate::support::scripted::{script, testy};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

fn echo(text: &str) -> Value {
    let mut step = chunk(text);
    step["send"]["params"]["update"]["sessionUpdate"] = "user_message_chunk".into();
    step
}

fn texts(seen: &[(i64, String)]) -> Vec<&str> {
    seen.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn a_prompt_that_its_agent_says_back_is_seen_once_by_each() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        expect_prompt(),
        echo("go"),
        chunk("a"),
        echo("on"),
        // Once more is something of its own.
        echo("go"),
        end_turn(),
        expect_prompt(),
        echo("next"),
        chunk("b"),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/load", &setup, &session, json!({}));
    let text = |text: &str| json!({"type": "text", "text": text});
    let blocks = json!({"sessionId": session, "prompt": [text("go"), text("on")]});
    one.call("session/prompt", blocks).unwrap();
    two.prompt(&session, "next").unwrap();
    one.expect_last("b");
    let (by_one, by_two) = (shown(&one.take()), shown(&two.take()));
    // Who prompts sees what the agent says of it, and the others the prompt.
    assert_eq!(texts(&by_one), ["go", "a", "on", "go", "next", "b"]);
    assert_eq!(texts(&by_two), ["go", "on", "a", "go", "next", "b"]);
    let mut later = Editor::connect(&path, "later", 300);
    later.attach("session/load", &setup, &session, json!({}));
    let replayed = shown(&later.take());
    assert_eq!(texts(&replayed), texts(&by_two));
    // Number by number what the others saw of the turn of each.
    assert_eq!(replayed[..4], by_two[..4]);
    assert_eq!(replayed[4..], by_one[4..]);
    let events = later.call("_acpbox/session/events", json!({"sessionId": session}));
    let events = events.unwrap();
    let of_kind = |kind: &str| {
        let events = events["events"].as_array().unwrap().iter();
        events.filter(|event| event["kind"] == kind).count()
    };
    assert_eq!(of_kind("user_message_chunk:echo"), 3);
    assert_eq!(of_kind("user_message_chunk"), 1);
}

#[test]
fn one_that_lags_behind_sees_each_prompt_once_too() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let mut flood = chunk(&format!("$N {}", "x".repeat(1000)));
    flood["repeat"] = json!(10_000);
    setup.script(&[
        expect_prompt(),
        chunk("begun"),
        json!({"expect": "_v/go_on"}),
        flood,
        echo("go"),
        chunk("end"),
        end_turn(),
    ]);
    let mut own = Editor::connect(&path, "own", 100);
    let session = own.new_session(&setup);
    let mut other = Editor::connect(&path, "other", 200);
    other.attach("session/load", &setup, &session, json!({}));
    let mut reader = Editor::connect(&path, "reader", 300);
    reader.attach("session/load", &setup, &session, json!({}));
    let turn = own.send("session/prompt", prompt(&session, "go"));
    for editor in [&mut own, &mut other] {
        editor.expect_last("begun");
        editor.stop(true);
    }
    reader.notify("_v/go_on", json!({"sessionId": session}));
    reader.expect_text("end");
    own.stop(false);
    other.stop(false);
    own.answer(turn).unwrap();
    let mut seen = Vec::new();
    for editor in [&mut own, &mut other] {
        editor.expect_last("end");
        let all = shown(&editor.take());
        let short = all.into_iter().filter(|(_, text)| text.len() < 100);
        seen.push(short.collect::<Vec<_>>());
    }
    assert_eq!(texts(&seen[0]), ["begun", "go", "end"]);
    assert_eq!(texts(&seen[1]), ["go", "begun", "end"]);
    let by_reader = shown(&reader.take());
    assert!(!texts(&by_reader[1..]).contains(&"go"));
    assert_eq!(by_reader[..2], seen[1][..2]);
}

#[test]
fn what_acpbox_tells_an_agent_in_front_of_a_prompt_is_shown_to_nobody_where_it_says_that_back() {
    let program = toml::Value::from(testy().display().to_string());
    let table = format!("[agents.told]\ncommand = {program}\ninstructions = \"first-prompt\"\n");
    let setup = Setup::host().config(&table);
    let (_server, path) = serve(&setup);
    let mut own = Editor::connect(&path, "own", 100);
    let mut new_session = |steps: &[Value]| {
        let params = json!({"cwd": setup.workspace(), "mcpServers": [], "_meta": {"acpbox": {
            "agent": "told", "additionalInstructions": "Be brief.",
            "env": {"TESTY_SCRIPT": script(steps)}}}});
        let made = own.call("session/new", params).unwrap();
        let session = made["sessionId"].as_str().unwrap().to_owned();
        let mut other = Editor::connect(&path, "other", 200);
        other.attach("session/load", &setup, &session, json!({}));
        own.prompt(&session, "go").unwrap();
        let mut later = Editor::connect(&path, "later", 300);
        later.attach("session/load", &setup, &session, json!({}));
        own.expect_last("a");
        other.expect_last("a");
        later.expect_last("a");
        [own.take(), other.take(), later.take()]
    };
    new_session(&[setup.record(), expect_prompt(), chunk("a"), end_turn()]);
    let received = setup.received();
    let told = received.iter().map(|line| value(line));
    let told = told.map(|message| message["params"]["prompt"][0]["text"].clone());
    let told = told
        .filter_map(|text| text.as_str().map(str::to_owned))
        .next_back();
    let told = told.unwrap();
    assert!(told.contains("Be brief."), "{told}");
    let seen = new_session(&[
        expect_prompt(),
        echo(&told),
        echo("go"),
        chunk("a"),
        end_turn(),
    ]);
    for messages in seen {
        let all = shown(&messages);
        assert_eq!(texts(&all), ["go", "a"]);
    }
}
