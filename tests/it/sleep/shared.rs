//! Several clients of one acpbox, in this process, on several threads.

use std::sync::Arc;
use std::time::Duration;

use acpbox::agent::catalog::Catalog;
use acpbox::config::{Config, Environment, Overrides};
use acpbox::server::connection::Gate;
use acpbox::server::{self, Server};
use acpbox::session::Host;
use acpbox::store::Store;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{can_resume, resumes};
use crate::support::scripted::script;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(15);

/// As a process with several threads has it.
fn threads() -> tokio::runtime::Runtime {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(4).enable_all().build().unwrap()
}

fn host(setup: &Setup) -> Arc<Server> {
    // Writes the configuration too.
    let command = setup.command();
    let variables = command.get_envs().filter_map(|(name, value)| {
        let name = name.to_str()?.to_owned();
        Some((name, value?.to_owned()))
    });
    let environment = Environment::from_variables(variables);
    let config = Config::load(&environment, &Overrides::default()).unwrap();
    let catalog = Catalog::new(&config).unwrap();
    let store = Store::open(&config.paths.database).unwrap();
    let executable = env!("CARGO_BIN_EXE_acpbox").into();
    Server::new(Host::new(config, environment, catalog, store, executable))
}

/// A client on a pipe of memory.
struct Peer {
    input: WriteHalf<DuplexStream>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    last_id: u64,
    /// What came while an answer was waited for.
    unread: Vec<Value>,
}

impl Peer {
    async fn connect(server: &Arc<Server>) -> Peer {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (input, output) = tokio::io::split(theirs);
        let server = Arc::clone(server);
        tokio::spawn(async move {
            server::serve(
                server,
                input,
                output,
                Gate::default(),
                CancellationToken::new(),
                || true,
            )
            .await
        });
        let (output, input) = tokio::io::split(ours);
        let mut peer = Peer {
            input,
            lines: BufReader::new(output).lines(),
            last_id: 0,
            unread: Vec::new(),
        };
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
        peer.call("initialize", params).await.unwrap();
        peer
    }

    async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        id
    }

    async fn receive(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("a message in time").unwrap();
        serde_json::from_str(&line.expect("a message")).unwrap()
    }

    async fn answer(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            let mut message = self.receive().await;
            if message["id"] == id && message.get("method").is_none() {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].take()),
                };
            }
            self.unread.push(message);
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    /// The texts of the message chunks, until one is `last`.
    async fn texts_until(&mut self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let message = match self.unread.is_empty() {
                true => self.receive().await,
                false => self.unread.remove(0),
            };
            let update = &message["params"]["update"];
            if update["sessionUpdate"] != "agent_message_chunk" {
                continue;
            }
            let text = update["content"]["text"].as_str().unwrap();
            texts.push(text.to_owned());
            if text == last {
                return texts;
            }
        }
    }

    async fn new_session(&mut self, setup: &Setup, steps: &[Value]) -> String {
        let env = json!({"TESTY_SCRIPT": script(steps)});
        let params = json!({"cwd": setup.workspace(), "mcpServers": [],
            "_meta": {"acpbox": {"agent": "inline", "env": env}}});
        let created = self.call("session/new", params).await.unwrap();
        created["sessionId"].as_str().unwrap().to_owned()
    }

    async fn load(&mut self, setup: &Setup, session: &str) {
        let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
        self.call("session/load", params).await.unwrap();
    }
}

