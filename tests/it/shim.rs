//! `acpbox stdio` and `acpbox run` through a server that runs already.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, raw_id, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod choice;
mod versions;
mod unused;
mod stored;
mod rounds;
mod crowd;
mod asked;

/// A running `acpbox serve` at the usual place; ended when it is dropped.
struct Server(Child);

impl Server {
    fn start(setup: &Setup) -> Server {
        let child = command(setup, "serve").spawn().unwrap();
        let socket = socket(setup);
        assert!(
            wait_until(|| UnixStream::connect(&socket).is_ok()),
            "no server listens"
        );
        Server(child)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Lets turns end for a moment only.
    fn stop(mut self) {
        for _ in 0..2 {
            self.signal(rustix::process::Signal::TERM);
            std::thread::sleep(Duration::from_millis(30));
        }
        let _ = self.0.wait();
    }

    fn stop_in_peace(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }

    fn kill(mut self, setup: &Setup) {
        // Seen by the check of what is left behind.
        std::fs::write(setup.path().join("killed"), "").unwrap();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut is_over = false;
        wait_until(|| {
            is_over = matches!(self.0.try_wait(), Ok(Some(_)));
            is_over
        });
        if !is_over {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// `acpbox NAME` with the set-up's environment.
fn command(setup: &Setup, name: &str) -> Command {
    let stdio = setup.command();
    let mut command = Command::new(stdio.get_program());
    command.arg(name).env_clear().current_dir(setup.workspace());
    for (name, value) in stdio.get_envs() {
        command.env(name, value.unwrap());
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn socket(setup: &Setup) -> PathBuf {
    setup.path().join("run/acpbox/acpbox.sock")
}

/// Waits at most a minute for something to become true.
fn in_time(mut is_true: impl FnMut() -> bool) -> bool {
    (0..6).any(|_| wait_until(&mut is_true))
}

/// The process that serves this client.
fn server_of(client: &mut Client) -> u64 {
    let info = client.call("_acpbox/server/info", json!({})).unwrap();
    info["pid"].as_u64().unwrap()
}

#[test]
fn a_server_restarted_in_a_turn_ends_it_with_a_reason_and_the_next_prompt_works() {
    for is_killed in [false, true] {
        let setup = Setup::new();
        let server = Server::start(&setup);
        setup.script(&[expect_prompt(), chunk("one"), json!({"sleep_ms": 60_000})]);
        let mut client = setup.connect();
        assert_eq!(server_of(&mut client), u64::from(server.id()));
        let session = client.new_session();
        let turn = client.request("session/prompt", prompt(&session, "u1"));
        client.expect("session/update");
        match is_killed {
            false => server.stop(),
            true => server.kill(&setup),
        }
        // What is said meanwhile waits.
        setup.script(&[expect_prompt(), chunk("two"), end_turn()]);
        let next = client.request("session/prompt", prompt(&session, "u2"));
        let server = Server::start(&setup);
        let error = client.answer(turn).unwrap_err();
        let why = error["message"].as_str().unwrap();
        if is_killed {
            assert!(
                why.contains("the acpbox server was restarted, and the turn has ended"),
                "{error}"
            );
            assert!(why.contains("acpbox was killed during the turn"), "{error}");
        } else {
            assert!(why.contains("acpbox was stopped or restarted"), "{error}");
        }
        assert_eq!(error["data"]["phase"], "turn", "{error}");
        let result = client.answer(next).unwrap();
        assert_eq!(result["_meta"]["acpbox"]["text"], "two");
        assert_eq!(client.texts(), ["two"], "neither an echo nor a repetition");
        assert_eq!(server_of(&mut client), u64::from(server.id()));
        let prompts = client.events(&session);
        let prompts = prompts
            .iter()
            .filter(|event| event["kind"] == "session/prompt");
        assert_eq!(prompts.count(), 2);
    }
}

#[test]
fn a_turn_that_ended_while_the_connection_was_away_has_its_stored_result() {
    let setup = Setup::new();
    let server = Server::start(&setup);
    setup.script(&[
        expect_prompt(),
        chunk("one "),
        json!({"sleep_ms": 400}),
        chunk("two"),
        end_turn(),
    ]);
    let mut client = setup.connect();
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "u1"));
    client.expect("session/update");
    // The server stays: it only stops to listen to this client for a while.
    break_connections(&server);
    let result = client.answer(turn).unwrap();
    assert_eq!(result["stopReason"], "end_turn");
    assert_eq!(result["_meta"]["acpbox"]["text"], "one two");
    assert_eq!(client.texts(), ["two"]);
    drop(server);
}

/// Shuts every connection that the server has, from outside.
fn break_connections(server: &Server) {
    // `ss -K` needs a kernel option: the descriptors are shut through their copies.
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
    let descriptor =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    for number in 3..256 {
        let copy = rustix::process::pidfd_getfd(
            &descriptor,
            number,
            rustix::process::PidfdGetfdFlags::empty(),
        );
        let Ok(copy) = copy else { continue };
        let name = rustix::net::getsockname(&copy).ok();
        let name = name.and_then(|name| rustix::net::SocketAddrUnix::try_from(name).ok());
        // Others lead to guests, and have no name.
        let is_named = name.is_some_and(|name| name.path().is_some());
        if is_named && rustix::net::getpeername(&copy).is_ok() {
            let _ = rustix::net::shutdown(&copy, rustix::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_question_of_a_server_that_went_is_withdrawn_and_an_answer_to_it_counts_for_no_other() {
    let setup = Setup::new();
    let server = Server::start(&setup);
    let ask = |title: &str| {
        json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "c", "title": title},
            "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]}}})
    };
    setup.script(&[expect_prompt(), ask("first"), json!({"sleep_ms": 60_000})]);
    let mut client = setup.connect();
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "u1"));
    let first = client.expect("session/request_permission");
    server.kill(&setup);
    let withdrawn = value(&client.expect("$/cancel_request"));
    assert_eq!(withdrawn["params"]["requestId"], value(&first)["id"]);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask("second"),
        json!({"expect_answer": 0}),
        end_turn(),
    ]);
    let _server = Server::start(&setup);
    client.answer(turn).unwrap_err();
    let turn = client.request("session/prompt", prompt(&session, "u2"));
    let second = client.expect("session/request_permission");
    assert_ne!(raw_id(&first), raw_id(&second));
    let yes = r#"{"outcome":{"outcome":"selected","optionId":"yes"}}"#;
    // The late answer is to nobody's question.
    client.respond(&first, yes);
    assert!(client.is_quiet(Duration::from_millis(300)));
    let refuse = r#"{"outcome":{"outcome":"cancelled"}}"#;
    client.respond(&second, refuse);
    client.answer(turn).unwrap();
    let answers: Vec<Value> = (setup.received().iter())
        .map(|line| value(line))
        .filter(|line| line.get("method").is_none() && line["id"] == 0)
        .collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0]["result"]["outcome"]["outcome"], "cancelled");
}

#[test]
fn where_no_server_comes_back_all_is_answered_and_a_late_one_is_used_all_the_same() {
    let setup = Setup::host().config("[server]\nreconnect_timeout = \"300ms\"");
    let server = Server::start(&setup);
    setup.script(&[expect_prompt(), chunk("one"), json!({"sleep_ms": 60_000})]);
    let mut client = setup.connect();
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "u1"));
    client.expect("session/update");
    server.kill(&setup);
    let error = client.answer(turn).unwrap_err();
    let why = error["message"].as_str().unwrap();
    assert!(why.contains("did not come back within 0.3 s"), "{error}");
    let hint = error["data"]["hint"].as_str().unwrap();
    assert!(hint.contains("acpbox serve"), "{error}");
    let error = client.call("session/list", json!({})).unwrap_err();
    assert_eq!(error["message"], why);
    assert!(wait_until(|| client.stderr().contains("did not come back")));
    setup.script(&[expect_prompt(), chunk("two"), end_turn()]);
    let _server = Server::start(&setup);
    assert!(wait_until(|| client
        .call("session/list", json!({}))
        .is_ok()));
    client.prompt(&session, "u2").unwrap();
    assert_eq!(client.texts(), ["two"]);
}

