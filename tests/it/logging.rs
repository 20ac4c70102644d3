//! Logs: each line says which session and which client it is about.

use serde_json::{Value, json};

use crate::serve::{Peer, socket};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// A process; killed when it is dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn span<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    let spans = line["spans"].as_array()?;
    spans.iter().find(|span| span["name"] == name)
}

#[test]
fn a_log_of_json_names_the_session_of_each_line_that_is_about_one() {
    let setup = Setup::host().argument("--log-format=json").argument("-vv");
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        chunk("one"),
        json!({"raw": "no JSON at all\n"}),
        json!({"send": {"jsonrpc": "2.0", "id": 77, "result": {}}}),
        end_turn(),
    ];
    let first = client.new_session_of(&steps);
    let second = client.new_session_of(&steps);
    for session in [&first, &second] {
        client.prompt(session, "hello").unwrap();
        client
            .call("session/close", json!({"sessionId": session}))
            .unwrap();
    }
    let about = |text: &str, of: &str| {
        let said = client.stderr();
        let lines = said.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        let mut lines = lines.filter(|line| line["message"] == text);
        lines.any(|line| {
            assert!(
                line["timestamp"].is_string() && line["level"].is_string(),
                "{line}"
            );
            span(&line, "session").is_some_and(|session| session["id"] == of)
        })
    };
    for session in [&first, &second] {
        // Of the agent's side.
        for text in [
            "the agent has finished",
            "a response of the agent's that nobody waits for",
        ] {
            assert!(
                wait_until(|| about(text, session)),
                "{text}: {}",
                client.stderr()
            );
        }
    }
    // Whatever is about a session says which, and just one.
    let said = client.stderr();
    let lines = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    for line in lines.filter(|line| {
        line["target"]
            .as_str()
            .unwrap()
            .starts_with("acpbox::session")
    }) {
        let spans = line["spans"].as_array();
        let sessions: std::collections::BTreeSet<_> = (spans.into_iter().flatten())
            .filter(|span| span["name"] == "session")
            .map(|span| span["id"].to_string())
            .collect();
        assert!(sessions.len() <= 1, "{line}");
    }
    client.take_rest();
}

#[test]
fn a_server_logs_which_client_and_says_also_what_people_read_in_json() {
    let setup = Setup::host();
    setup.script(&[expect_prompt(), end_turn()]);
    let log = setup.path().join("log");
    let mut command = crate::serve::command(&setup, &["--log-format", "json", "-v"]);
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut server = Running(command.spawn().unwrap());
    let path = socket(&setup);
    assert!(wait_until(|| path.exists()));
    let mut peer = Peer::unix(&path).initialize(json!({}));
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "hello"))
        .unwrap();
    drop(peer);
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
    let said = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let serving = |line: &&Value| {
        line["message"]
            .as_str()
            .unwrap()
            .starts_with("serving at unix:")
    };
    assert!(lines.iter().any(|line| serving(&line)), "{said}");
    let ended = lines
        .iter()
        .find(|line| line["event"] == "turn_ended")
        .unwrap();
    assert_eq!(span(ended, "session").unwrap()["id"], session.as_str());
}
