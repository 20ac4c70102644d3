//! Bytes that are no messages: each has its error, and the next session works.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, outcome, value};
use crate::support::setup::Setup;

mod agent;
mod headers;

/// What acpbox may take whatever it is sent, in KiB.
const MEMORY: u64 = 200 * 1024;

/// Sends one line and expects this error, with the id null.
#[track_caller]
fn check(client: &mut Client, line: &[u8], code: i64, message: &str) {
    client.send_bytes(line);
    client.send_bytes(b"\n");
    let answer = value(&client.answer_line("null"));
    let shown = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
    assert_eq!(answer["error"]["message"], message, "{shown}");
    assert_eq!(answer["error"]["code"], code, "{shown}");
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_byte_longer() {
    let setup = Setup::host().limits("line_bytes = 5000");
    let mut client = setup.connect();
    let line = |length: usize| {
        let start = r#"{"jsonrpc":"2.0","id":"x","method":"_v/m","params":{"x":""#;
        let end = r#""}}"#;
        format!(
            "{start}{}{end}",
            "x".repeat(length - start.len() - end.len())
        )
    };
    client.send(&line(5000));
    assert_eq!(
        outcome(&client.answer_line("\"x\"")).unwrap_err()["code"],
        -32601
    );
    client.send(&format!("{}\r", line(5000)));
    assert_eq!(
        outcome(&client.answer_line("\"x\"")).unwrap_err()["code"],
        -32601
    );
    let message =
        "Invalid Request: a message of 5001 bytes is over the limit of 5000 (limits.line_bytes)";
    check(&mut client, line(5001).as_bytes(), -32600, message);
    let message =
        "Invalid Request: a message of 100000 bytes is over the limit of 5000 (limits.line_bytes)";
    check(&mut client, line(100_000).as_bytes(), -32600, message);
    client.check_next_session();
}

#[test]
fn a_gibibyte_without_a_newline_is_refused_in_bounded_memory() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let piece = vec![b'x'; 1 << 20];
    let start = Instant::now();
    for _ in 0..1024 {
        client.send_bytes(&piece);
    }
    let message = "Invalid Request: a message of 1073741824 bytes is over the limit of 67108864 (limits.line_bytes)";
    check(&mut client, b"", -32600, message);
    assert!(
        client.peak_memory() < MEMORY,
        "{} KiB",
        client.peak_memory()
    );
    assert!(start.elapsed() < Duration::from_secs(60));
    client.check_next_session();
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let setup = Setup::host();
    let mut client = setup.connect();
    for byte in b"{\"jsonrpc\":\"2.0\",\"id\":\"slow\",\"method\":\"_acpbox/vm/list\"}\r\n" {
        client.send_bytes(&[*byte]);
        thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(
        outcome(&client.answer_line("\"slow\"")).unwrap(),
        json!({"vms": []})
    );
    client.check_next_session();
}

#[test]
fn what_is_no_json_is_a_parse_error() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"_v/m"}"#;
    check(
        &mut client,
        b"{\"id\":1,\"x\":\"\xff\"}",
        -32700,
        "Parse error: not UTF-8 at byte 13",
    );
    check(
        &mut client,
        b"{\"id\":1,\"x\":\"\xed\xa0\x80\"}",
        -32700,
        "Parse error: not UTF-8 at byte 13",
    );
    check(
        &mut client,
        b"{\"id\":1\0}",
        -32700,
        "Parse error: expected `,` or `}` at line 1 column 8",
    );
    check(
        &mut client,
        b"\0",
        -32700,
        "Parse error: expected value at line 1 column 1",
    );
    check(
        &mut client,
        b"hello",
        -32700,
        "Parse error: expected value at line 1 column 1",
    );
    check(
        &mut client,
        b"{\"id\":1",
        -32700,
        "Parse error: EOF while parsing an object at line 1 column 7",
    );
    let two = format!("{request}{request}");
    check(
        &mut client,
        two.as_bytes(),
        -32700,
        "Parse error: trailing characters at line 1 column 41",
    );
    let spaced = format!("{request} {request}");
    check(
        &mut client,
        spaced.as_bytes(),
        -32700,
        "Parse error: trailing characters at line 1 column 42",
    );
    client.check_next_session();
}

