//! `Content-Length` headers, and where a stream ends.

use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;

use serde_json::json;

use super::MEMORY;
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// What acpbox says to an input that ends.
fn answer_to(setup: &Setup, input: &[u8]) -> (String, Option<i32>) {
    let mut child = setup
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = thread::spawn(move || drop(stdin.write_all(&input)));
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    writing.join().unwrap();
    (output, child.wait().unwrap().code())
}

fn parse_error(why: &str) -> String {
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": format!("Parse error: {why}")}});
    error.to_string()
}

#[test]
fn an_input_that_ends_inside_a_message_is_named() {
    let setup = Setup::host();
    let lines = |input: &str| answer_to(&setup, input.as_bytes());
    assert_eq!(lines(""), (String::new(), Some(0)));
    assert_eq!(lines("\n\n  "), (String::new(), Some(0)));
    let (output, code) = lines("{\"jsonrpc\":\"2.0\",\"id\":1,");
    assert_eq!(
        output.trim(),
        parse_error("EOF while parsing a value at line 1 column 24")
    );
    assert_eq!(code, Some(0));
    // A whole message without its newline counts.
    let (output, _) = lines(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}",
    );
    assert_eq!(value(output.trim())["result"]["protocolVersion"], 1);
    let body = |error: String| format!("Content-Length: {}\r\n\r\n{error}", error.len());
    let ended = |bytes| {
        body(parse_error(&format!(
            "the stream ended inside a message, after {bytes} bytes of it"
        )))
    };
    assert_eq!(
        lines("Content-Length: 100\r\n\r\n{\"jsonrpc\"").0,
        ended(33)
    );
    assert_eq!(lines("Content-Length: 1").0, ended(17));
}

#[test]
fn headers_that_cannot_be_followed_end_the_connection_with_the_reason() {
    let setup = Setup::host();
    let check = |input: &str, why: &str| {
        let error = parse_error(why);
        let expected = format!("Content-Length: {}\r\n\r\n{error}", error.len());
        assert_eq!(
            answer_to(&setup, input.as_bytes()),
            (expected, Some(0)),
            "{input}"
        );
    };
    check(
        "Content-Length: -1\r\n\r\n{}",
        "`Content-Length: -1` is not a number of bytes",
    );
    check(
        "Content-Length: 99999999999999999999999\r\n\r\n",
        "`Content-Length: 99999999999999999999999` is not a number of bytes",
    );
    check(
        "Content-Type: x\r\n\r\n{}",
        "no `Content-Length` among the headers",
    );
    check(
        "Content\r\n\r\n{}",
        "`Content` is no header; expected `Content-Length: N`",
    );
    let endless = format!("Content-X: {}", "x".repeat(20_000));
    check(
        &endless,
        "headers of more than 8192 bytes; expected `Content-Length: N` and an empty line",
    );
}

#[test]
fn a_length_beyond_all_memory_is_refused_without_any() {
    let setup = Setup::host();
    let mut client = setup.connect_with_headers();
    client.send_bytes(b"Content-Length: 900000000000000\r\n\r\n{\"jsonrpc\"");
    let answer = value(&client.answer_line("null"));
    let message = "Invalid Request: a message of 900000000000000 bytes is over the limit of 67108864 (limits.line_bytes)";
    assert_eq!(answer["error"]["message"], message);
    assert_eq!(answer["error"]["code"], -32600);
    client.send_bytes(&vec![b'x'; 10 << 20]);
    assert!(
        client.peak_memory() < MEMORY,
        "{} KiB",
        client.peak_memory()
    );
    drop(client);
    setup.connect_with_headers().check_next_session();
}

#[test]
fn a_body_over_the_limit_is_skipped_and_the_next_is_read() {
    let setup = Setup::host().limits("line_bytes = 5000");
    let mut client = setup.connect_with_headers();
    client.send_bytes(format!("Content-Length: 6000\r\n\r\n{}", "x".repeat(6000)).as_bytes());
    let answer = value(&client.answer_line("null"));
    assert_eq!(answer["error"]["code"], -32600);
    client.check_next_session();
}

#[test]
fn a_whole_session_works_behind_content_length_headers() {
    let setup = Setup::new();
    let mut client = setup.connect_with_headers();
    let steps = [
        expect_prompt(),
        chunk("größer als ASCII"),
        json!({"send": r#"{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":"$SESSION"}}"#}),
        json!({"expect_answer": 0}),
        end_turn(),
    ];
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "hin\nund her"));
    let asked = client.expect("session/request_permission");
    // Its line ends lie between tokens, and the agent reads lines.
    client.respond(&asked, "{\r\n  \"outcome\": {\n\"outcome\":\"cancelled\"}}");
    let result = client.answer(turn).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["text"], "größer als ASCII");
    assert_eq!(client.texts(), ["größer als ASCII"]);
}
