//! The APIs that no installed agent uses, or uses without streaming.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use super::Model;

/// Posts a body in two chunks and returns the answer, head and body.
fn post(model: &Model, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let (first, second) = body.split_at(10);
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: fake\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, model.port())).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"command": {"type": "string"}}})
}

#[test]
fn every_api_calls_a_tool_without_streaming() {
    let model = Model::start();
    let prompt = "[[shell:ls -l]]";
    let cases = [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": prompt}],
                "tools": [{"type": "function", "function": {"name": "bash", "parameters": schema()}}]}),
            r#"{"name":"bash","arguments":"{\"command\":\"ls -l\"}"}"#,
        ),
        (
            "/v1/responses",
            json!({"input": prompt,
                "tools": [{"type": "function", "name": "bash", "parameters": schema()}]}),
            r#""name":"bash","arguments":"{\"command\":\"ls -l\"}""#,
        ),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": prompt}],
                "tools": [{"name": "bash", "input_schema": schema()}]}),
            r#""name":"bash","input":{"command":"ls -l"}"#,
        ),
        (
            "/v1beta/models/fake:generateContent",
            json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}],
                "tools": [{"functionDeclarations": [{"name": "bash", "parameters": schema()}]}]}),
            r#"{"functionCall":{"name":"bash","args":{"command":"ls -l"}}}"#,
        ),
    ];
    for (path, body, expected) in cases {
        let answer = post(&model, path, &body);
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    assert_eq!(model.requests().len(), 4);
    assert_eq!(model.requests()[0].body["messages"][0]["content"], prompt);
}

#[test]
fn gemini_streams_thoughts_words_and_the_end() {
    let model = Model::start();
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "[[think:hm]] hi"}]}]});
    let answer = post(
        &model,
        "/v1beta/models/fake:streamGenerateContent?alt=sse",
        &body,
    );
    assert!(
        answer.contains("**Think** hm") && answer.contains("fake "),
        "{answer}"
    );
    assert!(answer.contains(r#""finishReason":"STOP""#) && answer.ends_with("0\r\n\r\n"));
}

#[test]
fn a_wished_failure_comes_with_its_status_and_unknown_paths_with_404() {
    let model = Model::start();
    let body = json!({"messages": [{"role": "user", "content": "[[err:503]]"}]});
    for path in ["/v1/chat/completions", "/v1/messages"] {
        assert!(
            post(&model, path, &body).starts_with("HTTP/1.1 503"),
            "{path}"
        );
    }
    assert!(post(&model, "/v1/embeddings", &body).starts_with("HTTP/1.1 404"));
}

#[test]
fn dropping_the_model_frees_its_port() {
    let model = Model::start();
    let address = (Ipv4Addr::LOCALHOST, model.port());
    let open = TcpStream::connect(address).unwrap();
    drop(model);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!((&open).read(&mut [0; 1]).unwrap_or(0), 0);
}
