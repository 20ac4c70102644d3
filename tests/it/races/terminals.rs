//! Agents that ask for more commands than they may have.

use serde_json::json;

use crate::callbacks::answers;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{end_turn, expect_prompt};

#[test]
fn a_burst_of_commands_is_held_to_the_limit() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let create = json!({"jsonrpc": "2.0", "id": "$N", "method": "terminal/create",
        "params": {"sessionId": "$SESSION", "command": "true"}});
    let create = create.to_string().replace("\"$N\"", "$N");
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"repeat": 160, "send": create}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    assert!(wait_until(|| setup.received().len() >= 3 + 160));
    let answered = answers(&setup, 160);
    let opened = answered
        .iter()
        .filter(|answer| answer.get("result").is_some());
    assert_eq!(opened.count(), 128);
}

#[test]
fn only_so_many_waits_for_commands_are_kept() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let create = json!({"jsonrpc": "2.0", "id": 0, "method": "terminal/create",
        "params": {"sessionId": "$SESSION", "command": "sleep", "args": ["100"]}});
    let wait = json!({"jsonrpc": "2.0", "id": 1, "method": "terminal/wait_for_exit",
        "params": {"sessionId": "$SESSION", "terminalId": "term_1"}});
    let wait_last = json!({"jsonrpc": "2.0", "id": 2, "method": "terminal/wait_for_exit",
        "params": {"sessionId": "$SESSION", "terminalId": "term_1"}});
    let kill = json!({"jsonrpc": "2.0", "id": 3, "method": "terminal/kill",
        "params": {"sessionId": "$SESSION", "terminalId": "term_1"}});
    let steps = [
        setup.record(),
        expect_prompt(),
        json!({"send": create}),
        json!({"expect_answer": 0}),
        json!({"repeat": 1024, "send": wait}),
        json!({"send": wait_last}),
        json!({"expect_answer": 2}),
        end_turn(),
        expect_prompt(),
        json!({"send": kill}),
        json!({"expect_answer": 3}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    client.prompt(&session, "end it").unwrap();
    let received = setup.received();
    let refused = received
        .iter()
        .find(|line| line.contains("\"id\":2,") && !line.contains("\"method\""))
        .unwrap();
    assert!(
        refused.contains("too many requests for terminals wait in this session"),
        "{refused}"
    );
}
