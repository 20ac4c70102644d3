//! `acpbox status` and `_acpbox/server/status`: what a server says it does.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::serve::{Peer, Server, socket};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// A subcommand with the environment of a set-up.
pub fn command(setup: &Setup, arguments: &[&str]) -> Command {
    let stdio = setup.command();
    let mut command = Command::new(stdio.get_program());
    command.args(arguments).env_clear();
    for (name, value) in stdio.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .current_dir(setup.workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn status(peer: &mut Peer) -> Value {
    peer.call("_acpbox/server/status", json!({})).unwrap()
}

/// A step in which the agent asks for permission.
pub fn ask_permission(title: &str) -> Value {
    json!({"send": {"jsonrpc": "2.0", "id": 900, "method": "session/request_permission", "params": {
        "sessionId": "$SESSION", "toolCall": {"toolCallId": "c1", "title": title, "kind": "edit"},
        "options": [{"optionId": "no", "name": "Refuse", "kind": "reject_once"},
                    {"optionId": "yes", "name": "Allow", "kind": "allow_once"}]}}})
}

#[test]
fn a_server_tells_what_each_session_and_client_does() {
    let setup = Setup::host();
    setup.script(&[
        expect_prompt(),
        chunk("one"),
        ask_permission("Write a file"),
        json!({"expect_answer": 900}),
        end_turn(),
        expect_prompt(),
        end_turn(),
    ]);
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let mut peer = Peer::unix(&path);
    let params = json!({"protocolVersion": 1, "clientCapabilities": {},
        "clientInfo": {"name": "it", "title": "The Tests", "version": "7"}});
    peer.call("initialize", params).unwrap();
    let session = peer.new_session(&setup);
    let now = status(&mut peer);
    assert_eq!(now["sessions"][0]["state"], "idle", "{now:#}");
    assert_eq!(now["version"], env!("CARGO_PKG_VERSION"));

    let mut watcher = Peer::unix(&path).initialize(json!({}));
    let first = peer.send("session/prompt", prompt(&session, "a title"));
    let second = peer.send("session/prompt", prompt(&session, "later"));
    let mut now = json!({});
    assert!(
        wait_until(|| {
            now = status(&mut watcher);
            now["sessions"][0]["state"] == "waiting_for_permission"
        }),
        "{now:#}"
    );
    let told = &now["sessions"][0];
    assert_eq!(told["sessionId"], session.as_str());
    assert_eq!(told["agent"], "testy");
    assert_eq!(told["cwd"], json!(setup.workspace()));
    assert_eq!(told["title"], "a title");
    assert_eq!(told["queuedPrompts"], 1, "{now:#}");
    assert_eq!(told["pendingRequests"], 1, "{now:#}");
    assert_eq!(told["clients"], 1, "{now:#}");
    assert_eq!(now["vms"][0]["state"], "running", "{now:#}");
    assert_eq!(now["vms"][0]["liveSessions"], 1, "{now:#}");
    let [one, two] = now["clients"].as_array().unwrap().as_slice() else {
        panic!("{now:#}");
    };
    assert_eq!(one["name"], "The Tests");
    assert_eq!(one["version"], "7");
    assert_eq!(one["sessions"], json!([session]));
    assert!(one["peer"].as_str().unwrap().starts_with("unix:"), "{one}");
    assert_eq!(two["sessions"], json!([]));
    assert!(two.get("name").is_none(), "{two}");
    assert_eq!(now["totals"]["clients"], 2);
    assert_eq!(now["totals"]["turns"], 0);

    // For people, with the same content.
    let Output {
        status: code,
        stdout,
        ..
    } = command(&setup, &["status"]).output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(code.success(), "{text}");
    for word in [
        "waiting for permission",
        "a title",
        "The Tests 7",
        "acpbox status",
        &session,
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }

    while let Some(message) = peer.receive() {
        if message["method"] == "session/request_permission" {
            let result = json!({"outcome": {"outcome": "selected", "optionId": "yes"}});
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            writeln!(peer.writer, "{answer}").unwrap();
            break;
        }
    }
    peer.answer(first).unwrap();
    peer.answer(second).unwrap();
    drop(peer);
    let mut now = json!({});
    assert!(
        wait_until(|| {
            now = status(&mut watcher);
            now["clients"].as_array().unwrap().len() == 1
        }),
        "a client that is gone is still listed: {now:#}"
    );
    assert_eq!(now["sessions"][0]["state"], "idle");
    assert_eq!(now["sessions"][0]["clients"], 0);
    assert_eq!(now["totals"]["turns"], 2);
    let events = watcher
        .call("_acpbox/session/events", json!({"sessionId": session}))
        .unwrap();
    assert_eq!(now["totals"]["events"], events["lastSeq"]);
}

#[test]
fn a_session_that_was_put_to_sleep_is_still_told_of() {
    let setup = Setup::host().vm("agent_sleep_after = \"100ms\"");
    setup.script(&[
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": {"loadSession": true}}}),
        expect_prompt(),
        end_turn(),
    ]);
    let mut server = Server::start(&setup, &[]);
    server.address();
    let mut peer = Peer::unix(&socket(&setup)).initialize(json!({}));
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "hello"))
        .unwrap();
    let mut now = json!({});
    assert!(
        wait_until(|| {
            now = status(&mut peer);
            now["sessions"][0]["state"] == "asleep"
        }),
        "{now:#}"
    );
    assert_eq!(now["sessions"][0]["sessionId"], session.as_str());
    assert_eq!(now["sessions"][0]["title"], "hello");
    assert_eq!(now["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn status_says_how_to_start_a_server_where_none_runs() {
    let setup = Setup::host();
    let mut server = Server::start(&setup, &["--listen", "tcp:127.0.0.1:0"]);
    let address = server.address();
    let check = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = command(&setup, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty());
        for word in words {
            assert!(said.contains(word), "no {word} in {said}");
        }
        assert!(said.matches("os error").count() <= 1, "said twice: {said}");
    };
    let none = [
        "no acpbox serves at unix:",
        "acpbox.sock",
        "start one with `acpbox serve`",
    ];
    check(&["status"], 1, &none);
    check(&["status", "--json"], 1, &none);
    check(&["attach", "0"], 1, &none);
    check(
        &["status", "--server", "nonsense"],
        2,
        &["no address", "unix:PATH"],
    );
    // The one on TCP is found by name, and its token in the state folder.
    let output = command(&setup, &["status", "--json", "--server", &address])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["clients"][0]["name"], "acpbox status");
    assert!(
        told["clients"][0]["peer"]
            .as_str()
            .unwrap()
            .starts_with("tcp:")
    );
    let wrong = setup.path().join("wrong");
    std::fs::write(&wrong, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = wrong.display().to_string();
    let arguments = ["status", "--server", &address, "--token-file", &wrong];
    check(
        &arguments,
        2,
        &["the token in `_meta.acpbox.token` is wrong"],
    );
}

#[test]
fn who_looks_on_and_who_lags_is_told() {
    let setup = Setup::host();
    let mut flood = chunk(&"x".repeat(1000));
    flood["repeat"] = json!(20_000);
    setup.script(&[expect_prompt(), flood, end_turn()]);
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let connect = |name: &str| {
        let mut peer = Peer::unix(&path);
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}, "clientInfo": {"name": name, "version": "1"}});
        peer.call("initialize", params).unwrap();
        peer
    };
    let mut prompter = connect("prompter");
    let session = prompter.new_session(&setup);
    let mut observer = connect("observer");
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": [],
        "_meta": {"acpbox": {"role": "observer"}}});
    observer.call("session/resume", params).unwrap();
    let mut watcher = connect("watcher");
    let of = |status: &Value, name: &str| -> Value {
        let clients = status["clients"].as_array().unwrap();
        clients.iter().find(|it| it["name"] == name).unwrap()["follows"].clone()
    };
    let now = status(&mut watcher);
    let keeps_up =
        |role: &str| json!([{"sessionId": session, "role": role, "behind": 0, "keptBytes": 0}]);
    assert_eq!(of(&now, "prompter"), keeps_up("controller"));
    assert_eq!(of(&now, "observer"), keeps_up("observer"));
    assert_eq!(of(&now, "watcher"), json!([]));

    // The observer reads nothing of it.
    prompter
        .call("session/prompt", prompt(&session, "go"))
        .unwrap();
    let now = status(&mut watcher);
    assert_eq!(of(&now, "prompter"), keeps_up("controller"));
    let behind = of(&now, "observer")[0]["behind"].as_u64().unwrap();
    assert!(behind > 1000, "{now:#}");
    let output = command(&setup, &["status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lags = format!("{} (observer, {behind} events behind)", &session[..13]);
    let line = text.lines().find(|it| it.contains("observer")).unwrap();
    assert!(line.contains(&lags), "{lags}\n{text}");
    let line = text.lines().find(|it| it.contains("prompter")).unwrap();
    assert!(
        line.contains(&session[..13]) && !line.contains("behind"),
        "{text}"
    );
}