#[test]
fn whoever_followed_a_sleeping_session_hears_what_wakes_it_for_another() {
    let setup = Setup::host().vm("agent_sleep_after = \"300ms\"");
    threads().block_on(async {
        let server = host(&setup);
        let mut one = Peer::connect(&server).await;
        let mut other = Peer::connect(&server).await;
        let steps = [
            can_resume(),
            resumes(),
            expect_prompt(),
            chunk("said"),
            end_turn(),
        ];
        let session = one.new_session(&setup, &steps).await;
        other.load(&setup, &session).await;
        let live = server.host.registry.live(&session).unwrap();
        timeout(PATIENCE, async {
            while !live.is_finished() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it sleeps");
        assert!(server.host.registry.live(&session).is_none());

        let woken = other.call("session/prompt", prompt(&session, "on")).await;
        assert_eq!(woken.unwrap()["_meta"]["acpbox"]["text"], "said");
        assert_eq!(one.texts_until("said").await, ["said"]);
        assert_eq!(other.texts_until("said").await, ["said"]);
        server.host.shutdown().await;
    });
}

#[test]
fn a_vm_that_its_clients_have_left_sleeps_until_one_comes_back() {
    let setup = Setup::new().vm("sleep_after = \"400ms\"");
    threads().block_on(async {
        let server = host(&setup);
        let mut one = Peer::connect(&server).await;
        let able = one.new_session(&setup, &[can_resume(), resumes()]).await;
        let forgetful = one.new_session(&setup, &[]).await;
        let list = one.call("_acpbox/vm/list", json!({})).await.unwrap();
        let name = list["vms"][0]["name"].as_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for session in [&able, &forgetful] {
            assert!(
                server.host.registry.live(session).is_some(),
                "somebody is attached"
            );
        }
        drop(one);
        timeout(PATIENCE, async {
            while !server.host.vms.is_asleep(&name) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it sleeps");

        let mut other = Peer::connect(&server).await;
        for (session, reason, tier) in [(&able, "idle", "resume"), (&forgetful, "vm_idle", "new")] {
            let answer = other.call("session/prompt", prompt(session, "on")).await;
            assert_eq!(answer.unwrap()["stopReason"], "end_turn");
            let params = json!({"sessionId": session});
            let page = other.call("_acpbox/session/events", params).await.unwrap();
            let events = page["events"].as_array().unwrap();
            let of = |kind: &str| {
                let found = events.iter().find(|it| it["kind"] == kind);
                found.unwrap()["message"]["params"].clone()
            };
            assert_eq!(of("_acpbox/session/sleep")["reason"], reason);
            assert_eq!(of("_acpbox/session/wake")["tier"], tier);
        }
        server.host.shutdown().await;
    });
}

#[test]
fn a_vm_sleeps_whose_client_left_while_its_session_came_back() {
    let setup = Setup::new().vm("sleep_after = \"400ms\"");
    setup.script(&[]);
    threads().block_on(async {
        let server = host(&setup);
        let mut one = Peer::connect(&server).await;
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let created = one.call("session/new", params.clone()).await.unwrap();
        let session = json!({"sessionId": created["sessionId"]});
        one.call("session/close", session.clone()).await.unwrap();
        setup.script(&[
            json!({"expect": "session/new"}),
            json!({"sleep_ms": 600}),
            json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"again"}}"#}),
        ]);
        let mut load = params;
        load["sessionId"] = session["sessionId"].clone();
        one.send("session/resume", load).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(one);
        let mut other = Peer::connect(&server).await;
        let list = other.call("_acpbox/vm/list", json!({})).await.unwrap();
        let name = list["vms"][0]["name"].as_str().unwrap().to_owned();
        timeout(PATIENCE, async {
            while !server.host.vms.is_asleep(&name) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it sleeps");
        server.host.shutdown().await;
    });
}

#[test]
fn whoever_followed_a_session_whose_agent_died_hears_what_brings_it_back() {
    let setup = Setup::host();
    setup.script(&[expect_prompt(), json!({"exit": 3})]);
    threads().block_on(async {
        let server = host(&setup);
        let mut one = Peer::connect(&server).await;
        let mut other = Peer::connect(&server).await;
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let created = one.call("session/new", params).await.unwrap();
        let session = created["sessionId"].as_str().unwrap().to_owned();
        other.load(&setup, &session).await;
        let died = one.call("session/prompt", prompt(&session, "die")).await;
        assert_eq!(died.unwrap_err()["data"]["exit"], "exit code 3");
        setup.script(&[expect_prompt(), chunk("back"), end_turn()]);
        let answered = other.call("session/prompt", prompt(&session, "on")).await;
        answered.unwrap();
        assert_eq!(one.texts_until("back").await, ["back"]);
        server.host.shutdown().await;
    });
}

#[test]
fn a_client_that_does_not_read_does_not_keep_a_session_from_ending() {
    let setup = Setup::host().limits("exit_grace = \"100ms\"");
    threads().block_on(async {
        let server = host(&setup);
        let mut one = Peer::connect(&server).await;
        let mut deaf = Peer::connect(&server).await;
        let long = "x".repeat(8 << 10);
        let mut flood = chunk(&long);
        flood["repeat"] = 4096.into();
        setup.script(&[expect_prompt(), flood, end_turn()]);
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let created = one.call("session/new", params).await.unwrap();
        let session = created["sessionId"].as_str().unwrap().to_owned();
        setup.script(&[]);
        deaf.load(&setup, &session).await;
        deaf.send("session/prompt", prompt(&session, "flood")).await;
        // Both are sent all of it, and only one reads until nothing comes any more.
        while let Ok(Ok(Some(_))) = timeout(Duration::from_millis(500), one.lines.next_line()).await
        {
        }
        let live = server.host.registry.live(&session).unwrap();
        let start = std::time::Instant::now();
        let closed = one
            .call("session/close", json!({"sessionId": session}))
            .await;
        closed.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{:?}",
            start.elapsed()
        );
        assert!(live.is_finished(), "it still waits for the client");
        // Its lease is free, for this process and any other.
        let again = one.call("session/prompt", prompt(&session, "on")).await;
        again.unwrap();
        server.host.shutdown().await;
    });
}

#[test]
fn many_clients_on_many_threads_lose_no_session() {
    let setup = Setup::host().vm("agent_sleep_after = \"50ms\"");
    threads().block_on(async {
        let server = host(&setup);
        let clients = (0..8).map(|number| {
            let (server, workspace) = (Arc::clone(&server), setup.workspace());
            tokio::spawn(async move {
                let mut peer = Peer::connect(&server).await;
                let env = json!({"TESTY_SCRIPT": script(&[can_resume(), resumes()])});
                let params = json!({"cwd": workspace, "mcpServers": [],
                "_meta": {"acpbox": {"agent": "inline", "env": env}}});
                let created = peer.call("session/new", params).await.unwrap();
                let session = created["sessionId"].as_str().unwrap().to_owned();
                for round in 0..20 {
                    // Sometimes awake, sometimes asleep, sometimes just going.
                    tokio::time::sleep(Duration::from_millis((round * 13 + number * 7) % 120))
                        .await;
                    let answer = peer.call("session/prompt", prompt(&session, "on")).await;
                    assert_eq!(answer.unwrap()["stopReason"], "end_turn", "round {round}");
                }
                let params = json!({"sessionId": session, "limit": 10_000});
                let page = peer.call("_acpbox/session/events", params).await.unwrap();
                let events = page["events"].as_array().unwrap().clone();
                let of = |kind: &str| events.iter().filter(|it| it["kind"] == kind).count();
                assert_eq!(of("session/prompt:result"), 20);
                assert_eq!(of("session/prompt:error"), 0);
                of("_acpbox/session/wake")
            })
        });
        let wakes = timeout(PATIENCE * 4, futures::future::join_all(clients)).await;
        let wakes: usize = wakes
            .expect("all end")
            .into_iter()
            .map(Result::unwrap)
            .sum();
        assert!(wakes > 8, "they hardly slept: {wakes}");
        server.host.shutdown().await;
    });
}
