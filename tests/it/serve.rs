//! `acpbox serve`: clients on sockets, who is let in, and how it stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{PATIENCE, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod crowd;
mod flood;
mod lost;
mod places;
mod process;
mod strangers;

pub use process::{Server, command, socket};

/// A client at the other end of a socket.
pub struct Peer {
    reader: BufReader<Box<dyn Read>>,
    pub writer: Box<dyn Write>,
    next: u64,
    updates: Vec<Value>,
}

impl Peer {
    pub fn unix(path: &Path) -> Peer {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer::new(stream.try_clone().unwrap(), stream)
    }

    pub fn tcp(address: &str) -> Peer {
        let stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer::new(stream.try_clone().unwrap(), stream)
    }

    pub fn new(reader: impl Read + 'static, writer: impl Write + 'static) -> Peer {
        Peer {
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
            next: 0,
            updates: Vec::new(),
        }
    }

    pub fn initialize(mut self, meta: Value) -> Peer {
        self.try_initialize(meta).unwrap();
        self
    }

    pub fn try_initialize(&mut self, meta: Value) -> Result<Value, Value> {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}, "_meta": meta});
        self.call("initialize", params)
    }

    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let message =
            json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        writeln!(self.writer, "{message}").unwrap();
        self.next
    }

    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        self.answer(id)
    }

    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            let message = self.receive().expect("the server closed the connection");
            if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
            self.updates.push(message);
        }
    }

    /// `None` at the end of the connection.
    pub fn receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).unwrap();
        (count > 0).then(|| value(&line))
    }

    pub fn new_session(&mut self, setup: &Setup) -> String {
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let result = self.call("session/new", params).unwrap();
        result["sessionId"].as_str().unwrap().to_owned()
    }

    pub fn load(&mut self, setup: &Setup, session: &str) -> Value {
        let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
        self.call("session/load", params).unwrap()
    }

    /// The texts of the updates since the last call.
    pub fn texts(&mut self) -> Vec<String> {
        let updates = std::mem::take(&mut self.updates);
        let text = |update: &Value| {
            update["params"]["update"]["content"]["text"]
                .as_str()
                .map(str::to_owned)
        };
        updates.iter().filter_map(text).collect()
    }
}

#[test]
fn a_session_outlives_its_client_and_the_next_one_finds_it_live() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    let path = socket(&setup);
    assert_eq!(server.address(), format!("unix:{}", path.display()));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);

    setup.script(&[
        expect_prompt(),
        chunk("a1"),
        end_turn(),
        expect_prompt(),
        chunk("a2"),
        end_turn(),
    ]);
    let mut first = Peer::unix(&path).initialize(json!({}));
    let session = first.new_session(&setup);
    first
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    assert_eq!(first.texts(), ["a1"]);
    drop(first);

    let mut second = Peer::unix(&path).initialize(json!({}));
    let result = second.load(&setup, &session);
    assert_eq!(result["_meta"]["acpbox"]["restored"]["tier"], "attach");
    assert_eq!(second.texts(), ["u1", "a1"]);
    // A third follows beside it, and sees the same turn.
    let mut third = Peer::unix(&path).initialize(json!({}));
    third.load(&setup, &session);
    third.texts();
    second
        .call("session/prompt", prompt(&session, "u2"))
        .unwrap();
    assert_eq!(second.texts(), ["a2"]);
    assert!(third.receive().unwrap().to_string().contains("\"u2\""));
    assert!(third.receive().unwrap().to_string().contains("\"a2\""));

    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    assert!(!path.exists(), "its socket is left behind");
    assert!(second.receive().is_none());
}

