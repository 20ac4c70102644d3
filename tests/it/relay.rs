//! What passes through acpbox, both ways, is the same to the byte but for ids
//! and `_meta.acpbox`.

use serde_json::json;

use crate::support::client::{Client, envelope, raw_id, value};
use crate::support::scripted::{answer, message_steps, messages};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{end_turn, expect_prompt, prompt};

mod bursts;
mod ids;

/// Takes out what acpbox put into an update's `_meta`; returns the number too.
fn without_seq(line: &str) -> (String, i64) {
    let forms = [
        ("\"_meta\":{\"acpbox\":{\"seq\":", "}},"),
        ("\"_meta\":{\"acpbox\":{\"seq\":", "}}"),
        ("\"acpbox\":{\"seq\":", "},"),
        ("\"acpbox\":{\"seq\":", "}"),
    ];
    for (before, after) in forms {
        let Some((head, rest)) = line.split_once(before) else {
            continue;
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(digits);
        if let Some(tail) = rest.strip_prefix(after) {
            return (format!("{head}{tail}"), number.parse().unwrap());
        }
    }
    panic!("no seq in {line}");
}

/// The message with another id, all else as it is. The id must be unlike all else.
fn with_id(line: &str, from: &str, to: &str) -> String {
    let (from, to) = (format!("\"id\":{from}"), format!("\"id\":{to}"));
    assert_eq!(line.matches(&from).count(), 1, "{from} in {line}");
    line.replace(&from, &to)
}

#[test]
fn every_message_of_the_agents_arrives_byte_for_byte() {
    let setup = Setup::new();
    std::fs::write(setup.workspace().join("a.txt"), "text").unwrap();
    let mut steps = vec![expect_prompt()];
    steps.extend(message_steps());
    steps.push(end_turn());
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    // Answered by hand, so that their lines can be looked at.
    let cwd = setup.workspace().display().to_string();
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":"p 1","method":"session/prompt","params":{}}}"#,
        prompt(&session, "go")
    ));
    let mut shown_seqs = Vec::new();
    // testy learns the prompt's id as acpbox gives it, and the client sees its own instead.
    let sent = messages(&session, &cwd, "\"p 1\"");
    let stored_with = messages(&session, &cwd, "\"p 1\"");
    let mut expected_events = Vec::new();
    for (line, stored) in sent.iter().zip(stored_with) {
        let parsed = envelope(line);
        let method = parsed.method.as_deref().unwrap();
        if method == "$/cancel_request" {
            continue; // What it cancels is answered already.
        }
        if method == "session/update" || !method.starts_with("terminal/") {
            let shown = client.receive();
            match parsed.id {
                None if method == "session/update" => {
                    let (shown, seq) = without_seq(&shown);
                    assert_eq!(&shown, line);
                    shown_seqs.push(seq);
                }
                None => assert_eq!(&shown, line),
                Some(id) => {
                    assert_eq!(&with_id(&shown, &raw_id(&shown), id.get()), line);
                    client.respond(&shown, &answer(method).to_string());
                }
            }
        }
        expected_events.push(stored);
    }
    let end = value(&client.answer_line("\"p 1\""));
    assert_eq!(end["result"]["stopReason"], "end_turn");
    assert!(shown_seqs.is_sorted(), "{shown_seqs:?}");
    let events = client.raw_events(&session);
    let stored: Vec<_> = events
        .iter()
        .filter(|(_, raw)| expected_events.contains(raw))
        .map(|(_, raw)| raw.clone())
        .collect();
    assert_eq!(stored, expected_events);
    for seq in shown_seqs {
        let (kind, _) = &events[usize::try_from(seq).unwrap() - 1];
        assert!(!kind.contains('/'), "{seq} is the {kind}");
    }
}

#[track_caller]
fn check_update(client: &mut Client, session: &str, expected: &str) {
    let expected = expected.replace("$SESSION", session);
    let shown = client.expect("session/update");
    let seq = shown.split_once("\"acpbox\":{\"seq\":").map(|(_, rest)| {
        let end = rest.find('}').unwrap();
        rest[..end].to_owned()
    });
    assert_eq!(shown, expected.replace("$N", &seq.unwrap_or_default()));
}