#[test]
fn blank_lines_a_byte_order_mark_and_carriage_returns_do_no_harm() {
    let setup = Setup::host();
    let mut client = setup.start();
    client.send_bytes(b"\r\n  \n\xEF\xBB\xBF{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\r\n\r\n\t\n");
    outcome(&client.answer_line("\"a\"")).unwrap();
    client.send_bytes(
        b"\xEF\xBB\xBF \t{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"_acpbox/vm/list\"}\t \r\n",
    );
    outcome(&client.answer_line("\"b\"")).unwrap();
    client.check_next_session();
}

#[test]
fn lone_surrogates_pass_where_nobody_reads_them_and_are_named_where_somebody_must() {
    let setup = Setup::host();
    let mut client = setup.connect();
    check_answer(
        &mut client,
        r#"{"jsonrpc":"2.0","id":"\ud800","method":"_acpbox/nothing"}"#,
        r#""\ud800""#,
        -32601,
        "Method not found",
    );
    check_answer(
        &mut client,
        r#"{"jsonrpc":"2.0","id":7,"method":"\ud800"}"#,
        "7",
        -32600,
        "Invalid Request: `method` must be a string",
    );
    check_answer(
        &mut client,
        r#"{"jsonrpc":"2.0","id":8,"method":"session/prompt","params":{"sessionId":"\ud800","prompt":[]}}"#,
        "8",
        -32602,
        "Invalid params: `sessionId` is missing, a string",
    );
    client.check_next_session();
}

#[track_caller]
fn check_answer(client: &mut Client, line: &str, id: &str, code: i64, message: &str) {
    client.send(line);
    let error = outcome(&client.answer_line(id)).unwrap_err();
    assert_eq!(error["message"], message, "{line}");
    assert_eq!(error["code"], code, "{line}");
}

#[test]
fn nesting_a_million_levels_deep_is_refused_before_anything_recurses() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let levels = 1_000_000;
    let message = "Parse error: nested deeper than 512 levels (limits.depth)";
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":{deep}}}}}"#);
        check(&mut client, line.as_bytes(), -32700, message);
    }
    let open_only = format!("{{\"params\":{}", "[".repeat(levels));
    check(&mut client, open_only.as_bytes(), -32700, message);
    // In a string they are text.
    let text = "[".repeat(levels);
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"_acpbox/nothing","params":{{"x":"{text}"}}}}"#
    );
    check_answer(&mut client, &line, "2", -32601, "Method not found");
    let allowed = format!("{}{}", "[".repeat(510), "]".repeat(510));
    let line =
        format!(r#"{{"jsonrpc":"2.0","id":3,"method":"_v/deep","params":{{"x":{allowed}}}}}"#);
    check_answer(
        &mut client,
        &line,
        "3",
        -32601,
        "Method not found: `_v/deep`",
    );
    client.check_next_session();
}

#[test]
fn an_object_of_a_million_keys_and_a_batch_of_a_hundred_thousand_do_no_harm() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let keys: Vec<String> = (0..1_000_000)
        .map(|key| format!("\"k{key}\":{key}"))
        .collect();
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"_v/wide","params":{{{}}}}}"#,
        keys.join(",")
    );
    check_answer(
        &mut client,
        &line,
        "1",
        -32601,
        "Method not found: `_v/wide`",
    );
    let line = format!("{{{}}}", keys.join(","));
    check(
        &mut client,
        line.as_bytes(),
        -32600,
        "Invalid Request: the message has neither `method` nor `id`",
    );
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"_v/m"}"#;
    let batch = format!("[{}]", vec![one; 100_000].join(","));
    check(
        &mut client,
        batch.as_bytes(),
        -32600,
        "Invalid Request: ACP has no batches; send one message per line",
    );
    check(
        &mut client,
        b"[]",
        -32600,
        "Invalid Request: ACP has no batches; send one message per line",
    );
    assert!(
        client.peak_memory() < MEMORY,
        "{} KiB",
        client.peak_memory()
    );
    client.check_next_session();
}
