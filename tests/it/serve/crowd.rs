//! More clients than there is room for, and no descriptor left for one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};

use super::{Peer, Server, command, socket};
use crate::support::client::value;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// What clients that are turned away are told when there is no descriptor.
const NONE_LEFT: &str = "acpbox has no file descriptor left; close sessions or clients, or raise its limit of open files (ulimit -n, LimitNOFILE)";

/// The clients that come at once, if this process may have so many descriptors.
const CROWD: usize = 10_000;

/// How many prompts the tests' agent answers.
fn script(setup: &Setup) {
    let turn = [expect_prompt(), chunk("here"), end_turn()];
    setup.script(&turn.iter().cycle().take(60).cloned().collect::<Vec<_>>());
}

fn is_served(peer: &mut Peer, session: &str) {
    peer.call("session/prompt", prompt(session, "u")).unwrap();
    assert_eq!(peer.texts(), ["here"]);
}

/// All that a connection that is turned away is sent.
fn refusal(mut stream: UnixStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    match said.trim().lines().next() {
        Some(line) => value(line)["error"]["message"].as_str().unwrap().to_owned(),
        None => String::new(),
    }
}

/// Whether a new client is let in.
fn is_let_in(setup: &Setup) -> bool {
    let mut stream = UnixStream::connect(socket(setup)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    // One that is turned away may be gone before it wrote.
    let _ = writeln!(stream, "{message}");
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    !line.is_empty() && value(&line)["result"].is_object()
}

fn limit(server: &Server, descriptors: Option<u64>) {
    let process = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let limit = Rlimit {
        current: descriptors,
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(process, Resource::Nofile, limit).unwrap();
}

/// The number of the descriptor that it would get next.
fn next_descriptor(server: &Server) -> u64 {
    let is_free = |number: &u64| {
        let link = format!("/proc/{}/fd/{number}", server.pid());
        std::fs::symlink_metadata(link).is_err()
    };
    (0..).find(is_free).unwrap()
}

/// How many of the tests' agents run.
fn agents(setup: &Setup) -> usize {
    let script = setup.workspace().join(".testy").display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments =
        processes.filter_map(|it| std::fs::read_to_string(it.path().join("cmdline")).ok());
    arguments.filter(|it| it.contains(&script)).count()
}

fn processor_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(|it| it.parse::<u64>().unwrap());
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs_f64(ticks.sum::<u64>() as f64 / per_second as f64)
}

#[test]
fn of_a_crowd_as_many_as_there_is_room_for_are_let_in_and_the_rest_are_told() {
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let crowd = most.map_or(CROWD, |most| CROWD.min(most as usize - 100));
    println!("{crowd} clients");
    // One that says nothing would be let go before the last has come.
    let setup = Setup::host().config("[server]\nhandshake_timeout = \"5m\"");
    script(&setup);
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    let mut crowd: Vec<UnixStream> = (0..crowd)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    is_served(&mut first, &session);
    for stream in crowd.drain(1023..) {
        assert_eq!(
            refusal(stream),
            "all 1024 connections are in use (server.connections)"
        );
    }
    is_served(&mut first, &session);
    let mut last = crowd.pop().unwrap();
    last.set_nonblocking(true).unwrap();
    let nothing = last.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    assert!(!is_let_in(&setup));
    drop(last);
    assert!(
        wait_until(|| is_let_in(&setup)),
        "nobody is let in any more"
    );
    drop(crowd);
    let all = || -> Vec<_> { (0..100).map(|_| is_let_in(&setup)).collect() };
    assert!(wait_until(|| all().iter().all(|it| *it)), "places are lost");
    is_served(&mut first, &session);
}

#[test]
fn without_a_descriptor_left_clients_are_told_and_the_others_go_on() {
    let setup = Setup::host();
    script(&setup);
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    let beside = Peer::unix(&path).initialize(json!({}));
    is_served(&mut first, &session);
    assert!(is_let_in(&setup));
    // That one's place is free once the server saw that it is gone.
    let mut before = 0;
    assert!(wait_until(|| {
        let next = next_descriptor(&server);
        std::mem::replace(&mut before, next) == next
    }));
    limit(&server, Some(next_descriptor(&server)));
    let said = refusal(UnixStream::connect(&path).unwrap());
    assert_eq!(said, NONE_LEFT);
    let before = processor_time(&server);
    let waiting: Vec<UnixStream> = (0..20)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let used = processor_time(&server) - before;
    assert!(used < Duration::from_millis(200), "{used:?} in two seconds");
    for stream in waiting {
        assert_eq!(refusal(stream), NONE_LEFT);
    }
    is_served(&mut first, &session);
    // What needs descriptors is refused, wherever it lacks them, and only that.
    let params = json!({"cwd": setup.workspace(), "mcpServers": []});
    let mut refused = 0;
    for room in 0..6 {
        limit(&server, Some(next_descriptor(&server) + room));
        match first.call("session/new", params.clone()) {
            Ok(created) => {
                // Whether that needs another one depends on what ends first.
                limit(&server, getrlimit(Resource::Nofile).maximum);
                let close = json!({"sessionId": created["sessionId"]});
                first.call("session/close", close).unwrap();
            }
            Err(error) => {
                let what = error["message"].as_str().unwrap();
                let is_named = what.contains("file descriptor") || what.contains("open files");
                assert!(is_named, "with {room}: {error}");
                refused += 1;
            }
        }
        is_served(&mut first, &session);
    }
    assert!(refused >= 3, "{refused}");
    assert!(wait_until(|| agents(&setup) == 1), "an agent is left");
    limit(&server, Some(next_descriptor(&server)));
    assert!(!is_let_in(&setup));
    // One leaves, one comes.
    drop(beside);
    assert!(
        wait_until(|| is_let_in(&setup)),
        "nobody is let in any more"
    );
    limit(&server, getrlimit(Resource::Nofile).maximum);
    let another = first.new_session(&setup);
    is_served(&mut first, &another);
    is_served(&mut first, &session);
}

#[test]
fn clients_leave_half_of_few_descriptors_to_sessions() {
    let setup = Setup::host();
    script(&setup);
    let inner = command(&setup, &[]);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 64 && exec \"$0\" serve"])
        .arg(inner.get_program())
        .env_clear()
        .current_dir(setup.workspace())
        .stdin(std::process::Stdio::null());
    for (name, value) in inner.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let mut server = Server::of(limited);
    server.address();
    let path = socket(&setup);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    let mut others: Vec<Peer> = (1..32)
        .map(|_| Peer::unix(&path).initialize(json!({})))
        .collect();
    let full = "all 32 connections are in use (server.connections)";
    for _ in 0..200 {
        assert_eq!(refusal(UnixStream::connect(&path).unwrap()), full);
    }
    // They are served as ever: what is written, and what is read.
    is_served(&mut first, &session);
    let all: Vec<Value> = others
        .iter_mut()
        .map(|peer| peer.call("session/list", json!({})).unwrap())
        .collect();
    assert!(all.iter().all(|list| list.to_string().contains(&session)));
    others[0].load(&setup, &session);
    let another = others[1].new_session(&setup);
    is_served(&mut others[1], &another);
    others.clear();
    assert!(
        wait_until(|| is_let_in(&setup)),
        "nobody is let in any more"
    );
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
}