#[test]
fn one_server_has_a_path_and_a_dead_ones_socket_is_replaced() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let refused = |what: &str| {
        let Output { status, stderr, .. } = command(&setup, &[]).output().unwrap();
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(what), "{said}");
    };
    refused("another acpbox serves here already");
    server.signal(libc::SIGKILL);
    server.exit_code();
    let path = socket(&setup);
    assert!(path.exists());
    let mut server = Server::start(&setup, &[]);
    server.address();
    Peer::unix(&path).initialize(json!({}));
    drop(server);

    // What is no dead socket is never touched.
    std::fs::remove_file(&path).unwrap();
    let precious = setup.path().join("precious");
    std::fs::write(&precious, "data").unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    refused("it exists and is no socket");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "data").unwrap();
    refused("it exists and is no socket");
    std::fs::remove_file(&path).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    refused("another acpbox serves here already");
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
    let long = format!("unix:{}/{}", setup.path().display(), "x".repeat(120));
    let output = command(&setup, &["--listen", &long]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("too long for a socket"), "{said}");
}

#[test]
fn another_users_client_is_turned_away() {
    if !rustix::process::getuid().is_root() {
        // Only root can act as another user.
        return;
    }
    let setup = Setup::new();
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    // Every other bar is taken away: the peer's uid is the last one.
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&path, 0o666);
    for folder in path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != Path::new("/"))
    {
        if std::fs::metadata(folder).unwrap().permissions().mode() & 0o001 == 0 {
            open(folder, 0o755);
        }
    }
    let program = "use IO::Socket::UNIX; $SIG{PIPE} = 'IGNORE'; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die qq(connect: $!); \
        print $s qq({\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\\n); $s->flush; \
        my $l = <$s>; print defined $l ? $l : qq(closed);";
    let output = std::os::unix::process::CommandExt::uid(&mut Command::new("perl"), 65534)
        .args(["-e", program])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said == "closed", "{said}");
    Peer::unix(&path).initialize(json!({}));
}

#[test]
fn tcp_needs_the_token() {
    let setup = Setup::new();
    let mut server = Server::start(&setup, &["--listen", "tcp:127.0.0.1:0"]);
    let address = server.address();
    let path = setup.state().join("token");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let token = std::fs::read_to_string(&path).unwrap();
    let meta = |token: &str| json!({"acpbox": {"token": token}});
    for (meta, why) in [
        (json!({}), "`_meta.acpbox.token` is missing"),
        (meta("wrong"), "is wrong"),
        (meta(&token), "is wrong"),
        (json!({"acpbox": {"token": 7}}), "is missing"),
    ] {
        let mut peer = Peer::tcp(&address);
        // Nothing is served before.
        let early = peer.call("session/list", json!({})).unwrap_err();
        assert!(
            early["message"]
                .as_str()
                .unwrap()
                .contains("before `initialize`"),
            "{early}"
        );
        let error = peer.try_initialize(meta).unwrap_err();
        assert_eq!(error["code"], -32000);
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
        assert!(peer.receive().is_none(), "it was not let go");
    }
    let mut peer = Peer::tcp(&address).initialize(meta(token.trim()));
    setup.script(&[expect_prompt(), chunk("a"), end_turn()]);
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "u")).unwrap();
    let events = peer
        .call("_acpbox/session/events", json!({"sessionId": session}))
        .unwrap();
    assert!(
        !events.to_string().contains(token.trim()),
        "the token is in the transcript"
    );
}

