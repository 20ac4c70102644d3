//! testy, the scripted agent, without acpbox in between: what it writes and
//! records is to the byte what the script says.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent_client_protocol_schema::v1::{
    CompleteElicitationNotification, CreateElicitationRequest, CreateTerminalRequest,
    KillTerminalRequest, ReadTextFileRequest, ReleaseTerminalRequest, RequestPermissionRequest,
    SessionNotification, TerminalOutputRequest, WaitForTerminalExitRequest, WriteTextFileRequest,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::scripted::{answer, message_steps, messages, script, testy};

fn start(steps: &[Value]) -> Child {
    Command::new(testy())
        .env_clear()
        .env("TESTY_SCRIPT", script(steps))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a script on an input that ends.
fn run(steps: &[Value], input: &str) -> Output {
    let mut child = start(steps);
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn check(steps: &[Value], input: &str, expected: &str) {
    let output = run(steps, input);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{}}
"#;
const NEW: &str = r#"{"jsonrpc":"2.0","id":1.0,"method":"session/new","params":{"cwd":"/w"}}
"#;
const PROMPT: &str = r#"{"jsonrpc":"2.0","id":2,"method":"session/prompt","params":{"sessionId":"s"}}
"#;

#[test]
fn without_a_script_it_answers_as_a_plain_agent() {
    let unknown = r#"{"jsonrpc":"2.0","id":[],"method":"what"}
"#;
    let expected = concat!(
        r#"{"jsonrpc":"2.0","id":"a","result":{"protocolVersion":1,"agentCapabilities":{"loadSession":false},"agentInfo":{"name":"testy","version":"0"},"authMethods":[]}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","id":1.0,"result":{"sessionId":"testy-session"}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","id":2,"result":{"stopReason":"end_turn"}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","id":[],"error":{"code":-32601,"message":"Method not found"}}"#,
        "\n",
    );
    check(&[], &[INITIALIZE, NEW, PROMPT, unknown].concat(), expected);
}

#[test]
fn what_the_script_sends_has_its_names_filled_in() {
    let steps = [
        json!({"on": "session/new", "error": {"code": -32000, "message": "no"}}),
        json!({"expect": "session/prompt"}),
        json!({"send": "$ID $SESSION $CWD \\ud800"}),
        json!({"repeat": 3, "send": {"n": "$N"}}),
        json!({"raw": "no newline"}),
        json!({"bytes": [0xe2, 0x82]}),
        json!({"bytes": [0xac, 10]}),
    ];
    let expected = concat!(
        r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32000,"message":"no"}}"#,
        "\n2 s /w \\ud800\n",
        "{\"n\":\"0\"}\n{\"n\":\"1\"}\n{\"n\":\"2\"}\nno newline€\n",
    );
    check(&steps, &[NEW, PROMPT].concat(), expected);
}

#[test]
fn what_it_receives_is_recorded_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("received");
    let input = [INITIALIZE, "not json \u{1b}\r\n", "{ \"id\" : 1e400 }\n"].concat();
    run(&[json!({"record": file})], &input);
    assert_eq!(std::fs::read_to_string(file).unwrap(), input);
}

#[test]
fn it_ends_with_the_code_or_signal_that_the_script_says() {
    let output = run(&[json!({"stderr": "ouch"}), json!({"exit": 7})], "");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stderr, b"ouch\n");
    let output = run(&[json!({"signal": 9})], "");
    assert_eq!(output.status.signal(), Some(9));
    let output = run(&[json!({"expect": "session/prompt"})], "");
    assert_eq!(output.status.code(), Some(99));
    let output = run(&[json!({"exspect": "session/prompt"})], "");
    assert_eq!(output.status.code(), Some(99));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1 of the script"));
}

