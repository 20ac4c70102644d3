//! Every state of a session, and everything that can end a part of it then.
//!
//! Whatever happens: who waits is answered once, with a reason, in time; the
//! connection and other sessions go on; the next prompt works; what the client
//! saw is in the transcript; no process is left over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, envelope, raw_id, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::site::{Watch, eventually};
use crate::support::steps::{chunk, end_turn, expect_prompt};
use crate::turns::SOON;
use fault::Fault;
use state::{State, Victim};

mod fault;
mod state;

/// A turn of an agent that is stopped ends so long after it was cancelled.
const GRACE: Duration = Duration::from_millis(500);

#[test]
fn an_idle_session_survives_every_fault() {
    check_all(State::Idle);
}

#[test]
fn an_agent_that_starts_survives_every_fault() {
    check_all(State::Initializing);
}

#[test]
fn a_session_that_begins_survives_every_fault() {
    check_all(State::Beginning);
}

#[test]
fn a_turn_that_streams_survives_every_fault() {
    check_all(State::Streaming);
}

#[test]
fn a_silent_turn_survives_every_fault() {
    check_all(State::Silent);
}

#[test]
fn a_turn_that_waits_for_permission_survives_every_fault() {
    check_all(State::Asking);
}

#[test]
fn a_turn_whose_command_runs_survives_every_fault() {
    check_all(State::Running);
}

#[test]
fn a_turn_that_is_being_cancelled_survives_every_fault() {
    check_all(State::Cancelling);
}

#[test]
fn a_session_that_is_being_brought_back_survives_every_fault() {
    check_all(State::Restoring);
}

fn check_all(state: State) {
    for fault in fault::ALL {
        println!("{state:?}, {fault:?}");
        match fault {
            Fault::AcpboxKilled | Fault::AcpboxTerminated => check_acpbox(state, fault),
            Fault::AgentStopped => check_stopped(state),
            _ => check_agent(state, fault),
        }
    }
}

/// One more turn.
fn back() -> [Value; 3] {
    [expect_prompt(), chunk("back"), end_turn()]
}

/// The agent or its VM ends.
fn check_agent(state: State, fault: Fault) {
    let setup = Setup::new().limits("cancel_grace = \"30s\"");
    let mut scene = Scene::new(&setup, state, fault.takes_the_vm());
    if state == State::Restoring {
        // What the agent is started with for the next way.
        setup.script(&back());
    }
    let start = Instant::now();
    fault.strike(&setup, &scene.client);
    let exit = match scene.victim.pending {
        Some(pending) => {
            let answer = scene.client.answer(pending);
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            match answer {
                // The next way to bring it back is tried at once.
                Ok(result) if state == State::Restoring => {
                    let restored = &result["_meta"]["acpbox"]["restored"];
                    assert_eq!(restored["tier"], "new", "{restored}");
                    let reason = restored["reasons"][1].as_str().unwrap();
                    let (what, exit) = reason.split_once(" (").unwrap();
                    assert!(what.contains("the agent `testy` ended"), "{reason}");
                    exit.trim_end_matches(')').to_owned()
                }
                answer => {
                    let error = answer.unwrap_err();
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains("the agent `testy` ended"), "{error}");
                    assert_eq!(error["data"]["phase"], state.phase(), "{error}");
                    error["data"]["exit"].as_str().unwrap().to_owned()
                }
            }
        }
        None => {
            let session = scene.session();
            let is_noticed = eventually(SOON, || !scene.exits(&session).is_empty());
            assert!(is_noticed, "nobody noticed");
            scene.exits(&session).remove(0)
        }
    };
    assert!(fault.explains(&exit), "{exit}");
    assert!(eventually(SOON, || state::commands(&setup).is_empty()));
    scene.check_the_other();
    if state == State::Asking {
        // An answer that comes too late is nobody's.
        let asked = scene.asked.clone().unwrap();
        scene.client.respond(&asked, state::ALLOWED);
    }
    scene.check_next_prompt(&setup);
    scene.check_transcript();
    scene.end(&setup);
}

