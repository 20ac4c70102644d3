//! A session in memory: its record, its settings as ACP shows them, its turn.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use agent_client_protocol_schema::v1::{
    Error, McpServer, SessionConfigOption, SessionConfigOptionCategory, SessionConfigSelectOption,
    SessionMode, SessionModeState,
};

use super::storage::Record;
use super::turn::Stop;
use super::wire::lock;

/// Asks before each write.
pub(super) const MODE_ASK: &str = "ask";
/// Writes without asking.
pub(super) const MODE_AUTO: &str = "auto";

const MODELS: [(&str, &str); 2] = [
    ("example-small", "Example Small"),
    ("example-large", "Example Large"),
];
const THOUGHT_LEVELS: [(&str, &str); 3] = [("off", "Off"), ("low", "Low"), ("high", "High")];

pub(super) struct Session {
    pub(super) id: String,
    pub(super) cwd: PathBuf,
    /// Names of the MCP servers that this connection gave.
    pub(super) mcp_servers: Vec<String>,
    pub(super) record: Mutex<Record>,
    /// Set when the person chose `allow_always`.
    pub(super) allow_always: AtomicBool,
    /// The running turn.
    pub(super) turn: Mutex<Option<Arc<Cancel>>>,
}

impl Session {
    /// A session of its own, with the settings that it starts with.
    pub(super) fn create(cwd: PathBuf, mcp_servers: &[McpServer]) -> Self {
        let record = Record {
            session_id: uuid::Uuid::now_v7().to_string(),
            cwd: cwd.clone(),
            title: None,
            updated_at: now(),
            mode: MODE_ASK.to_owned(),
            model: MODELS[0].0.to_owned(),
            thought_level: THOUGHT_LEVELS[0].0.to_owned(),
            calls: 0,
            history: Vec::new(),
        };
        Self::restore(record, cwd, mcp_servers)
    }

    /// A session as it was left, now in `cwd`.
    pub(super) fn restore(mut record: Record, cwd: PathBuf, mcp_servers: &[McpServer]) -> Self {
        record.cwd.clone_from(&cwd);
        Self {
            id: record.session_id.clone(),
            cwd,
            mcp_servers: mcp_servers.iter().map(server_name).collect(),
            record: Mutex::new(record),
            allow_always: AtomicBool::new(false),
            turn: Mutex::default(),
        }
    }

    /// Whether a write may go ahead unasked.
    pub(super) fn writes_unasked(&self) -> bool {
        self.allow_always.load(Ordering::Relaxed) || lock(&self.record).mode == MODE_AUTO
    }

    /// Asks the running turn, if any, to end.
    pub(super) fn cancel(&self) {
        if let Some(turn) = lock(&self.turn).as_ref() {
            turn.cancel();
        }
    }

    pub(super) fn modes(&self) -> SessionModeState {
        SessionModeState::new(
            lock(&self.record).mode.clone(),
            vec![
                SessionMode::new(MODE_ASK, "Ask").description("Asks before each write".to_owned()),
                SessionMode::new(MODE_AUTO, "Auto").description("Writes without asking".to_owned()),
            ],
        )
    }

    pub(super) fn config_options(&self) -> Vec<SessionConfigOption> {
        let record = lock(&self.record);
        vec![
            SessionConfigOption::select("model", "Model", record.model.clone(), choices(&MODELS))
                .description("There is no model; the choice is only kept".to_owned())
                .category(SessionConfigOptionCategory::Model),
            SessionConfigOption::select(
                "thought_level",
                "Thought level",
                record.thought_level.clone(),
                choices(&THOUGHT_LEVELS),
            )
            .category(SessionConfigOptionCategory::ThoughtLevel),
        ]
    }

    /// Whether the mode is another one now.
    pub(super) fn set_mode(&self, mode: &str) -> Result<bool, Error> {
        if ![MODE_ASK, MODE_AUTO].contains(&mode) {
            return Err(invalid(format!(
                "there is no mode `{mode}`; the modes are `ask` and `auto`"
            )));
        }
        let mut record = lock(&self.record);
        let is_new = record.mode != mode;
        mode.clone_into(&mut record.mode);
        Ok(is_new)
    }

    pub(super) fn set_config_option(&self, option: &str, value: &str) -> Result<(), Error> {
        let mut record = lock(&self.record);
        let (known, slot) = match option {
            "model" => (&MODELS[..], &mut record.model),
            "thought_level" => (&THOUGHT_LEVELS[..], &mut record.thought_level),
            _ => {
                return Err(invalid(format!(
                    "there is no option `{option}`; the options are `model` and `thought_level`"
                )));
            }
        };
        if !known.iter().any(|(id, _)| *id == value) {
            let ids: Vec<&str> = known.iter().map(|(id, _)| *id).collect();
            return Err(invalid(format!(
                "`{option}` cannot be `{value}`; it is one of {}",
                ids.join(", ")
            )));
        }
        value.clone_into(slot);
        Ok(())
    }
}

/// The wish that a turn end, visible to every thread that works on it.
#[derive(Default)]
pub(super) struct Cancel {
    wished: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(super) fn cancel(&self) {
        *lock(&self.wished) = true;
        self.changed.notify_all();
    }

    /// Fails once the turn has to end.
    pub(super) fn check(&self) -> Result<(), Stop> {
        self.sleep(Duration::ZERO)
    }

    /// Waits, or fails as soon as the turn has to end.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Stop> {
        let (wished, _) = self
            .changed
            .wait_timeout_while(lock(&self.wished), time, |wished| !*wished)
            .unwrap_or_else(PoisonError::into_inner);
        if *wished {
            Err(Stop::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The time as the protocol writes it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Invalid params, with what was wrong about them.
pub(super) fn invalid(why: String) -> Error {
    Error::invalid_params().data(why)
}

fn choices(known: &[(&'static str, &'static str)]) -> Vec<SessionConfigSelectOption> {
    known
        .iter()
        .map(|(id, name)| SessionConfigSelectOption::new(*id, *name))
        .collect()
}

fn server_name(server: &McpServer) -> String {
    match server {
        McpServer::Stdio(server) => server.name.clone(),
        McpServer::Http(server) => server.name.clone(),
        McpServer::Sse(server) => server.name.clone(),
        _ => "unknown".to_owned(),
    }
}
