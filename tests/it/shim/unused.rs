//! A server that `--spawn-server` started, once nobody uses it.

use std::time::Duration;

use serde_json::json;

use super::choice::Stop;
use super::{in_time, server_of, socket};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

fn setup(patience: &str) -> Setup {
    Setup::host()
        .argument("--spawn-server")
        .config(&format!("[server]\nspawned_idle_timeout = \"{patience}\""))
}

#[test]
fn it_ends_by_itself_and_the_next_client_starts_another_which_has_its_sessions() {
    let setup = setup("300ms");
    setup.script(&[expect_prompt(), chunk("one"), end_turn()]);
    let mut client = setup.connect();
    let server = Stop::of(server_of(&mut client));
    let session = client.new_session();
    client.prompt(&session, "u").unwrap();
    assert_eq!(client.texts(), ["one"]);
    std::thread::sleep(Duration::from_millis(900));
    assert!(!server.is_over(), "somebody is connected");
    drop(client);
    assert!(in_time(|| server.is_over()), "it goes on");
    assert!(!socket(&setup).exists());
    let mut client = setup.connect();
    let next = Stop::of(server_of(&mut client));
    assert_ne!(next.0, server.0);
    client.prompt(&session, "u2").unwrap();
    assert_eq!(client.texts(), ["one"]);
    drop((client, next));
}

#[test]
fn a_turn_that_runs_and_a_question_that_waits_keep_it() {
    let setup = setup("100ms");
    let ask = json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "c", "title": "t"},
            "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]}}});
    setup.script(&[
        expect_prompt(),
        chunk("one"),
        json!({"sleep_ms": 1200}),
        ask,
        json!({"expect_answer": 0}),
        chunk("two"),
        end_turn(),
    ]);
    let mut client = setup.connect();
    let server = Stop::of(server_of(&mut client));
    let session = client.new_session();
    client.request("session/prompt", prompt(&session, "u"));
    client.expect("session/update");
    // The turn runs on in the server.
    client.close_input();
    client.signal(rustix::process::Signal::KILL);
    let _ = client.wait_for_end(Duration::from_secs(10));
    client.take_rest();
    drop(client);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!server.is_over(), "somebody's question waits");
    let mut client = setup.connect();
    assert_eq!(
        server_of(&mut client),
        u64::from(server.0.as_raw_pid().unsigned_abs())
    );
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    client.call("session/resume", params).unwrap();
    let question = client.expect("session/request_permission");
    client.respond(
        &question,
        r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#,
    );
    let update = client.expect("session/update");
    assert!(update.contains("two"), "{update}");
    drop(client);
    assert!(in_time(|| server.is_over()), "it goes on");
}

#[test]
fn whoever_connects_while_it_ends_has_a_server_all_the_same() {
    const ROUNDS: u64 = 25;
    let setup = setup("50ms");
    setup.script(&[expect_prompt(), chunk("one"), end_turn()]);
    let mut client = setup.connect();
    let session = client.new_session();
    drop(client);
    let mut servers = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        // Around the moment at which it ends.
        std::thread::sleep(Duration::from_millis(20 + round * 11 % 180));
        let mut client = setup.connect();
        let server = server_of(&mut client);
        assert_ne!(server, u64::from(client.child.id()), "{}", client.stderr());
        servers.insert(server);
        client
            .prompt(&session, &format!("u{round}"))
            .unwrap_or_else(|error| {
                panic!("round {round}: {error}");
            });
        assert_eq!(client.texts(), ["one"], "round {round}");
        client
            .call("session/close", json!({"sessionId": session}))
            .unwrap();
        assert_eq!(client.stderr(), "");
        drop(client);
    }
    assert!(servers.len() > 1, "it never ended");
    for server in servers {
        let server = Stop::of(server);
        assert!(in_time(|| server.is_over()), "it goes on");
    }
}