#[test]
fn it_can_ignore_everything_but_a_kill() {
    let steps = [
        json!({"ignore_sigterm": true, "close_stdout": true, "stderr": "ready"}),
        json!({"hang": true}),
    ];
    let mut child = start(&steps);
    drop(child.stdin.take());
    let mut nothing = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut nothing)
        .unwrap();
    assert_eq!(nothing, b"");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn it_can_stop_itself() {
    let mut child = start(&[json!({"stop": true})]);
    let stat = format!("/proc/{}/stat", child.id());
    let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
    let start = Instant::now();
    while !is_stopped() {
        assert!(start.elapsed() < Duration::from_secs(5), "it runs on");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_daemon_that_it_leaves_behind_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let heartbeat = folder.path().join("heartbeat");
    let output = run(&[json!({"fork_daemon": heartbeat})], "");
    assert_eq!(output.status.code(), Some(0));
    let beats = |path: &Path| std::fs::metadata(path).map_or(0, |it| it.len());
    let before = beats(&heartbeat);
    thread::sleep(Duration::from_millis(300));
    assert!(beats(&heartbeat) > before);
    // Its folder gone, it ends: it cannot write any more.
    drop(folder);
    thread::sleep(Duration::from_millis(100));
    let left = Command::new("pgrep")
        .arg("-f")
        .arg(&heartbeat)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn every_message_is_sent_byte_for_byte_and_waits_for_its_answer() {
    let mut steps = vec![json!({"expect": "session/prompt"})];
    steps.extend(message_steps());
    let sent = messages("s", "/w", "2");
    let answers = sent.iter().filter_map(|line| {
        let request: Message = serde_json::from_str(line).unwrap();
        let (id, result) = (request.id?, answer(request.method));
        Some(format!("{{\"id\":{id},\"result\":{result}}}\n"))
    });
    let input: String = [NEW.to_owned(), PROMPT.to_owned()]
        .into_iter()
        .chain(answers)
        .collect();
    let session = r#"{"jsonrpc":"2.0","id":1.0,"result":{"sessionId":"testy-session"}}"#;
    let expected = format!("{session}\n{}\n", sent.join("\n"));
    check(&steps, &input, &expected);
}

#[test]
fn the_messages_are_what_the_protocol_says() {
    for line in messages("s", "/w", "2") {
        let message: Message = serde_json::from_str(&line).unwrap();
        let params = message.params.get();
        match message.method {
            "session/update" if is_beyond_the_stable_schema(params) => {}
            "session/update" => valid::<SessionNotification>(params),
            "fs/read_text_file" => valid::<ReadTextFileRequest>(params),
            "fs/write_text_file" => valid::<WriteTextFileRequest>(params),
            "session/request_permission" => valid::<RequestPermissionRequest>(params),
            "terminal/create" => valid::<CreateTerminalRequest>(params),
            "terminal/output" => valid::<TerminalOutputRequest>(params),
            "terminal/wait_for_exit" => valid::<WaitForTerminalExitRequest>(params),
            "terminal/kill" => valid::<KillTerminalRequest>(params),
            "terminal/release" => valid::<ReleaseTerminalRequest>(params),
            "elicitation/create" => valid::<CreateElicitationRequest>(params),
            "elicitation/complete" => valid::<CompleteElicitationNotification>(params),
            other => assert!(other.contains(['_', '$']) || other.starts_with("undocumented")),
        }
    }
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(borrow)]
    params: &'a RawValue,
}

fn valid<T: DeserializeOwned>(params: &str) {
    if let Err(error) = serde_json::from_str::<T>(params) {
        panic!("{error}: {params}");
    }
}

/// Unstable or unknown kinds, and JSON that the types cannot hold.
fn is_beyond_the_stable_schema(params: &str) -> bool {
    let marks = [
        "plan_update",
        "plan_removed",
        "subagent_update",
        "session_message",
        "_vendor_kind",
        "a_kind_of_tomorrow",
        "\\ud800",
        "1e400",
    ];
    marks.iter().any(|mark| params.contains(mark))
}
