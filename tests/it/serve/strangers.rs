//! Who is connected and has not said the token, and where the token is found.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Peer, Server, command};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

fn token_of(setup: &Setup) -> String {
    let text = std::fs::read_to_string(setup.state().join("token")).unwrap();
    text.trim().to_owned()
}

#[test]
fn one_without_the_token_reaches_no_agent_by_whatever_message() {
    let setup = Setup::host();
    setup.script(&[
        setup.record(),
        expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "id": 7, "method": "session/request_permission",
            "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"}, "options": [
                {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
                {"optionId": "no", "name": "No", "kind": "reject_once"}]}}}),
        json!({"expect": "_v/end"}),
        end_turn(),
    ]);
    let mut server = Server::start(&setup, &["--listen", "tcp:127.0.0.1:0"]);
    let address = server.address();
    let token = token_of(&setup);
    let meta = json!({"acpbox": {"token": token}});
    let mut owner = Peer::tcp(&address).initialize(meta);
    let session = owner.new_session(&setup);
    let turn = owner.send("session/prompt", prompt(&session, "go"));
    while owner.receive().unwrap()["method"] != "session/request_permission" {}

    let notification =
        |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    let mut strange = vec![
        notification("session/cancel", json!({"sessionId": session})),
        notification("_v/end", json!({"sessionId": session})),
        // Of the one session that there is.
        notification("_v/end", json!({})),
        notification("$/cancel_request", json!({"requestId": turn})),
    ];
    let yes = json!({"outcome": {"outcome": "selected", "optionId": "yes"}});
    strange.extend((0..9).map(|id| json!({"jsonrpc": "2.0", "id": id, "result": yes})));
    for wrong in [json!({}), json!({"acpbox": {"token": ""}})] {
        let mut stranger = Peer::tcp(&address);
        for message in &strange {
            writeln!(stranger.writer, "{message}").unwrap();
        }
        for method in ["session/list", "session/prompt", "_acpbox/server/status"] {
            let error = stranger
                .call(method, json!({"sessionId": session}))
                .unwrap_err();
            let what = format!(
                "Invalid Request: `{method}` came before `initialize`; send `initialize` first"
            );
            assert_eq!(
                (error["code"].as_i64(), error["message"].as_str()),
                (Some(-32600), Some(what.as_str()))
            );
        }
        let error = stranger.try_initialize(wrong).unwrap_err();
        assert_eq!(error["code"], -32000, "{error}");
        assert!(stranger.receive().is_none(), "it was not let go");
    }
    let end = notification("_v/end", json!({"sessionId": session}));
    writeln!(owner.writer, "{end}").unwrap();
    assert_eq!(owner.answer(turn).unwrap()["stopReason"], "end_turn");
    let received = setup.received();
    let count = |word: &str| received.iter().filter(|line| line.contains(word)).count();
    assert_eq!(count("_v/end"), 1, "{received:#?}");
    assert_eq!(count("cancel"), 0, "{received:#?}");
    assert_eq!(count("\"yes\""), 0, "{received:#?}");
}

