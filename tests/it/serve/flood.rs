//! Strangers in masses, who never say who they are, while clients come and work.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Peer, Server};
use crate::http::{Response, Web};
use crate::support::client::{PATIENCE, value};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// Strangers that are there at any time: more than all places together.
const CROWD: usize = 400;

/// Connections that come all the time, of which the oldest goes. Ends when it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Each of them sends one of these beginnings, in turns.
    fn start(address: &str, beginnings: &[&str]) -> Flood {
        let stop = Arc::new(AtomicBool::new(false));
        let opened = Arc::new(AtomicUsize::new(0));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&opened));
        let address = address.to_owned();
        let beginnings: Vec<String> = beginnings.iter().map(|&it| it.to_owned()).collect();
        let thread = std::thread::spawn(move || {
            let mut held = VecDeque::new();
            for beginning in beginnings.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(mut stream) = TcpStream::connect(&address) {
                    // It may have given way already.
                    let _ = stream.write_all(beginning.as_bytes());
                    held.push_back(stream);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if held.len() > CROWD {
                    held.pop_front();
                    // One that comes meanwhile has a second before as many came after it.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let flood = Flood {
            stop,
            opened,
            thread: Some(thread),
        };
        let begin = Instant::now();
        while flood.opened.load(Ordering::Relaxed) < CROWD {
            assert!(begin.elapsed() < PATIENCE, "the flood is stuck");
            std::thread::sleep(Duration::from_millis(10));
        }
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn setup() -> Setup {
    let bounds = "[server]\nconnections = 16\nhandshakes = 100\nhandshake_timeout = \"5m\"\n";
    let setup = Setup::host().config(bounds);
    let turn = [expect_prompt(), chunk("here"), end_turn()];
    setup.script(&turn.iter().cycle().take(90).cloned().collect::<Vec<_>>());
    setup
}

fn token(setup: &Setup) -> String {
    let text = std::fs::read_to_string(setup.state().join("token")).unwrap();
    text.trim().to_owned()
}

fn all_that_comes(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// How many lines of what it has said until its end have these words.
fn count(server: &mut Server, words: &str) -> usize {
    server.signal(libc::SIGTERM);
    let rest = server.rest();
    rest.lines().filter(|line| line.contains(words)).count()
}

const GAVE_WAY: &str = "this connection gave way to a newer one, since 100 had not introduced themselves (server.handshakes)";

#[test]
fn clients_of_tcp_come_and_work_while_strangers_flood_it() {
    let setup = setup();
    let mut server = Server::start(&setup, &["--listen", "tcp:127.0.0.1:0"]);
    let address = server.address();
    let place = address.strip_prefix("tcp:").unwrap();
    let meta = json!({"acpbox": {"token": token(&setup)}});
    let mut before = Peer::tcp(&address).initialize(meta.clone());
    let session = before.new_session(&setup);

    let oldest = TcpStream::connect(place).unwrap();
    let wrong = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1,"_meta":{"acpbox":{"token":"wrong"}}}}"#;
    let wrong = format!("{wrong}\n");
    let began = Instant::now();
    let flood = Flood::start(
        place,
        &["", "{", "noise\n", &wrong, "Content-Length: 9\r\n"],
    );
    let said = all_that_comes(oldest);
    let said = value(said.trim());
    assert_eq!(said["error"]["message"], GAVE_WAY);
    assert_eq!(said["id"], json!(null));
    for _ in 0..10 {
        let mut peer = Peer::tcp(&address).initialize(meta.clone());
        peer.load(&setup, &session);
        peer.texts();
        peer.call("session/prompt", prompt(&session, "u")).unwrap();
        assert_eq!(peer.texts(), ["here"]);
        let mut local = Peer::tcp(&address).initialize(meta.clone());
        local.call("session/list", json!({})).unwrap();
    }
    // The one that was there first was never in question.
    before
        .call("session/prompt", prompt(&session, "u"))
        .unwrap();
    drop(flood);
    drop(before);
    let minutes = 1 + usize::try_from(began.elapsed().as_secs() / 60).unwrap();
    let lines = count(&mut server, "have not introduced themselves");
    assert!((1..=minutes).contains(&lines), "{lines} in {minutes}");
}

#[test]
fn clients_of_http_and_websockets_come_and_work_while_strangers_flood_it() {
    let setup = setup();
    let web = Web::start(&setup);
    let place = &web.address;
    let mut before = web.websocket(&[("authorization", &web.bearer())]);
    before.initialize(json!({})).unwrap();
    let session = before.new_session(&setup);

    let silent = TcpStream::connect(place).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1,"_meta":{"acpbox":{"token":"wrong"}}}}"#;
    let post = format!(
        "POST /acp HTTP/1.1\r\nHost: {place}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let half = &post[..post.len() - 9];
    let health = format!("GET /healthz HTTP/1.1\r\nHost: {place}\r\n\r\n");
    let socket = format!(
        "GET /acp HTTP/1.1\r\nHost: {place}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let beginnings = ["", "GET / HT", &post, half, &health, &socket, preface];
    let flood = Flood::start(place, &beginnings);
    let farewell = Response::parse(&all_that_comes(silent));
    assert_eq!(farewell.status, 503);
    assert_eq!(farewell.body, format!("{GAVE_WAY}\n"));
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    for round in 0..6 {
        // Browsers send the token in `initialize` alone.
        let mut client = match round % 2 {
            0 => web.websocket(&[("authorization", &web.bearer())]),
            _ => web.websocket(&[]),
        };
        let meta = json!({"acpbox": {"token": web.token}});
        client.initialize(meta).unwrap();
        client.call("session/resume", params.clone()).unwrap();
        client
            .call("session/prompt", prompt(&session, "u"))
            .unwrap();
        let all = format!("{round}: {:?}", client.updates);
        assert_eq!(client.texts(), ["here"], "{all}");

        let mut remote = web.remote();
        let mut own = remote.events(None, None);
        let id = remote.send(None, "session/resume", params.clone());
        own.answer(id);
        let mut events = remote.events(Some(&session), None);
        let id = remote.send(Some(&session), "session/prompt", prompt(&session, "u"));
        let (texts, result) = events.answer(id);
        assert_eq!(result["stopReason"], "end_turn");
        assert!(texts.contains(&"here".to_owned()), "{texts:?}");
    }
    before
        .call("session/prompt", prompt(&session, "u"))
        .unwrap();
    drop(flood);
    drop(before);
    let Web { mut server, .. } = web;
    let lines = count(&mut server, "have not introduced themselves");
    assert!(lines >= 1, "{lines}");
}
