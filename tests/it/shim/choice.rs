//! When a server is used, and when not.

use std::process::Stdio;

use serde_json::json;

use super::{Server, command, in_time, server_of, socket};
use crate::support::client::Client;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt};

fn own(client: &Client) -> u64 {
    u64::from(client.child.id())
}

#[test]
fn a_server_with_other_files_is_left_alone_and_the_reason_said() {
    let setup = Setup::host();
    let server = Server::start(&setup);
    let other = setup.path().join("other.db");
    for (arguments, said) in [
        (vec!["--no-server"], None),
        (
            vec!["--db", other.to_str().unwrap()],
            Some("another database"),
        ),
        (
            vec!["--config", other.with_extension("toml").to_str().unwrap()],
            Some("another configuration"),
        ),
    ]
    .map(|(arguments, said)| {
        (
            arguments
                .iter()
                .map(|it| (*it).to_owned())
                .collect::<Vec<_>>(),
            said,
        )
    }) {
        if let Some(file) = arguments.get(1).filter(|_| arguments[0] == "--config") {
            let usual = setup.path().join("config/acpbox/config.toml");
            std::fs::copy(usual, file).unwrap();
        }
        let mut stdio = command(&setup, "stdio");
        let mut client = Client::of(
            stdio.args(&arguments).stdin(Stdio::piped()),
            setup.workspace(),
        );
        client.initialize();
        assert_eq!(server_of(&mut client), own(&client), "{arguments:?}");
        match said {
            Some(said) => assert!(wait_until(|| client.stderr().contains(said)), "{said}"),
            None => assert_eq!(client.stderr(), ""),
        }
    }
    let mut client = setup.connect();
    assert_eq!(server_of(&mut client), u64::from(server.id()));
    assert_eq!(client.stderr(), "");
}

#[test]
fn a_socket_that_does_not_answer_costs_a_moment_and_no_more() {
    let setup = Setup::host();
    let path = socket(&setup);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut client = setup.connect();
    assert_eq!(server_of(&mut client), own(&client));
    assert!(wait_until(|| client
        .stderr()
        .contains("does not answer within")));
    drop(client);
    // A dead one costs nothing and is not worth a word.
    drop(listener);
    let mut client = setup.connect();
    assert_eq!(server_of(&mut client), own(&client));
    assert_eq!(client.stderr(), "");
}

#[test]
fn a_server_that_was_started_on_demand_outlives_its_clients() {
    let setup = Setup::host().argument("--spawn-server");
    setup.script(&[expect_prompt(), chunk("one"), end_turn()]);
    let (mut first, mut second) = (setup.start(), setup.start());
    first.initialize();
    second.initialize();
    let server = server_of(&mut first);
    assert_ne!(server, own(&first));
    assert_eq!(server_of(&mut second), server, "there is one for both");
    let pid = rustix::process::Pid::from_raw(i32::try_from(server).unwrap()).unwrap();
    let stop = Stop(pid);
    let leads = rustix::process::getsid(Some(pid)).unwrap();
    assert_eq!(leads, pid, "it has a session of its own");
    let session = first.new_session();
    drop((first, second));
    let log = std::fs::read_to_string(setup.state().join("server.log")).unwrap();
    assert!(log.contains("serving at unix:"), "{log}");
    let mut third = setup.connect();
    assert_eq!(server_of(&mut third), server);
    third.prompt(&session, "u").unwrap();
    assert_eq!(third.texts(), ["one"]);
    // It is started anew where it goes.
    drop(stop);
    assert!(wait_until(|| third
        .call("_acpbox/server/info", json!({}))
        .is_ok_and(|info| info["pid"] != server)));
    let again = server_of(&mut third);
    drop(third);
    drop(Stop(
        rustix::process::Pid::from_raw(i32::try_from(again).unwrap()).unwrap(),
    ));
}

/// Ends a process that is nobody's child here.
pub(super) struct Stop(pub(super) rustix::process::Pid);

impl Stop {
    pub(super) fn of(pid: u64) -> Stop {
        Stop(rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap())
    }

    /// Whether it has ended by itself. One that nobody waits for counts too.
    pub(super) fn is_over(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| {
            stat.rsplit(") ")
                .next()
                .is_some_and(|it| it.starts_with('Z'))
        }) || rustix::process::test_kill_process(self.0).is_err()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::TERM);
        in_time(|| self.is_over());
    }
}

#[test]
fn flags_of_a_client_are_the_defaults_of_its_sessions_only() {
    let setup = Setup::host().argument("--agent").argument("example");
    let _server = Server::start(&setup);
    let mut client = setup.start();
    let initialized = client.initialize();
    assert_eq!(initialized["_meta"]["acpbox"]["agent"], "example");
    let params = client.new_params();
    let result = client.call("session/new", params).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["agent"], "example");
    let mut params = client.new_params();
    params["_meta"] = json!({"acpbox": {"agent": "testy"}});
    let result = client.call("session/new", params).unwrap();
    assert_eq!(result["_meta"]["acpbox"]["agent"], "testy");
    // The example agent tells of its commands.
    client.updates();
}

#[test]
fn run_uses_the_server_and_leaves_the_session_to_it() {
    let setup = Setup::host();
    let server = Server::start(&setup);
    setup.script(&[
        expect_prompt(),
        chunk("one"),
        end_turn(),
        expect_prompt(),
        chunk("two"),
        end_turn(),
    ]);
    let run = |arguments: &[&str]| {
        let mut run = command(&setup, "run");
        run.args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = run.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run(&["--format", "json", "u1"]);
    let summary: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(summary["text"], "one");
    let session = summary["sessionId"].as_str().unwrap();
    let mut client = setup.connect();
    assert_eq!(server_of(&mut client), u64::from(server.id()));
    let listed = client.call("session/list", json!({})).unwrap();
    assert_eq!(listed["sessions"][0]["_meta"]["acpbox"]["state"], "live");
    // The same agent goes on: a new one would begin its script anew.
    assert_eq!(run(&["--session", session, "u2"]), "two\n");
}

#[test]
fn run_says_that_the_server_was_restarted_and_cancels_what_nobody_waits_for() {
    let setup = Setup::host();
    let begin = || {
        let mut run = command(&setup, "run");
        run.args(["--format", "json", "u1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = run.spawn().unwrap();
        let has_prompt = || {
            setup
                .received()
                .iter()
                .any(|it| it.contains("session/prompt"))
        };
        assert!(wait_until(has_prompt));
        run
    };
    setup.script(&[setup.record(), expect_prompt(), json!({"sleep_ms": 60_000})]);
    let server = Server::start(&setup);
    let run = begin();
    server.kill(&setup);
    let server = Server::start(&setup);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("the acpbox server was restarted"), "{said}");

    std::fs::remove_file(setup.workspace().join("received")).unwrap();
    setup.script(&[
        setup.record(),
        expect_prompt(),
        json!({"expect": "session/cancel"}),
        end_turn(),
    ]);
    let run = begin();
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let has_cancel = || {
        setup
            .received()
            .iter()
            .any(|it| it.contains("session/cancel"))
    };
    assert!(wait_until(has_cancel), "the turn goes on");
    drop(server);
}
