//! A server of another version than the client's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::choice::Stop;
use super::{Server, in_time, server_of, socket};
use crate::support::client::{Client, value};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

/// The process that the others claim to be.
const PID: u32 = 4_000_000;

/// What this version's servers say of the protocol.
pub(super) fn protocol() -> u64 {
    let setup = Setup::host();
    let _server = Server::start(&setup);
    let mut client = setup.connect();
    let info = client.call("_acpbox/server/info", json!({})).unwrap();
    info["protocol"].as_u64().unwrap()
}

/// Another version of acpbox, as far as a client sees it. It goes when it is asked
/// to retire, or when its socket is removed and somebody connects in vain.
struct Other {
    path: PathBuf,
    retirements: Arc<AtomicUsize>,
}

impl Other {
    fn start(setup: &Setup, info: Value) -> Other {
        // The configuration is there before it is named.
        setup.command();
        let mut said = json!({"pid": PID, "instance": "other",
            "database": setup.state().join("acpbox.db"),
            "config": setup.path().join("config/acpbox/config.toml")});
        for (key, value) in info.as_object().unwrap() {
            said[key] = value.clone();
        }
        let path = socket(setup);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let retirements = Arc::new(AtomicUsize::new(0));
        let other = Other {
            path: path.clone(),
            retirements: Arc::clone(&retirements),
        };
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if !path.exists() {
                    return;
                }
                if answer(&stream, &said) {
                    retirements.fetch_add(1, Ordering::SeqCst);
                    let _ = std::fs::remove_file(&path);
                    return;
                }
            }
        });
        other
    }

    fn retirements(&self) -> usize {
        self.retirements.load(Ordering::SeqCst)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // A server that is started meanwhile may have it now.
        if self.retirements() == 0 {
            let _ = UnixStream::connect(&self.path).map(|_| std::fs::remove_file(&self.path));
        }
    }
}

/// Serves one client to its end; whether it asked the server to retire.
fn answer(mut stream: &UnixStream, info: &Value) -> bool {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let request = value(&line);
        let result = match request["method"].as_str().unwrap_or_default() {
            "initialize" => json!({"protocolVersion": 1, "agentCapabilities": {}}),
            "_acpbox/server/info" => info.clone(),
            "_acpbox/server/retire" => json!({"retired": true}),
            _ => json!({}),
        };
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        let _ = writeln!(stream, "{answer}");
        if request["method"] == "_acpbox/server/retire" {
            return true;
        }
    }
    false
}

#[test]
fn a_server_of_another_version_is_used_if_it_speaks_alike_and_else_one_is_told_what_to_do() {
    let alike = protocol();
    for (info, is_used, words) in [
        (
            json!({"version": "99.0.0", "protocol": alike}),
            true,
            "is acpbox 99.0.0 and this is",
        ),
        (
            json!({"version": "0.0.1", "protocol": alike}),
            true,
            "restart the server: `kill 4000000`",
        ),
        // Of before it was said.
        (
            json!({"version": "0.0.1"}),
            false,
            "end the server (`kill 4000000`, or restart its service) and start `acpbox serve`",
        ),
        (
            json!({"version": "99.0.0", "protocol": alike + 1}),
            false,
            "start this client anew with the acpbox of the server",
        ),
    ] {
        let setup = Setup::host();
        let other = Other::start(&setup, info.clone());
        let mut client = setup.connect();
        let said = client.call("_acpbox/server/info", json!({})).unwrap();
        let pid = if is_used { PID } else { client.child.id() };
        assert_eq!(said["pid"], pid, "{info}");
        assert!(
            in_time(|| client.stderr().contains(words)),
            "{words}\n{}",
            client.stderr()
        );
        assert_eq!(other.retirements(), 0, "nobody spawned it");
        drop((client, other));
    }
}

#[test]
fn an_older_server_that_was_started_on_demand_makes_way_for_a_new_one() {
    for info in [
        json!({"version": "0.0.1", "protocol": protocol(), "spawned": true}),
        json!({"version": "0.0.1", "protocol": 0, "spawned": true}),
    ] {
        let setup = Setup::host().argument("--spawn-server");
        let other = Other::start(&setup, info);
        let mut client = setup.connect();
        let server = server_of(&mut client);
        assert_eq!(other.retirements(), 1);
        assert_ne!(server, u64::from(PID));
        assert_ne!(server, u64::from(client.child.id()));
        let _stop = Stop::of(server);
        assert_eq!(
            client.stderr(),
            "",
            "there is nothing to be done by anybody"
        );
        client.check_next_session();
        drop(client);
    }
}

#[test]
fn a_client_whose_server_is_replaced_by_one_that_it_cannot_use_says_so_at_once() {
    let setup = Setup::host();
    let server = Server::start(&setup);
    let mut client = setup.connect();
    assert_eq!(server_of(&mut client), u64::from(server.id()));
    server.stop();
    let other = Other::start(&setup, json!({"version": "99.0.0", "protocol": 1_000_000}));
    // The usual patience is half a minute.
    let begun = std::time::Instant::now();
    let error = client.call("session/list", json!({})).unwrap_err();
    let why = error["message"].as_str().unwrap();
    assert!(why.contains("is acpbox 99.0.0 and this is"), "{error}");
    assert!(why.contains("an editor: restart it"), "{error}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    drop(other);
    // One that it can use is used again.
    setup.script(&[expect_prompt(), chunk("one"), end_turn()]);
    let server = Server::start(&setup);
    assert!(in_time(|| client.call("session/list", json!({})).is_ok()));
    assert_eq!(server_of(&mut client), u64::from(server.id()));
    let session = client.new_session();
    client.prompt(&session, "u").unwrap();
    assert_eq!(client.texts(), ["one"]);
}

#[test]
fn a_server_retires_only_for_its_last_client_and_when_nothing_goes_on() {
    let setup = Setup::host();
    let retire = |client: &mut Client| client.call("_acpbox/server/retire", json!({})).unwrap();
    {
        let _server = Server::start(&setup);
        let refused = retire(&mut setup.connect());
        assert_eq!(refused["retired"], false, "{refused}");
        let why = refused["reason"].as_str().unwrap();
        assert!(why.contains("--spawn-server"), "{refused}");
    }
    setup.script(&[expect_prompt(), chunk("one"), json!({"sleep_ms": 60_000})]);
    let setup = setup.argument("--spawn-server");
    let (mut first, mut second) = (setup.connect(), setup.connect());
    let stop = Stop::of(server_of(&mut first));
    let refused = retire(&mut first);
    assert_eq!(refused["reason"], "other clients are connected");
    let session = first.new_session();
    let turn = first.request(
        "session/prompt",
        json!({"sessionId": session, "prompt": []}),
    );
    first.expect("session/update");
    drop(second.call("session/list", json!({})));
    drop(second);
    let is_refused_for = |client: &mut Client, words: &str| {
        let refused = retire(client);
        assert_eq!(refused["retired"], false, "{refused}");
        refused["reason"].as_str().unwrap().contains(words)
    };
    // That the second one left is noticed soon.
    assert!(in_time(|| is_refused_for(&mut first, "something goes on")));
    first.notify("session/cancel", json!({"sessionId": session}));
    // An agent that does not end the turn is ended, in time.
    let _ = first.answer(turn);
    assert!(in_time(|| retire(&mut first)["retired"] == true));
    assert!(in_time(|| stop.is_over()), "it goes on");
    // Whoever is still there starts the next one.
    let again = server_of(&mut first);
    let stop = Stop::of(again);
    first.take_rest();
    drop((first, stop));
}
