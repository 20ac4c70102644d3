//! The agent's bytes that are no messages.

use serde_json::json;

use super::MEMORY;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt};

#[test]
fn noise_on_the_agents_stdout_goes_to_its_log() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let steps = [
        json!({"raw": "starting…\r\n{\"level\":\"info\"}\n[1]\n\n"}),
        json!({"stderr": "early words"}),
        json!({"expect": "session/new"}),
        json!({"raw": "creating\n"}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"s"}}"#}),
        expect_prompt(),
        json!({"bytes": [0xff, 0xfe, 0, b'\n']}),
        json!({"raw": "{\"jsonrpc\":\"2.0\",\"method\":7}\n"}),
        json!({"stderr": "late words"}),
        json!({"sleep_ms": 100}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    let logs = client.logs(&session);
    let of = |stream: &str| {
        logs.iter()
            .filter_map(|line| line.strip_prefix(stream))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("stdout: "),
        [
            "starting…",
            "{\"level\":\"info\"}",
            "[1]",
            "creating",
            "\u{fffd}\u{fffd}\0",
            "{\"jsonrpc\":\"2.0\",\"method\":7}"
        ]
    );
    assert_eq!(of("stderr: "), ["early words", "late words"]);
    client.check_next_session();
}

#[test]
fn an_agent_that_floods_one_line_ends_its_turn_and_nothing_else() {
    let setup = Setup::new().limits("line_bytes = \"1MiB\"");
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        json!({"repeat": 5000, "raw": "x".repeat(60_000)}),
        json!({"raw": "\n"}),
        json!({"hang": true}),
    ];
    let session = client.new_session_of(&steps);
    let error = client.prompt(&session, "go").unwrap_err();
    assert_eq!(
        error["message"],
        "the agent sent a message of 300000000 bytes, over the limit of 1048576 (limits.line_bytes)"
    );
    assert_eq!(error["code"], -32603);
    assert_eq!(error["data"]["phase"], "turn");
    assert!(
        client.peak_memory() < MEMORY,
        "{} KiB",
        client.peak_memory()
    );
    client.check_next_session();
}

#[test]
fn an_agents_deep_nesting_and_wide_objects_do_no_harm() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let level = "[".repeat(1000);
    let steps = [
        expect_prompt(),
        json!({"raw": "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":"}),
        json!({"repeat": 1000, "raw": level}),
        json!({"raw": "\n"}),
        json!({"raw": "{\"jsonrpc\":\"2.0\",\"method\":\"_v/wide\",\"params\":{\"0\":0"}),
        json!({"repeat": 1_000_000, "raw": ",\"$N\":0"}),
        json!({"raw": "}}\n"}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    let wide = client.expect("_v/wide");
    assert!(wide.len() > 8_000_000);
    let logs = client.logs(&session);
    assert!(
        logs[0].starts_with(
            "stdout: {\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":[[["
        )
    );
    assert!(
        client.peak_memory() < MEMORY,
        "{} KiB",
        client.peak_memory()
    );
    client.check_next_session();
}
