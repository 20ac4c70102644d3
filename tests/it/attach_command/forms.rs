//! Forms and pages that an agent asks for, answered in a terminal.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Attached, serve};
use crate::cli::terminal::Terminal;
use crate::support::client::value;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt};

/// A step that asks for something, and one that waits for the answer.
fn ask(id: &str, mut params: Value) -> [Value; 2] {
    params["sessionId"] = "$SESSION".into();
    let request =
        json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params});
    [json!({"send": request}), json!({"expect_answer": id})]
}

fn form(properties: Value, required: &[&str]) -> Value {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    json!({"mode": "form", "message": "Who are you?\u{1b}]0;x\u{7}", "requestedSchema": schema})
}

/// The results that the agent got.
fn answers(setup: &Setup) -> Vec<Value> {
    let received = setup.received();
    let all = received.iter().map(|line| value(line));
    // What was withdrawn acpbox itself answers, with an error.
    all.filter(|it| it["result"].is_object() && it["id"].is_string())
        .map(|it| it["result"].clone())
        .collect()
}

#[test]
fn a_form_is_filled_in_field_by_field_and_sent_when_it_was_looked_over() {
    let setup = Setup::host();
    let properties = json!({
        "zone": {"type": "string", "title": "Time \u{9b}zone", "oneOf": [
            {"const": "utc", "title": "Universal"}, {"const": "cet", "title": "Central"}]},
        "age": {"type": "integer", "description": "in years", "minimum": 1, "maximum": 150},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b", "c"]}},
        "sure": {"type": "boolean", "default": true}});
    let steps = [
        vec![setup.record(), expect_prompt()],
        ask("one", form(properties, &["zone", "age"])).to_vec(),
        vec![chunk("thank you"), end_turn()],
    ]
    .concat();
    let (_server, peer, session) = serve(&setup, &steps);
    drop(peer);
    let mut attached = Attached::start(&setup, &[&session]);
    let mut say = |line: &str, then: &str| {
        attached.type_in(line);
        attached.wait_for(then);
    };
    say("go\n", "a number from 1 to 2: ");
    say("3\n", "it must be a number from 1 to 2");
    say("2\n", "field 2 of 5");
    say("\n", "this field must be filled in");
    say("200\n", "it must be a whole number from 1 to 150");
    say("42\n", "field 3 of 5");
    say("\n", "field 4 of 5");
    say("3,1\n", "Enter for yes: ");
    say("\n", "y sends this, n asks anew");
    say("go on\n", "that line is neither y nor n, and was not sent");
    assert_eq!(answers(&setup), Vec::<Value>::new());
    say("y\n", "thank you");
    attached.end_input();
    assert_eq!(attached.code(), 0);
    let sent = json!({"action": "accept",
        "content": {"zone": "cet", "age": 42, "tags": ["c", "a"], "sure": true}});
    assert_eq!(answers(&setup), [sent]);
    let shown = attached.shown();
    for words in [
        "Who are you?",
        "1  Universal",
        "age: in years",
        "note: (left out)",
        "tags: c, a",
    ] {
        assert!(shown.contains(words), "no {words} in {shown}");
    }
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
}