#[test]
fn the_token_is_in_no_log_and_not_in_the_database() {
    let setup = Setup::host();
    setup.script(&[expect_prompt(), chunk("a"), end_turn()]);
    let all = [
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "http:127.0.0.1:0",
        "-vvv",
    ];
    let log = setup.path().join("log");
    let mut serving = command(&setup, &all);
    serving
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let mut server = Serving(serving.spawn().unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    assert!(
        wait_until(|| said().matches("its clients send the token").count() == 2),
        "{}",
        said()
    );
    let address = |scheme: &str| {
        let text = said();
        let (_, rest) = text.split_once(&format!("serving at {scheme}:")).unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    let (tcp, http) = (address("tcp"), address("http"));
    let token = token_of(&setup);
    // One that is nearly right tells as much.
    let near = format!("{token}x");

    let raw = |address: &str, bytes: String| {
        let mut stream = TcpStream::connect(address).unwrap();
        let timeout = Some(std::time::Duration::from_secs(5));
        stream.set_read_timeout(timeout).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        // One of HTTP that closes its side may be taken for one that has left.
        if address == tcp {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for given in [&token, &near] {
        raw(
            &tcp,
            format!("{{\"id\":1,\"params\":{{\"token\":\"{given}\"\n"),
        );
        raw(&tcp, format!("{given}\n"));
        raw(
            &tcp,
            json!({"jsonrpc": "2.0", "id": given, "method": given, "params": {"sessionId": given}})
                .to_string(),
        );
        let get = |path: String, headers: &str| {
            raw(
                &http,
                format!(
                    "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n{headers}\r\n"
                ),
            )
        };
        for path in ["/metrics", "/acp", "/nowhere"] {
            let answer = get(format!("{path}?token={given}"), "");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(!answer.contains(given.as_str()), "{answer}");
        }
        get(format!("/{given}"), "");
        get(
            "/metrics".into(),
            &format!("Authorization: Bearer {given}\r\n"),
        );
        get(
            "/metrics".into(),
            &format!("Cookie: token={given}\r\nOrigin: {given}\r\n"),
        );
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        get(
            "/acp".into(),
            &format!("{upgrade}Authorization: Bearer {given}\r\n"),
        );
    }
    let _ = Peer::tcp(&format!("tcp:{tcp}"))
        .try_initialize(json!({"acpbox": {"token": near}}))
        .unwrap_err();
    let mut peer = Peer::tcp(&format!("tcp:{tcp}")).initialize(json!({"acpbox": {"token": token}}));
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "u")).unwrap();
    drop(peer);
    server.end();

    let said = said();
    assert!(said.contains("a client connected"), "no detail: {said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains(&token)).collect();
    assert_eq!(lines, [""; 0]);
    for entry in std::fs::read_dir(setup.state()).unwrap().flatten() {
        let is_file = entry.file_type().unwrap().is_file();
        if !is_file || entry.file_name() == "token" {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let holds = bytes.windows(token.len()).any(|it| it == token.as_bytes());
        assert!(!holds, "{:?} holds the token", entry.path());
    }
}

/// A server whose log is a file; killed when it is dropped.
struct Serving(std::process::Child);

impl Serving {
    fn end(&mut self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(wait_until(|| self.0.try_wait().unwrap().is_some()));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn servers_that_start_together_share_the_token_that_one_of_them_made() {
    let setup = Setup::host();
    for _ in 0..3 {
        let _ = std::fs::remove_file(setup.state().join("token"));
        let arguments = ["--listen", "tcp:127.0.0.1:0"];
        let all: Vec<Server> = (0..4).map(|_| Server::start(&setup, &arguments)).collect();
        for mut server in all {
            let address = server.address();
            let meta = json!({"acpbox": {"token": token_of(&setup)}});
            Peer::tcp(&address).initialize(meta);
        }
    }
}

#[test]
fn a_page_or_host_that_could_never_match_is_refused_at_the_start() {
    for (line, what) in [
        (
            "origins = [\"page.example.org\"]",
            "`server.origins` has \"page.example.org\", which is no origin that a browser sends; write \"https://page.example.org\", or http:// if it is that",
        ),
        (
            "hosts = [\"box.example.org:4712\"]",
            "`server.hosts` has \"box.example.org:4712\", which is no host as clients name it, as the port is left out; write \"box.example.org\"",
        ),
    ] {
        let setup = Setup::host().config(&format!("[server]\n{line}\n"));
        let output = command(&setup, &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_request_with_the_id_of_one_in_flight_is_refused_without_answering_that_one() {
    let setup = Setup::host();
    setup.script(&[
        expect_prompt(),
        json!({"expect": "_v/end"}),
        chunk("a"),
        end_turn(),
    ]);
    let listen = [
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "http:127.0.0.1:0",
    ];
    let mut server = Server::start(&setup, &listen);
    let address = server.address();
    let meta = json!({"acpbox": {"token": token_of(&setup)}});
    let mut peer = Peer::tcp(&address).initialize(meta);
    let session = peer.new_session(&setup);
    let turn = peer.send("session/prompt", prompt(&session, "go"));
    for method in ["session/prompt", "session/list", "session/set_mode"] {
        let again = json!({"jsonrpc": "2.0", "id": turn, "method": method,
            "params": {"sessionId": session, "prompt": [], "modeId": "m"}});
        writeln!(peer.writer, "{again}").unwrap();
        let said = peer.receive().unwrap();
        let what = format!(
            "Invalid Request: `{method}` has the id {turn} of a request that is not answered yet, and was not carried out; give each request an id of its own"
        );
        assert_eq!(
            (&said["id"], &said["error"]["message"]),
            (&json!(null), &json!(what))
        );
    }
    let go = json!({"jsonrpc": "2.0", "method": "_v/end", "params": {"sessionId": session}});
    writeln!(peer.writer, "{go}").unwrap();
    assert_eq!(peer.answer(turn).unwrap()["stopReason"], "end_turn");
    // Then it is free again.
    let again = json!({"jsonrpc": "2.0", "id": turn, "method": "session/list", "params": {}});
    writeln!(peer.writer, "{again}").unwrap();
    assert!(peer.answer(turn).is_ok());
}

#[test]
fn a_client_whose_initialize_failed_is_not_introduced_and_may_try_again() {
    let setup = Setup::host();
    let mut server = Server::start(&setup, &["--listen", "tcp:127.0.0.1:0"]);
    let address = server.address();
    let token = token_of(&setup);
    let mut peer = Peer::tcp(&address);
    let meta = json!({"acpbox": {"token": token, "agent": "nobody"}});
    let error = peer.try_initialize(meta).unwrap_err();
    assert!(
        error.to_string().contains("`_meta.acpbox.agent`"),
        "{error}"
    );
    let error = peer.call("session/list", json!({})).unwrap_err();
    assert!(
        error.to_string().contains("came before `initialize`"),
        "{error}"
    );
    peer.try_initialize(json!({"acpbox": {"token": token}}))
        .unwrap();
    peer.call("session/list", json!({})).unwrap();
}
