//! Connections that are lost in the middle of a turn.

use std::io::Write;

use serde_json::json;

use super::{Peer, Server, socket};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn a_prompt_whose_connection_was_lost_is_sent_again_and_runs_once() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk("one "),
        json!({"expect": "_v/go_on"}),
        chunk("two"),
        end_turn(),
    ]);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    let mut keyed = prompt(&session, "u1");
    keyed["_meta"] = json!({"acpbox": {"idempotencyKey": "k"}});
    first.send("session/prompt", keyed.clone());
    assert_eq!(first.receive().unwrap()["method"], "session/update");
    drop(first);
    let mut second = Peer::unix(&path).initialize(json!({}));
    let again = second.send("session/prompt", keyed.clone());
    let go_on = json!({"jsonrpc": "2.0", "method": "_v/go_on", "params": {"sessionId": session}});
    writeln!(second.writer, "{go_on}").unwrap();
    let result = second.answer(again).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "one two");
    assert_eq!(second.texts(), ["two"]);
    let stored = second.call("session/prompt", keyed).unwrap();
    assert_eq!(stored["_meta"]["acpbox"]["repeated"], true);
    let prompts = setup.received();
    let prompts = prompts
        .iter()
        .filter(|line| line.contains("session/prompt"));
    assert_eq!(prompts.count(), 1);
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_prompt_whose_connection_was_lost_while_it_was_stored_runs_too() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    setup.script(&[setup.record(), expect_prompt(), chunk("done"), end_turn()]);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    let mut keyed = prompt(&session, "u1");
    keyed["_meta"] = json!({"acpbox": {"idempotencyKey": "k"}});
    let lock = rusqlite::Connection::open(setup.path().join("state/acpbox/acpbox.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Its answer cannot be written: that is how the end of the connection is seen
    // before the prompt was let in.
    first.send("session/list", json!({}));
    first.send("session/prompt", keyed.clone());
    drop(first);
    let mut second = Peer::unix(&path).initialize(json!({}));
    let is_alone = || {
        let status = second.call("_acpbox/server/status", json!({})).unwrap();
        status["clients"].as_array().unwrap().len() == 1
    };
    assert!(crate::support::setup::wait_until(is_alone));
    lock.execute_batch("ROLLBACK").unwrap();
    let result = second.call("session/prompt", keyed).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "done");
    let prompts = setup.received();
    let prompts = prompts
        .iter()
        .filter(|line| line.contains("session/prompt"));
    assert_eq!(prompts.count(), 1);
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
}
