//! Connections that are lost in the middle of a turn.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::{Peer, Server, socket};
use crate::support::client::PATIENCE;
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
fn a_prompt_that_was_being_stored_when_its_sender_left_runs_and_holds_up_no_other() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let long = "x".repeat(400_000);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk(&long),
        end_turn(),
        expect_prompt(),
        chunk("one"),
        end_turn(),
        expect_prompt(),
        chunk("two"),
        end_turn(),
    ]);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    first
        .call("session/prompt", prompt(&session, "u0"))
        .unwrap();
    drop(first);
    let mut keyed = prompt(&session, "u1");
    keyed["_meta"] = json!({"acpbox": {"idempotencyKey": "k"}});

    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let say = |stream: &mut UnixStream, id: u64, method: &str, params: serde_json::Value| {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    say(&mut stream, 1, "initialize", json!({"protocolVersion": 1}));
    for id in 2..8 {
        let params = json!({"sessionId": session});
        say(&mut stream, id, "_acpbox/session/events", params);
    }
    // More is on its way to it than fits, and fails to be written once it is gone.
    stream.read_exact(&mut [0; 1000]).unwrap();
    let lock = Connection::open(setup.state().join("acpbox.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    say(&mut stream, 8, "session/prompt", keyed.clone());
    std::thread::sleep(Duration::from_millis(500));
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    lock.execute_batch("ROLLBACK").unwrap();

    let mut second = Peer::unix(&path).initialize(json!({}));
    let result = second.call("session/prompt", keyed).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "one");
    let next = second.call("session/prompt", prompt(&session, "u2"));
    assert_eq!(next.unwrap()["_meta"]["acpbox"]["text"], "two");
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
}