#[test]
fn an_update_with_odd_params_keeps_them() {
    // What is sent, and what is shown; `$N` is the number.
    let cases = [
        (
            r#"{"method":"session/update","params":{"sessionId":"$SESSION","_meta":null}}"#,
            r#"{"method":"session/update","params":{"sessionId":"$SESSION","_meta":{"acpbox":{"seq":$N}}}}"#,
        ),
        (
            r#"{"method":"session/update","params":{"sessionId":"$SESSION","_meta":{}}}"#,
            r#"{"method":"session/update","params":{"sessionId":"$SESSION","_meta":{"acpbox":{"seq":$N}}}}"#,
        ),
        (
            r#"{"method":"session/update","params":{"_meta":{"a":1.0,"acpbox":{"seq":"theirs"},"b":[]},"sessionId":"$SESSION"}}"#,
            r#"{"method":"session/update","params":{"_meta":{"a":1.0,"acpbox":{"seq":$N},"b":[]},"sessionId":"$SESSION"}}"#,
        ),
        (
            r#"{"method":"session/update","params":{"sessionId":"$SESSION","sessionId":"$SESSION","update":{"update":{}},"update":7}}"#,
            r#"{"method":"session/update","params":{"_meta":{"acpbox":{"seq":$N}},"sessionId":"$SESSION","sessionId":"$SESSION","update":{"update":{}},"update":7}}"#,
        ),
        (
            r#"{"method":"session/update","params":{"sessionId":"another","update":{"sessionUpdate":1e400}}}"#,
            r#"{"method":"session/update","params":{"_meta":{"acpbox":{"seq":$N}},"sessionId":"another","update":{"sessionUpdate":1e400}}}"#,
        ),
        (
            r#"{"method":"session/update","params":{}}"#,
            r#"{"method":"session/update","params":{"_meta":{"acpbox":{"seq":$N}}}}"#,
        ),
        (
            r#"{"method":"session/update","params":[1,2]}"#,
            r#"{"method":"session/update","params":[1,2]}"#,
        ),
        (
            r#"{"method":"session/update"}"#,
            r#"{"method":"session/update"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","\u006dethod":"session\/update","params":{"s\u0065ssionId":"$SESSION","x":"\u0000"}}"#,
            r#"{"jsonrpc":"2.0","\u006dethod":"session\/update","params":{"_meta":{"acpbox":{"seq":$N}},"s\u0065ssionId":"$SESSION","x":"\u0000"}}"#,
        ),
    ];
    let mut steps = vec![expect_prompt()];
    steps.extend(cases.iter().map(|(sent, _)| json!({"send": sent})));
    steps.push(end_turn());
    let setup = Setup::new();
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    for (_, shown) in cases {
        check_update(&mut client, &session, shown);
    }
    let stored = client.raw_events(&session);
    for (sent, _) in cases {
        let sent = sent.replace("$SESSION", &session);
        assert!(stored.iter().any(|(_, raw)| *raw == sent), "{sent}");
    }
}