#[test]
fn what_is_asked_can_be_declined_or_cancelled_and_a_page_is_shown_with_its_host() {
    let setup = Setup::host();
    let name = json!({"name": {"type": "string"}});
    let page = |id: &str| {
        let url = "https://bank.example.org@example.org/login";
        ask(
            id,
            json!({"mode": "url", "message": "Log in", "url": url, "elicitationId": id}),
        )
    };
    let steps = [
        vec![setup.record(), expect_prompt()],
        ask("one", form(name.clone(), &["name"])).to_vec(),
        ask("two", form(json!({}), &[])).to_vec(),
        ask("three", form(json!({"odd": {"type": "map"}}), &["odd"])).to_vec(),
        page("four").to_vec(),
        page("five").to_vec(),
        ask("six", form(name, &[])).to_vec(),
        vec![json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#})],
    ]
    .concat();
    let (_server, peer, session) = serve(&setup, &steps);
    drop(peer);
    let mut attached = Attached::start(&setup, &[&session]);
    let mut count = 0;
    let mut answer = |attached: &mut Attached, line: &str| {
        attached.type_in(line);
        count += 1;
        assert!(
            wait_until(|| answers(&setup).len() == count),
            "{}",
            attached.shown()
        );
    };
    attached.type_in("/help\ngo\n");
    attached.wait_for("//help sends /help to the agent");
    attached.wait_for("field 1 of 1");
    answer(&mut attached, "/decline\n");
    attached.wait_for("y sends this");
    answer(&mut attached, "y\n");
    attached.wait_for("must be answered in another client");
    answer(&mut attached, "/cancel\n");
    attached.wait_for("is for you to open, at example.org; nothing opens it");
    answer(&mut attached, "y\n");
    assert!(wait_until(|| attached
        .shown()
        .matches("example.org;")
        .count()
        == 2));
    answer(&mut attached, "n\n");
    assert!(wait_until(|| attached
        .shown()
        .matches("field 1 of 1")
        .count()
        == 2));
    attached.signal(rustix::process::Signal::INT);
    attached.wait_for("the turn ended: cancelled");
    attached.end_input();
    assert_eq!(attached.code(), 4);
    let actions: Vec<_> = answers(&setup)
        .iter()
        .map(|it| it["action"].clone())
        .collect();
    assert_eq!(
        actions,
        ["decline", "accept", "cancel", "accept", "decline", "cancel"]
    );
}

#[test]
fn what_is_withdrawn_while_somebody_types_leaves_the_line_alone_and_the_next_is_asked_below() {
    let setup = Setup::host();
    let withdraw = json!({"send": {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": "one"}}});
    let [asks, _] = ask("one", form(json!({"name": {"type": "string"}}), &[]));
    let [asks_next, waits] = ask("two", form(json!({"place": {"type": "string"}}), &[]));
    let go = json!({"expect": "_v/go"});
    let steps = [
        setup.record(),
        expect_prompt(),
        asks,
        asks_next,
        go.clone(),
        chunk("meanwhile"),
        go,
        withdraw,
        waits,
        end_turn(),
    ];
    let (_server, mut peer, session) = serve(&setup, &steps);
    let mut terminal = Terminal::start_by(&["attach", &session], |mut command, arguments| {
        command.args(arguments).env_clear().env("TERM", "xterm");
        let stdio = setup.command();
        let variables = stdio.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        command
    });
    terminal.wait_for("Ctrl-D leaves");
    terminal.type_in("go\n");
    terminal.wait_for("leaves it out: ");
    terminal.type_in("half a na");
    terminal.wait_for("half a na");
    let mut go_on = || {
        let params = json!({"sessionId": session});
        let go = json!({"jsonrpc": "2.0", "method": "_v/go", "params": params});
        writeln!(peer.writer, "{go}").unwrap();
    };
    go_on();
    terminal.wait_for("half a na\r\n");
    terminal.wait_for("meanwhile");
    // What is still asked stands below it again.
    terminal.wait_for_times("leaves it out: ", 2);
    go_on();
    terminal.wait_for("answered elsewhere, or withdrawn");
    terminal.wait_for("place");
    // What was half typed is still in the line.
    terminal.type_in("\u{15}home\n");
    terminal.wait_for("place: home");
    terminal.type_in("y\n");
    assert!(wait_until(|| !answers(&setup).is_empty()));
    terminal.type_in("\u{4}");
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    let sent = json!({"action": "accept", "content": {"place": "home"}});
    assert_eq!(answers(&setup), [sent]);
    assert!(wait_until(|| {
        let status = peer.call("_acpbox/server/status", json!({})).unwrap();
        status["totals"]["turns"] == 1
    }));
}
