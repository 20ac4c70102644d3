//! Questions that are made to be misread.

use serde_json::{Value, json};

use super::*;
use crate::serve::{Peer, Server, socket};
use crate::status;

/// Moves the cursor, clears, sets the clipboard, and turns the reading direction.
const NASTY: &str = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}5m\u{202e}\u{2066}\r\u{8}\u{85}";

fn is_plain(shown: &str) -> bool {
    !shown.chars().any(|it| {
        (it.is_control() && it != '\n')
            || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

#[test]
fn yes_is_said_only_where_one_option_is_clearly_a_yes() {
    let place = Place::new();
    let option = |id: Value, kind: &str| json!({"optionId": id, "name": "Allow", "kind": kind});
    let (yes, no) = (
        option(json!("y"), "allow_once"),
        option(json!("n"), "reject_once"),
    );
    let odd = [
        json!([]),
        json!([yes]),
        json!([no]),
        json!([option(json!("y"), "allow_always")]),
        json!([yes, option(json!("y"), "reject_once")]),
        json!([yes, option(json!("z"), "allow_once"), no]),
        json!([option(json!(""), "allow_once"), no]),
        json!([option(json!(7), "allow_once"), no]),
        json!([option(json!("y"), "ALLOW_ONCE"), no]),
        json!([yes, no, option(json!("x"), "allow_for_ever")]),
        json!({"0": yes}),
        json!(null),
    ];
    let received = place.workspace().join("received");
    let mut steps = vec![json!({"record": received}), expect_prompt()];
    for (id, options) in (0..).zip(&odd) {
        steps.extend(asks_with(id, &command("x"), options));
    }
    steps.extend(asks_with(99, &command("x"), &json!([yes, no])));
    steps.push(end_turn());
    let file = place.workspace().join("script");
    std::fs::write(&file, script(&steps)).unwrap();
    place.configure(&format!(
        "[agents.testy]\ncommand = {:?}\nargs = [{file:?}]\ninstructions = \"none\"\n",
        testy()
    ));
    place
        .acpbox(&["run", "--agent", "testy", "--yes", "go"])
        .expect(0);
    let text = std::fs::read_to_string(received).unwrap();
    let answers = text
        .lines()
        .map(value)
        .filter(|it| it.get("method").is_none());
    let answers: Vec<Value> = answers.collect();
    assert_eq!(answers.len(), odd.len() + 1, "{answers:#?}");
    for answer in answers {
        let id = answer["id"].as_u64().unwrap() as usize;
        match odd.get(id) {
            Some(options) => assert!(
                answer["result"] == value(CANCELLED) || answer.get("error").is_some(),
                "{options}: {answer}"
            ),
            None => assert_eq!(option_of(&answer), "y"),
        }
    }
}

fn option_of(answer: &Value) -> &str {
    option(&answer["result"])
}

#[test]
fn no_title_name_or_option_touches_the_terminal_that_shows_it() {
    let setup = Setup::host();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let nasty = |word: &str| format!("{NASTY}{word}");
    let call = json!({"toolCallId": "c", "kind": "execute", "title": nasty("TITLE"),
        "rawInput": {"command": "make x"}});
    let options = json!([
        {"optionId": "y", "name": nasty("YES"), "kind": "allow_always"},
        {"optionId": "n", "name": nasty("NO"), "kind": "reject_once"},
    ]);
    let mut steps = vec![expect_prompt()];
    steps.extend(asks_with(0, &call, &options));
    steps.push(end_turn());
    setup.script(&steps);
    let mut peer = Peer::unix(&socket(&setup));
    let info = json!({"name": "n", "title": nasty("CLIENT"), "version": nasty("VERSION")});
    let params = json!({"protocolVersion": 1, "clientCapabilities": {}, "clientInfo": info});
    peer.call("initialize", params).unwrap();
    let session = peer.new_session(&setup);
    let turn = peer.send("session/prompt", prompt(&session, &nasty("PROMPT")));
    let asked = loop {
        let message = peer.receive().unwrap();
        if message["method"] == REQUEST {
            break message;
        }
    };
    // It came as the agent wrote it.
    assert_eq!(asked["params"]["toolCall"]["title"], nasty("TITLE"));
    let check = |arguments: &[&str], words: &[&str]| {
        let output = status::command(&setup, arguments).output().unwrap();
        for shown in [&output.stdout, &output.stderr] {
            let shown = std::str::from_utf8(shown).unwrap();
            assert!(is_plain(shown), "{arguments:?}: {shown:?}");
        }
        let shown = String::from_utf8_lossy(&output.stdout);
        for word in words {
            assert!(shown.contains(word), "{arguments:?}: no {word} in {shown}");
        }
    };
    check(&["status"], &["CLIENT", "VERSION", "PROMPT"]);
    check(&["attach", &session], &["TITLE", "YES", "NO"]);
    let result = json!({"outcome": {"outcome": "selected", "optionId": "y"}});
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    std::io::Write::write_all(&mut peer.writer, format!("{answer}\n").as_bytes()).unwrap();
    peer.answer(turn).unwrap();
    check(&["sessions", "show", &session], &["PROMPT", "TITLE"]);
    check(&["sessions", "list"], &["PROMPT"]);
    check(&["permissions", "list"], &[]);
    check(&["logs", &session], &[]);
    // What was meant to deceive is no subject of an answer for always.
    assert_eq!(listed(&setup), Vec::<Value>::new());
}