#[test]
fn the_clients_odd_answers_reach_the_agent_byte_for_byte() {
    let setup = Setup::new();
    let ids = [
        "0",
        "\"1\"",
        "1.0",
        "18446744073709551616",
        "1e3",
        "\"\\u0031\"",
    ];
    let ask = |id: &str| json!({"send": format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"_vendor/ask","params":{{"sessionId":"$SESSION"}}}}"#)});
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.extend(ids.map(ask));
    steps.extend([json!({"expect": "_vendor/stop"}), json!({"sleep_ms": 20})]);
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let answers = [
        r#"{"jsonrpc":"2.0","id":@,"result":null}"#,
        r#"{"result":{"a":1.0,"a":1e400,"_meta":null,"lone":"\ud800"},"jsonrpc":"2.0","id":@}"#,
        r#"{"id":@,"error":{"code":-1.0,"message":"é\u00e9","data":[{}]},"jsonrpc":"2.0"}"#,
        r#"{ "jsonrpc" : "2.0" , "extra" : { } , "id":@, "result" : 18446744073709551616 }"#,
        r#"{"jsonrpc":"2.0","id":@,"result":{},"error":null}"#,
        r#"{"jsonrpc":"2.0","result":"","id":@}"#,
    ];
    let mut numbers = Vec::new();
    for _ in ids {
        numbers.push(raw_id(&client.expect("_vendor/ask")));
    }
    // In another order than they were asked.
    for (number, answer) in numbers.iter().zip(answers).rev() {
        client.send(&answer.replace('@', number));
    }
    client.notify("_vendor/stop", json!({"sessionId": session}));
    let expected: Vec<String> = ids
        .iter()
        .zip(answers)
        .map(|(id, answer)| answer.replace('@', id))
        .rev()
        .collect();
    assert!(wait_until(|| setup.received().len() >= 3 + expected.len()));
    let received = setup.received();
    let last = received
        .iter()
        .position(|line| line.contains("_vendor/stop"));
    assert_eq!(
        received[last.unwrap() - expected.len()..last.unwrap()],
        expected
    );
    // The script ended without an answer to the prompt; closing gives one.
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    assert_eq!(
        client.answer(turn).unwrap_err()["message"],
        "the session was closed"
    );
}

#[test]
fn unknown_methods_of_a_session_pass_both_ways_byte_for_byte() {
    let setup = Setup::new();
    // What the client sends, what the agent gets, what the agent answers.
    let cases = [
        (
            r#"{"jsonrpc":"2.0","id":"a","method":"_vendor/odd","params":{"sessionId":"$SESSION"}}"#,
            r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"testy-session","n":1.0,"n":1e400}}"#,
        ),
        (
            r#"{ "params" : {"x":1e400,"sessionId":"$SESSION","s":"\ud800","sessionId" : "$SESSION","n":-0}, "method":"undocumented/odd","id":1.0 , "jsonrpc":"2.0","more":[null] }"#,
            r#"{"extra":{ } , "result" : null,"id":$ID,"jsonrpc":"2.0"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"session/set_mode","params":{"sessionId":"$SESSION","modeId":"https://example.org/\u0000"}}"#,
            r#"{"id":$ID,"error":{"code":-7,"message":"\ud83d","data":"testy-session"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"session/set_config_option","params":{"configId":"m","value":{"a":[]},"sessionId":"$SESSION"}}"#,
            r#"{"jsonrpc":"2.0","id":$ID,"result":"text"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":-1,"method":"_vendor/array","params":["$SESSION",{"sessionId":"$SESSION"}]}"#,
            r#"{"jsonrpc":"2.0","id":$ID,"result":[]}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"","method":"_vendor/none"}"#,
            r#"{"jsonrpc":"2.0","id":$ID,"result":false}"#,
        ),
    ];
    let mut steps = vec![setup.record()];
    for (sent, answer) in cases {
        steps.push(json!({"expect": envelope(sent).method}));
        steps.push(json!({"send": answer.replace("testy-session", "testy\\u002dsession")}));
    }
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let before = setup.received().len();
    for (index, (sent, answer)) in cases.iter().enumerate() {
        let sent = sent.replace("$SESSION", &session);
        let id = raw_id(&sent);
        client.send(&sent);
        let answered = client.answer_line(&id);
        let expected = answer
            .replace("$ID", &id)
            .replace(
                "\"sessionId\":\"testy-session\"",
                &format!("\"sessionId\":\"{session}\""),
            )
            .replace("testy-session", "testy\\u002dsession");
        assert_eq!(answered, expected);
        let received = &setup.received()[before + index];
        // An array is not looked into: acpbox knows no such parameters.
        let own = if sent.contains("_vendor/array") {
            sent.clone()
        } else {
            sent.replace(&session, "testy-session")
        };
        assert_eq!(
            &own,
            &received.replace(
                &format!("\"id\":{}", raw_id(received)),
                &format!("\"id\":{id}")
            )
        );
    }
    let stored = client.raw_events(&session);
    for (sent, _) in cases {
        let sent = sent.replace("$SESSION", &session);
        assert!(stored.iter().any(|(_, raw)| *raw == sent), "{sent}");
    }
}