/// The agent does nothing any more, and lives.
fn check_stopped(state: State) {
    let millis = GRACE.as_millis();
    let setup = Setup::new().limits(&format!(
        "cancel_grace = \"{millis}ms\"\ninitialize_timeout = \"1s\"\nsession_timeout = \"1s\""
    ));
    let mut scene = Scene::new(&setup, state, false);
    let agent = fault::agents(&setup);
    if state == State::Restoring {
        // What the agent is started with for the next way.
        setup.script(&back());
    }
    let start = Instant::now();
    Fault::AgentStopped.strike(&setup, &scene.client);
    scene.check_the_other();
    if state == State::Idle {
        let params = scene.prompt_params("are you there?");
        scene.victim.pending = Some(scene.client.request("session/prompt", params));
    }
    let pending = scene.victim.pending.unwrap();
    if state.is_turn() {
        if state != State::Cancelling {
            let session = scene.session();
            (scene.client).notify("session/cancel", json!({"sessionId": session}));
        }
        let result = scene.client.answer(pending).unwrap();
        assert_eq!(result["stopReason"], "cancelled");
        assert!(start.elapsed() < GRACE + SOON, "{:?}", start.elapsed());
    } else {
        let answer = scene.client.answer(pending);
        assert!(start.elapsed() < GRACE + SOON, "{:?}", start.elapsed());
        match answer {
            Ok(result) if state == State::Restoring => {
                let restored = &result["_meta"]["acpbox"]["restored"];
                assert_eq!(restored["tier"], "new", "{restored}");
                let reason = restored["reasons"][1].as_str().unwrap();
                assert!(reason.contains("did not answer"), "{reason}");
            }
            answer => {
                let error = answer.unwrap_err();
                let message = error["message"].as_str().unwrap();
                assert!(message.contains("did not answer"), "{error}");
                assert_eq!(error["data"]["phase"], state.phase(), "{error}");
            }
        }
        let is_gone = || fault::agents(&setup).iter().all(|now| !agent.contains(now));
        assert!(eventually(SOON, is_gone), "the stopped agent is left");
    }
    scene.check_next_prompt(&setup);
    scene.check_transcript();
    scene.end(&setup);
}

/// acpbox itself ends, and another takes its place.
fn check_acpbox(state: State, fault: Fault) {
    let setup = Setup::new().limits("cancel_grace = \"30s\"");
    let mut scene = Scene::new(&setup, state, false);
    let watch = Watch::of(setup.path());
    assert!(!watch.alive().is_empty());
    fault.strike(&setup, &scene.client);
    let status = scene.client.wait_for_end(SOON);
    let status = status.unwrap_or_else(|| panic!("it did not end\n{}", scene.client.stderr()));
    watch.expect_none(SOON);
    scene.look();
    if fault == Fault::AcpboxTerminated {
        assert!(status.success(), "{status:?}");
    }
    scene.client = setup.connect();
    scene.check_next_prompt(&setup);
    scene.check_transcript();
    scene.end(&setup);
}

/// A client with a session in some state, and another one that must not notice.
struct Scene {
    client: Client,
    victim: Victim,
    /// The agent's question for permission.
    asked: Option<String>,
    other: String,
    /// Everything that the client received and no check took.
    seen: Vec<String>,
    prompts: usize,
}

impl Scene {
    fn new(setup: &Setup, state: State, with_own_vm: bool) -> Scene {
        let earlier = (state == State::Restoring).then(|| state::earlier(setup));
        let mut client = setup.connect();
        let other = other_session(setup, &mut client, with_own_vm);
        let victim = state.enter(setup, &mut client, earlier);
        let asked = (state == State::Asking).then(|| client.expect("session/request_permission"));
        Scene {
            prompts: usize::from(state.is_turn() && state != State::Idle)
                + usize::from(state == State::Restoring),
            client,
            victim,
            asked,
            other,
            seen: Vec::new(),
        }
    }

    fn session(&self) -> String {
        self.victim.session.clone().unwrap()
    }

    fn prompt_params(&mut self, text: &str) -> Value {
        self.prompts += 1;
        crate::support::steps::prompt(&self.session(), text)
    }

    fn look(&mut self) {
        let rest = self.client.rest();
        self.seen.extend(rest);
    }