#[test]
fn both_framings_and_odd_messages_pass_as_through_one_process() {
    let setup = Setup::host();
    let _server = Server::start(&setup);
    let odd = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"$SESSION","update":{"sessionUpdate":"x","n":1e400,"s":"\ud800","i":18446744073709551616,"z":null}}}"#;
    setup.script(&[
        setup.record(),
        expect_prompt(),
        json!({ "send": odd }),
        end_turn(),
    ]);
    for connect in [Setup::connect, Setup::connect_with_headers] {
        let mut client = connect(&setup);
        let session = client.new_session();
        let prompt = format!(
            r#"{{"jsonrpc":"2.0", "id":1.50,"method":"session/prompt","params":{{"sessionId":"{session}","prompt":[{{"type":"text","text":"\ud800","n":1e400}}]}}}}"#
        );
        client.send(&prompt);
        client.answer_line("1.50");
        let update = client.expect("session/update");
        let rest = r#","update":{"sessionUpdate":"x","n":1e400,"s":"\ud800","i":18446744073709551616,"z":null}}}"#;
        assert!(update.ends_with(rest), "{update}");
        let received = setup.received();
        let received = received
            .iter()
            .rfind(|line| line.contains("session/prompt"))
            .unwrap();
        assert!(
            received.contains(r#""prompt":[{"type":"text","text":"\ud800","n":1e400}]"#),
            "{received}"
        );
        assert!(!received.contains("idempotencyKey"), "{received}");
        // What is no message is judged as ever, and the stream goes on.
        client.send("{nonsense");
        let error = client.answer_line("null");
        assert!(error.contains("-32700"), "{error}");
        client.check_next_session();
    }
}
