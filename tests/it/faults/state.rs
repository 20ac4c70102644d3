//! What a session can be in the middle of, and how it gets there.

use super::*;
use crate::support::steps::prompt;

/// The file in the workspace at whose sight the agent exits with 0.
pub(super) const END: &str = "end";

/// A client's consent.
pub(super) const ALLOWED: &str = r#"{"outcome":{"outcome":"selected","optionId":"once"}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Has begun; no turn yet.
    Idle,
    /// The agent was sent `initialize`.
    Initializing,
    /// The agent was sent `session/new`.
    Beginning,
    Streaming,
    /// A turn runs, and nothing comes.
    Silent,
    /// The client was asked for permission.
    Asking,
    /// The agent waits for the end of a command in a terminal.
    Running,
    /// The agent was sent `session/cancel`.
    Cancelling,
    /// The agent was sent `session/load`.
    Restoring,
}

pub(super) struct Victim {
    /// `None` while no client knows it.
    pub(super) session: Option<String>,
    /// The request that waits for its answer.
    pub(super) pending: Option<u64>,
}

impl State {
    pub(super) fn is_turn(self) -> bool {
        !matches!(
            self,
            State::Initializing | State::Beginning | State::Restoring
        )
    }

    /// What an error then names.
    pub(super) fn phase(self) -> &'static str {
        match self {
            State::Initializing => "initialize",
            State::Beginning | State::Restoring => "session",
            _ => "turn",
        }
    }

    /// Brings a session of the agent `testy` here; `earlier` is one to restore.
    pub(super) fn enter(
        self,
        setup: &Setup,
        client: &mut Client,
        earlier: Option<String>,
    ) -> Victim {
        let end = setup.workspace().join(END);
        let mut steps = vec![setup.record(), json!({"exit_when": end})];
        steps.extend(self.steps(setup));
        setup.script(&steps);
        let mut victim = Victim {
            session: None,
            pending: None,
        };
        let mut params = client.new_params();
        let method = match self {
            State::Initializing | State::Beginning => "session/new",
            State::Restoring => {
                params["sessionId"] = earlier.clone().into();
                victim.session = earlier;
                "session/load"
            }
            State::Idle => {
                victim.session = Some(client.new_session());
                return victim;
            }
            _ => {
                let session = client.new_session();
                params = prompt(&session, "go");
                victim.session = Some(session);
                "session/prompt"
            }
        };
        victim.pending = Some(client.request(method, params));
        match self {
            State::Initializing => received(setup, "initialize"),
            State::Beginning | State::Restoring | State::Silent => received(setup, method),
            State::Running => assert!(wait_until(|| !commands(setup).is_empty())),
            State::Cancelling => {
                received(setup, method);
                client.notify("session/cancel", json!({"sessionId": victim.session}));
                received(setup, "session/cancel");
            }
            State::Streaming => drop(client.expect("session/update")),
            // The question is waited for outside.
            State::Asking | State::Idle => {}
        }
        victim
    }

    fn steps(self, setup: &Setup) -> Vec<Value> {
        let hang = json!({"hang": true});
        let request = |id: u64, method: &str, params: Value| {
            let mut params = params;
            params["sessionId"] = "$SESSION".into();
            json!({"send": {"jsonrpc": "2.0", "id": id, "method": method, "params": params}})
        };
        match self {
            State::Idle => vec![],
            State::Initializing => vec![json!({"expect": "initialize"}), hang],
            State::Beginning => vec![json!({"expect": "session/new"}), hang],
            State::Streaming => {
                let mut piece = chunk("number $N ");
                piece["repeat"] = 1_000_000.into();
                piece["sleep_ms"] = 2.into();
                vec![expect_prompt(), piece]
            }
            State::Silent => vec![expect_prompt(), chunk("partial"), hang],
            State::Asking => {
                let options = json!([{"optionId": "once", "name": "Once", "kind": "allow_once"}]);
                let params = json!({"toolCall": {"toolCallId": "1"}, "options": options});
                let ask = request(0, "session/request_permission", params);
                vec![expect_prompt(), ask, json!({"expect_answer": 0}), hang]
            }
            State::Running => {
                let create =
                    json!({"command": "sleep", "args": [mark(setup)], "outputByteLimit": 100});
                let wait = json!({"terminalId": "term_1"});
                vec![
                    expect_prompt(),
                    request(0, "terminal/create", create),
                    json!({"expect_answer": 0}),
                    request(1, "terminal/wait_for_exit", wait),
                    json!({"expect_answer": 1}),
                    hang,
                ]
            }
            State::Cancelling => vec![expect_prompt(), json!({"expect": "session/cancel"}), hang],
            State::Restoring => {
                let can = json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}});
                vec![
                    json!({"on": "initialize", "result": can}),
                    json!({"expect": "session/load"}),
                    hang,
                ]
            }
        }
    }
}

/// A session of an acpbox that is gone, with one turn.
pub(super) fn earlier(setup: &Setup) -> String {
    setup.script(&[expect_prompt(), chunk("once"), end_turn()]);
    let mut client = setup.connect();
    let session = client.new_session();
    client.prompt(&session, "go").unwrap();
    client.take_rest();
    session
}

/// The commands that run in terminals of this set-up.
pub(super) fn commands(setup: &Setup) -> Vec<i32> {
    let found = fault::processes(&format!("sleep\0{}\0", mark(setup)));
    found.into_iter().map(|(process, _)| process).collect()
}

/// A time to sleep that no other set-up's commands have.
fn mark(setup: &Setup) -> String {
    let digits = setup.path().display().to_string();
    let number: u64 = digits.bytes().fold(7, |number, byte| {
        (number * 31 + u64::from(byte)) % 1_000_000_007
    });
    format!("1000.{number}")
}

/// Waits until the agent has received this.
fn received(setup: &Setup, method: &str) {
    let mark = format!("\"method\":\"{method}\"");
    let is_there = || setup.received().iter().any(|line| line.contains(&mark));
    assert!(wait_until(is_there), "the agent got no {method}");
}