    /// The answers to a request that came and were not taken.
    fn answers(&self, id: u64) -> Vec<&String> {
        let lines = self.seen.iter();
        lines
            .filter(|line| envelope(line).method.is_none() && raw_id(line) == id.to_string())
            .collect()
    }

    fn kinds(&mut self, session: &str) -> Vec<String> {
        let events = self.client.events(session);
        let kinds = events.iter().map(|event| event["kind"].as_str().unwrap());
        kinds.map(str::to_owned).collect()
    }

    /// How the session's agents ended, those that acpbox ended itself aside.
    fn exits(&mut self, session: &str) -> Vec<String> {
        let events = self.client.events(session);
        let exits = events
            .iter()
            .filter(|event| event["kind"] == "_acpbox/agent/exit");
        let params = exits.map(|event| &event["message"]["params"]);
        params
            .filter(|params| params["closed"] != true)
            .map(|params| params["exit"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The other session answers, and its agent is the same one.
    fn check_the_other(&mut self) {
        let other = self.other.clone();
        let result = self.client.prompt(&other, "and you?").unwrap();
        assert_eq!(result["stopReason"], "end_turn");
        let kinds = self.kinds(&other);
        assert!(!kinds.contains(&"_acpbox/agent/exit".into()), "{kinds:?}");
    }

    /// The session goes on, or one that never began is begun again.
    fn check_next_prompt(&mut self, setup: &Setup) {
        setup.script(&back());
        if self.victim.session.is_none() {
            self.victim.session = Some(self.client.new_session());
        }
        let params = self.prompt_params("again");
        let result = self.client.call("session/prompt", params);
        let result = result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.client.stderr()));
        assert_eq!(result["stopReason"], "end_turn");
        assert_eq!(result["_meta"]["acpbox"]["text"], "back");
    }

    /// What the client saw of the session is there, and each prompt was answered once.
    fn check_transcript(&mut self) {
        self.look();
        if let Some(pending) = self.victim.pending {
            assert!(self.answers(pending).len() <= 1);
        }
        let session = self.session();
        let raw = self.client.raw_events(&session);
        let mine = format!("\"sessionId\":\"{session}\"");
        let is_update = |line: &&String| {
            envelope(line).method.as_deref() == Some("session/update") && line.contains(&mine)
        };
        for line in self.seen.iter().filter(is_update) {
            let update = &value(line)["params"];
            let seq = update["_meta"]["acpbox"]["seq"].as_u64().unwrap();
            let (kind, stored) = &raw[usize::try_from(seq).unwrap() - 1];
            if kind == "session/prompt" {
                // A replay shows the prompt itself.
                assert_eq!(update["update"]["sessionUpdate"], "user_message_chunk");
                continue;
            }
            assert_eq!(value(stored)["params"]["update"], update["update"]);
        }
        let count = |kind: &str| raw.iter().filter(|(its, _)| its == kind).count();
        let is_interrupted = |event: &&(String, String)| {
            event.0 == "_acpbox/turn/end" && event.1.contains("\"reason\":\"interrupted\"")
        };
        let ended = count("session/prompt:result")
            + count("session/prompt:error")
            + raw.iter().filter(is_interrupted).count();
        assert_eq!(count("session/prompt"), self.prompts);
        assert_eq!(ended, self.prompts, "{raw:#?}");
    }

    /// Nothing is left over.
    fn end(mut self, setup: &Setup) {
        let watch = Watch::of(setup.path());
        self.look();
        drop(self.client);
        watch.expect_none(SOON);
        let leases = std::fs::read_dir(setup.state().join("leases")).unwrap();
        assert_eq!(leases.count(), 0);
    }
}

/// A session of an agent that answers, in the same VM or in one of its own.
fn other_session(setup: &Setup, client: &mut Client, with_own_vm: bool) -> String {
    let cwd = match with_own_vm {
        true => setup.path().join("other"),
        false => setup.workspace(),
    };
    std::fs::create_dir_all(&cwd).unwrap();
    let meta = json!({"acpbox": {"agent": "inline", "env": {"TESTY_SCRIPT": ""}}});
    let params = json!({"cwd": cwd, "mcpServers": [], "_meta": meta});
    let created = client.call("session/new", params).unwrap();
    created["sessionId"].as_str().unwrap().to_owned()
}