#[test]
fn what_others_reach_needs_a_token_of_yours_and_a_good_one() {
    let setup = Setup::new();
    let file = setup.path().join("my token");
    let check = |arguments: &[&str], why: &str| {
        let output = command(&setup, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    };
    check(
        &["--listen", "tcp:0.0.0.0:0"],
        "name a token for its clients, with --token-file",
    );
    check(&["--listen", "smtp:x"], "its scheme is unknown");
    let named = file.display().to_string();
    check(
        &["--listen", "tcp:127.0.0.1:0", "--token-file", &named],
        "No such file",
    );
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    check(&["--token-file", &named], "others may read it; chmod 600");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut server = Server::start(
        &setup,
        &["--listen", "tcp:127.0.0.1:0", "--token-file", &named],
    );
    let address = server.address();
    Peer::tcp(&address).initialize(json!({"acpbox": {"token": "0123456789abcdef"}}));
    assert!(!setup.state().join("token").exists());
}

#[test]
fn a_stop_lets_turns_end_and_a_second_one_does_not() {
    let setup = Setup::new();
    for signals in [1, 2] {
        let mut server = Server::start(&setup, &[]);
        server.address();
        setup.script(&[
            expect_prompt(),
            chunk("begun"),
            json!({"sleep_ms": if signals == 1 { 700 } else { 60_000 }}),
            end_turn(),
        ]);
        let mut peer = Peer::unix(&socket(&setup)).initialize(json!({}));
        let session = peer.new_session(&setup);
        let id = peer.send("session/prompt", prompt(&session, "u"));
        while !peer.receive().unwrap().to_string().contains("begun") {}
        let started = Instant::now();
        for _ in 0..signals {
            server.signal(libc::SIGTERM);
            std::thread::sleep(Duration::from_millis(100));
        }
        if signals == 1 {
            let result = peer.answer(id).unwrap();
            assert_eq!(result["stopReason"], "end_turn");
        } else {
            let error = peer.answer(id).unwrap_err();
            let why = "acpbox was stopped or restarted, and the turn ended with it";
            assert_eq!(error["message"], why, "{error}");
        }
        // No new client is taken in meanwhile; this one is let go.
        assert!(peer.receive().is_none());
        assert_eq!(server.exit_code(), Some(0));
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "{:?}",
            started.elapsed()
        );
        let mut reader = setup.connect();
        let events = reader.events(&session);
        let is_end = |event: &&Value| {
            ["session/prompt:result", "session/prompt:error"]
                .contains(&event["kind"].as_str().unwrap())
        };
        assert_eq!(events.iter().filter(is_end).count(), 1, "{events:?}");
    }
}

#[test]
fn clients_are_bounded_and_the_silent_ones_let_go() {
    let setup = Setup::new().config("[server]\nconnections = 2\nhandshake_timeout = \"400ms\"");
    let mut server = Server::start(&setup, &[]);
    server.address();
    let path = socket(&setup);
    let kept = Peer::unix(&path).initialize(json!({}));
    let mut silent = Peer::unix(&path);
    let mut third = Peer::unix(&path);
    let said = third.receive().unwrap();
    let text = said["error"]["message"].as_str().unwrap();
    assert_eq!(text, "all 2 connections are in use (server.connections)");
    assert!(third.receive().is_none());
    let said = silent.receive().unwrap();
    let text = said["error"]["message"].as_str().unwrap();
    assert!(text.contains("no `initialize` came within 0.4 s"), "{text}");
    assert!(silent.receive().is_none());
    // Its place is free again, and the first one was never disturbed.
    assert!(wait_until(|| Peer::unix(&path)
        .try_initialize(json!({}))
        .is_ok()));
    let mut kept = kept;
    kept.call("session/list", json!({})).unwrap();
}

#[test]
fn a_socket_that_systemd_opened_is_served() {
    let setup = Setup::new();
    let path = setup.path().join("activated.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let inner = command(&setup, &[]);
    let mut shell = Command::new("/bin/sh");
    shell
        .args([
            "-c",
            "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve",
        ])
        .arg(inner.get_program())
        .env_clear()
        .current_dir(setup.workspace())
        .stdin(Stdio::from(OwnedFd::from(listener)));
    for (name, value) in inner.get_envs() {
        shell.env(name, value.unwrap());
    }
    let mut server = Server::of(shell);
    assert_eq!(server.address(), format!("unix:{}", path.display()));
    Peer::unix(&path).initialize(json!({}));
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    assert!(path.exists(), "the socket is systemd's");
    assert!(!socket(&setup).exists());
    let _ = UnixStream::connect(&path).map(|stream| stream.shutdown(Shutdown::Both));
}
