//! Transcripts as people see them, from a fixture with every kind of event.
//!
//! A line of the fixture is a row of the store; `raw` is a string because not
//! every stored message is JSON.
#![allow(clippy::unwrap_used, reason = "tests")]

mod snapshots;

use acpbox::store::{Direction, EventRow};
use acpbox::transcript::{MarkdownRenderer, TerminalOptions, TerminalRenderer, markdown, terminal};
use serde_json::{Value, json};

#[test]
fn a_live_terminal_shows_a_tool_call_each_time_its_status_changes() {
    let update = |kind: &str, rest: Value| {
        let mut update = json!({"sessionUpdate": kind, "toolCallId": "t"});
        update
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        agent(
            kind,
            json!({"method": "session/update", "params": {"update": update}}),
        )
    };
    let events = [
        update(
            "tool_call",
            json!({"title": "Run tests", "kind": "execute"}),
        ),
        update("tool_call_update", json!({"status": "in_progress"})),
        update(
            "tool_call_update",
            json!({"content": [{"type": "content", "content": {"type": "text", "text": "half"}}]}),
        ),
        update("tool_call_update", json!({"status": "completed"})),
    ];
    let options = TerminalOptions {
        live: true,
        ..TerminalOptions::default()
    };
    insta::assert_snapshot!(terminal(events.clone(), &options), @r###"
    ○ execute Run tests
    ◐ execute Run tests
    ✓ execute Run tests
      half
    "###);
    insta::assert_snapshot!(terminal(events, &TerminalOptions::default()), @r###"
    ✓ execute Run tests
      half
    "###);
}

#[test]
fn a_prompt_that_waits_is_shown_where_its_turn_begins() {
    let mut seq = 0;
    let mut numbered = |event: EventRow| {
        seq += 1;
        EventRow { seq, ..event }
    };
    let prompt = |id: u64, text: &str| {
        let params = json!({"prompt": [{"type": "text", "text": text}]});
        let message = json!({"id": id, "method": "session/prompt", "params": params});
        EventRow {
            direction: Direction::Client,
            ..agent("session/prompt", message)
        }
    };
    let tool = |kind: &str, status: &str| {
        let mut update = json!({"sessionUpdate": kind, "toolCallId": "t", "status": status});
        if kind == "tool_call" {
            update["title"] = "Run tests".into();
        }
        let message = json!({"method": "session/update", "params": {"update": update}});
        agent(kind, message)
    };
    let end = |id: u64, reason: &str| {
        let message = json!({"id": id, "result": {"stopReason": reason}});
        agent("session/prompt:result", message)
    };
    let start = json!({"method": "_acpbox/turn/start", "params": {"promptSeq": 3}});
    let events = [
        prompt(1, "first"),
        tool("tool_call", "in_progress"),
        prompt(2, "second"),
        prompt(3, "third"),
        tool("tool_call_update", "completed"),
        // It is given up while it waits.
        end(3, "cancelled"),
        message("one"),
        end(1, "end_turn"),
        agent("_acpbox/turn/start", start),
        message("two"),
        end(2, "end_turn"),
        // Of an older acpbox, which did not tell where turns begin.
        prompt(4, "fourth"),
        prompt(5, "fifth"),
        message("four"),
        end(4, "end_turn"),
        message("five"),
        prompt(6, "sixth"),
    ]
    .map(&mut numbered);
    insta::assert_snapshot!(terminal(events, &TerminalOptions::default()), @r"
    > first

    ✓ tool Run tests

    > third

    ■ the turn ended: cancelled

    one

    > second

    two

    > fourth

    four

    > fifth

    five

    > sixth
    ");
}

#[test]
fn a_live_terminal_shows_each_chunk_at_once() {
    let options = TerminalOptions {
        live: true,
        ..TerminalOptions::default()
    };
    let mut renderer = TerminalRenderer::new(options);
    let mut steps = Vec::new();
    for text in ["Hel", "lo,\n", "wor", "ld"] {
        let mut step = String::new();
        renderer.feed(&message(text), &mut step).unwrap();
        steps.push(step);
    }
    let mut end = String::new();
    renderer.finish(&mut end).unwrap();
    assert_eq!(
        (steps.concat(), end.as_str()),
        ("Hello,\nworld".into(), "\n")
    );
    assert_eq!(steps, ["Hel", "lo,\n", "wor", "ld"]);
}

#[test]
fn colours_are_added_only_when_asked_for() {
    let plain = TerminalOptions {
        width: 72,
        ..TerminalOptions::default()
    };
    let color = TerminalOptions {
        color: true,
        ..plain.clone()
    };
    let colored = terminal(every_kind(), &color);
    assert!(colored.contains("\u{1b}[32m"), "green for what was added");
    assert_eq!(
        anstream::adapter::strip_str(&colored).to_string(),
        terminal(every_kind(), &plain)
    );
}

#[test]
fn nothing_that_controls_a_terminal_comes_through() {
    // Every string of every event, with something nasty around it.
    let nasty = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}5m\u{202e}\r\u{8}\u{85}";
    fn spoil(value: &mut Value, nasty: &str) {
        match value {
            Value::String(text) => *text = format!("{text}{nasty}"),
            Value::Array(values) => values.iter_mut().for_each(|value| spoil(value, nasty)),
            Value::Object(members) => {
                members.insert(format!("key{nasty}"), json!(1));
                members.values_mut().for_each(|value| spoil(value, nasty));
            }
            _ => {}
        }
    }
    let events = every_kind().into_iter().flat_map(|event| {
        let mut spoilt = serde_json::from_str(&event.raw).unwrap_or(json!("not JSON"));
        spoil(&mut spoilt, nasty);
        // Once with the words that decide what it is left whole, once without.
        let mut kept = spoilt.clone();
        if let Ok(whole) = serde_json::from_str::<Value>(&event.raw) {
            for pointer in [
                "/method",
                "/params/update/sessionUpdate",
                "/params/update/content/type",
            ] {
                if let (Some(to), Some(from)) = (kept.pointer_mut(pointer), whole.pointer(pointer))
                {
                    *to = from.clone();
                }
            }
        }
        let kind = format!("{}{nasty}", event.kind);
        [
            EventRow {
                raw: kept.to_string().into(),
                ..event.clone()
            },
            EventRow {
                raw: spoilt.to_string().into(),
                kind: kind.into(),
                ..event
            },
        ]
    });
    let events: Vec<EventRow> = events.collect();
    for text in [
        terminal(events.clone(), &TerminalOptions::default()),
        terminal(
            events.clone(),
            &TerminalOptions {
                live: true,
                ..TerminalOptions::default()
            },
        ),
        markdown(events),
    ] {
        assert!(text.len() > 3000);
        let bad = text.chars().find(|character| {
            (character.is_control() && !matches!(character, '\n' | '\t'))
                || *character == '\u{202e}'
        });
        assert_eq!(bad, None);
    }
}

#[test]
fn no_message_makes_it_fail() {
    let mut terminal = TerminalRenderer::new(TerminalOptions {
        width: 3,
        ..TerminalOptions::default()
    });
    let mut markdown = MarkdownRenderer::new();
    let mut text = String::new();
    let mut count = 0;
    for event in every_kind() {
        let Ok(whole) = serde_json::from_str(&event.raw) else {
            continue;
        };
        for variant in variants(&whole) {
            let event = EventRow {
                raw: variant.to_string().into(),
                ..event.clone()
            };
            terminal.feed(&event, &mut text).unwrap();
            markdown.feed(&event, &mut text).unwrap();
            text.clear();
            count += 1;
        }
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn a_tool_call_that_never_ends_is_shown_as_it_was() {
    let open = json!({"method": "session/update", "params": {"update":
        {"sessionUpdate": "tool_call", "toolCallId": "t", "title": "Sleep", "status": "in_progress"}}});
    let events = [agent("tool_call", open), message("Bye.")];
    assert_eq!(
        terminal(events, &TerminalOptions::default()),
        "◐ tool Sleep\n\nBye.\n"
    );
}

#[test]
fn what_is_held_back_for_a_tool_call_is_bounded() {
    let open = json!({"method": "session/update", "params": {"update":
        {"sessionUpdate": "tool_call", "toolCallId": "t", "title": "Sleep"}}});
    let mut renderer = TerminalRenderer::new(TerminalOptions::default());
    let mut text = String::new();
    renderer.feed(&agent("tool_call", open), &mut text).unwrap();
    for _ in 0..999 {
        renderer.feed(&message("x"), &mut text).unwrap();
    }
    assert_eq!(text, "", "held, in its order");
    renderer.feed(&message("x"), &mut text).unwrap();
    assert_eq!(text, format!("○ tool Sleep\n\n{}", "x".repeat(1000)));
}

#[test]
fn a_tool_call_that_was_not_waited_for_is_shown_again_when_it_ends() {
    let update = |status: &str| {
        let content = json!([{"type": "content", "content": {"type": "text", "text": status}}]);
        agent(
            "tool_call_update",
            json!({"method": "session/update", "params": {"update":
            {"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": status, "content": content}}}),
        )
    };
    // Once there are too many bytes behind it, once the turn is over before it.
    let end = agent(
        "session/prompt:result",
        json!({"result": {"stopReason": "cancelled"}}),
    );
    for (behind, shown) in [
        (vec![message(&"x".repeat(9 << 20)); 4], 36 << 20),
        (vec![end], 0),
    ] {
        let mut events = vec![update("in_progress")];
        events.extend(behind);
        events.extend([update("failed"), update("failed")]);
        let mut renderer = TerminalRenderer::new(TerminalOptions::default());
        let mut text = String::new();
        for event in &events {
            renderer.feed(event, &mut text).unwrap();
        }
        renderer.finish(&mut text).unwrap();
        assert_eq!(text.matches('x').count(), shown);
        assert_eq!(text.matches("◐ tool t\n  in_progress").count(), 1);
        assert_eq!(text.matches("✗ tool t\n  failed").count(), 1);
    }
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let options = TerminalOptions {
        prompts: false,
        thoughts: false,
        notes: false,
        tool_lines: 0,
        ..TerminalOptions::default()
    };
    let text = terminal(every_kind(), &options);
    for absent in [
        "Fix the greeting",
        "I should look",
        "· ",
        "line 1\n",
        "hullo",
    ] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    for present in [
        "I will look.",
        "✓ read Read greet.rs",
        "! the agent ended",
        "… 13 more lines",
    ] {
        assert!(text.contains(present), "{present} not in {text}");
    }
}

/// A message with every member of it missing or of another type in turn.
pub fn variants(value: &Value) -> Vec<Value> {
    let mut all = vec![
        json!(null),
        json!(7),
        json!("text"),
        json!([[]]),
        json!({"type": "x"}),
    ];
    match value {
        Value::Object(members) => {
            for key in members.keys() {
                for variant in variants(&members[key]) {
                    let mut changed = members.clone();
                    changed[key] = variant;
                    all.push(Value::Object(changed));
                }
                let mut less = members.clone();
                less.remove(key);
                all.push(Value::Object(less));
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                for variant in variants(value) {
                    let mut changed = values.clone();
                    changed[index] = variant;
                    all.push(Value::Array(changed));
                }
            }
        }
        _ => {}
    }
    all
}

pub fn every_kind() -> Vec<EventRow> {
    let lines = include_str!("../fixtures/every-kind.jsonl").lines();
    let rows = lines.zip(1..).map(|(line, seq)| {
        let line: Value = serde_json::from_str(line).unwrap();
        let direction = match line["direction"].as_str().unwrap() {
            "client" => Direction::Client,
            "agent" => Direction::Agent,
            _ => Direction::Acpbox,
        };
        let text = |member: &str| line[member].as_str().unwrap().to_owned();
        EventRow {
            seq,
            direction,
            kind: text("kind").into(),
            raw: text("raw").into(),
            ..row()
        }
    });
    rows.collect()
}

fn agent(kind: &str, message: Value) -> EventRow {
    EventRow {
        kind: kind.to_owned().into(),
        raw: message.to_string().into(),
        ..row()
    }
}

fn message(text: &str) -> EventRow {
    let update =
        json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
    agent(
        "agent_message_chunk",
        json!({"method": "session/update", "params": {"update": update}}),
    )
}

pub fn row() -> EventRow {
    EventRow {
        session: "s".into(),
        seq: 1,
        time: 0,
        direction: Direction::Agent,
        kind: "".into(),
        raw: "".into(),
    }
}
