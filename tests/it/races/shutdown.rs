//! The end of acpbox while sessions are on their way back.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::meeting::{capable, params_of, resumes};
use super::stored_session;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// How often agents were sent a method.
fn count_of(setup: &Setup, method: &str) -> usize {
    let named = format!("\"{method}\"");
    let lines = setup.received();
    lines.iter().filter(|line| line.contains(&named)).count()
}

#[test]
fn an_end_of_acpbox_does_not_start_agents_for_a_session_that_is_being_brought_back() {
    for setup in [Setup::host(), Setup::new()] {
        let hangs = [
            setup.record(),
            capable(),
            json!({"expect": "session/resume"}),
            json!({"hang": true}),
        ];
        let session = stored_session(&setup, &hangs);
        let mut client = setup.connect();
        let params = params_of(&client, &session);
        client.request("session/resume", params);
        assert!(wait_until(|| count_of(&setup, "session/resume") == 1));
        let began = Instant::now();
        client.signal(Signal::TERM);
        let status = client.wait_for_end(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(count_of(&setup, "initialize"), 1, "{:#?}", setup.received());
        client.take_rest();
        drop(client);
        setup.script(&[capable(), resumes(), expect_prompt(), end_turn()]);
        let mut client = setup.connect();
        client.prompt(&session, "u2").unwrap();
        let events = client.events(&session);
        let exits: Vec<&Value> = events
            .iter()
            .filter(|event| event["kind"] == "_acpbox/agent/exit")
            .collect();
        assert_eq!(exits.len(), 2, "{exits:#?}");
    }
}

#[test]
fn an_end_of_acpbox_while_another_session_is_begun_anew_forgets_none() {
    let setup = Setup::host();
    let hangs = [
        setup.record(),
        json!({"expect": "session/new"}),
        json!({"hang": true}),
    ];
    let session = stored_session(&setup, &hangs);
    let mut client = setup.connect();
    client.request("session/prompt", prompt(&session, "u2"));
    assert!(wait_until(|| count_of(&setup, "session/new") == 1));
    client.signal(Signal::TERM);
    let status = client.wait_for_end(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    client.take_rest();
    drop(client);
    setup.script(&[capable(), resumes(), expect_prompt(), end_turn()]);
    let mut client = setup.connect();
    let params = params_of(&client, &session);
    let loaded = client.call("session/resume", params).unwrap();
    assert_eq!(loaded["_meta"]["acpbox"]["restored"]["tier"], "resume");
}

#[test]
fn a_session_that_comes_back_while_acpbox_ends_is_put_away_too() {
    let setup = Setup::host().limits("exit_grace = \"1500ms\"");
    let resumes_late = [
        setup.record(),
        capable(),
        json!({"expect": "session/resume"}),
        json!({"sleep_ms": 500}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#}),
        expect_prompt(),
        chunk("half"),
        json!({"hang": true}),
    ];
    let session = stored_session(&setup, &[json!({"ignore_sigterm": true})]);
    let mut client = setup.connect();
    // It keeps the end of acpbox waiting.
    client.new_session();
    setup.script(&resumes_late);
    client.request("session/prompt", prompt(&session, "u2"));
    assert!(wait_until(|| count_of(&setup, "session/resume") == 1));
    client.signal(Signal::TERM);
    let status = client.wait_for_end(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert_eq!(count_of(&setup, "session/prompt"), 0, "a turn was begun");
    client.take_rest();
}
