//! Requests of the client's, each to its answer.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use agent_client_protocol_schema::ProtocolVersion;
use agent_client_protocol_schema::v1::{
    AgentCapabilities, AvailableCommand, AvailableCommandsUpdate, CancelNotification,
    CancelRequestNotification, ClientCapabilities, CloseSessionRequest, CloseSessionResponse,
    DeleteSessionRequest, DeleteSessionResponse, Error, Implementation, InitializeRequest,
    InitializeResponse, ListSessionsRequest, ListSessionsResponse, LoadSessionRequest,
    LoadSessionResponse, McpCapabilities, McpServer, NewSessionRequest, NewSessionResponse,
    PromptCapabilities, PromptRequest, PromptResponse, ResumeSessionRequest, ResumeSessionResponse,
    SessionCapabilities, SessionCloseCapabilities, SessionConfigOptionValue,
    SessionDeleteCapabilities, SessionInfo, SessionListCapabilities, SessionNotification,
    SessionResumeCapabilities, SessionUpdate, SetSessionConfigOptionRequest,
    SetSessionConfigOptionResponse, SetSessionModeRequest, SetSessionModeResponse, StopReason,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::session::{Cancel, Session, invalid};
use super::storage::Storage;
use super::turn::Turn;
use super::wire::{Incoming, Wire, lock, raw, read_line};

/// How long running turns may take to end once the input has ended.
const GRACE: Duration = Duration::from_millis(500);

pub(super) struct Server {
    wire: Arc<Wire>,
    storage: Arc<Storage>,
    client: Mutex<ClientCapabilities>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    running: Arc<Running>,
}

/// The turns that run, with the request that each will answer.
#[derive(Default)]
struct Running {
    turns: Mutex<Vec<(String, Arc<Cancel>)>>,
    ended: Condvar,
}

type Answer = Result<Box<RawValue>, Error>;

impl Server {
    pub(super) fn new(wire: Wire, storage: Storage) -> Self {
        Self {
            wire: Arc::new(wire),
            storage: Arc::new(storage),
            client: Mutex::default(),
            sessions: Mutex::default(),
            running: Arc::default(),
        }
    }

    /// Handles messages until the input ends, then ends what still runs.
    pub(super) fn serve(&self, mut input: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        let end = loop {
            match read_line(&mut input, &mut line) {
                Ok(true) => self.receive(&line),
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let mut turns = lock(&self.running.turns);
        for (_, cancel) in turns.iter() {
            cancel.cancel();
        }
        // The turns' commands are children of ours; let them be killed.
        while !turns.is_empty() {
            let Ok((left, wait)) = self.running.ended.wait_timeout(turns, GRACE) else {
                break;
            };
            turns = left;
            if wait.timed_out() {
                break;
            }
        }
        end
    }

    fn receive(&self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let message: Incoming = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => {
                let error = Error::parse_error().data(error.to_string());
                return self.wire.respond(RawValue::NULL, Err(error));
            }
        };
        let params = message.params.as_deref().unwrap_or(RawValue::NULL);
        match (message.method.as_deref(), &message.id) {
            (Some("session/prompt"), Some(id)) => {
                if let Err(error) = self.prompt(id, params) {
                    self.wire.respond(id, Err(error));
                }
            }
            (Some(method), Some(id)) => {
                let answer = self.request(method, params);
                let session_id = announced_session(method, &answer);
                self.wire.respond(id, answer);
                if let Some(session_id) = session_id {
                    self.announce_commands(session_id);
                }
            }
            (Some(method), None) => self.notification(method, params),
            (None, Some(id)) => {
                let answer = match message.error {
                    Some(error) => Err(error),
                    None => Ok(message.result.unwrap_or_default()),
                };
                self.wire.answered(id, answer);
            }
            (None, None) => {}
        }
    }

    fn request(&self, method: &str, params: &RawValue) -> Answer {
        match method {
            "initialize" => self.initialize(parse(params)?),
            "session/new" => self.new_session(parse(params)?),
            "session/load" => self.load(parse(params)?),
            "session/resume" => self.resume(parse(params)?),
            "session/list" => self.list(parse(params)?),
            "session/close" => self.close(parse(params)?),
            "session/delete" => self.delete(parse(params)?),
            "session/set_mode" => self.set_mode(parse(params)?),
            "session/set_config_option" => self.set_config_option(parse(params)?),
            _ => Err(Error::method_not_found().data(method)),
        }
    }

    fn notification(&self, method: &str, params: &RawValue) {
        match method {
            "session/cancel" => {
                if let Ok(params) = parse::<CancelNotification>(params)
                    && let Some(session) = lock(&self.sessions).get(&*params.session_id.0)
                {
                    session.cancel();
                }
            }
            "$/cancel_request" => {
                if let Ok(params) = parse::<CancelRequestNotification>(params) {
                    let id = raw(&params.request_id);
                    for (request, cancel) in lock(&self.running.turns).iter() {
                        if request == id.get() {
                            cancel.cancel();
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn initialize(&self, params: InitializeRequest) -> Answer {
        *lock(&self.client) = params.client_capabilities;
        let session = SessionCapabilities::new()
            .list(SessionListCapabilities::new())
            .delete(SessionDeleteCapabilities::new())
            .resume(SessionResumeCapabilities::new())
            .close(SessionCloseCapabilities::new());
        let capabilities = AgentCapabilities::new()
            .load_session(true)
            .prompt_capabilities(PromptCapabilities::new().embedded_context(true))
            .mcp_capabilities(McpCapabilities::new().http(true).sse(true))
            .session_capabilities(session);
        let info = Implementation::new("acpbox-example", env!("CARGO_PKG_VERSION"))
            .title("acpbox example agent".to_owned());
        Ok(raw(&InitializeResponse::new(ProtocolVersion::V1)
            .agent_capabilities(capabilities)
            .agent_info(info)))
    }

    fn new_session(&self, params: NewSessionRequest) -> Answer {
        check_cwd(&params.cwd)?;
        let session = Session::create(params.cwd, &params.mcp_servers);
        self.save(&session);
        let answer = NewSessionResponse::new(session.id.clone())
            .modes(session.modes())
            .config_options(session.config_options());
        self.open(session);
        Ok(raw(&answer))
    }

    fn load(&self, params: LoadSessionRequest) -> Answer {
        let session = self.restore(&params.session_id.0, &params.cwd, &params.mcp_servers)?;
        let history = lock(&session.record).history.clone();
        for update in history {
            let params = SessionNotification::new(session.id.clone(), update);
            self.wire.notify("session/update", &params);
        }
        Ok(raw(&LoadSessionResponse::new()
            .modes(session.modes())
            .config_options(session.config_options())))
    }

    fn resume(&self, params: ResumeSessionRequest) -> Answer {
        let session = self.restore(&params.session_id.0, &params.cwd, &params.mcp_servers)?;
        Ok(raw(&ResumeSessionResponse::new()
            .modes(session.modes())
            .config_options(session.config_options())))
    }

    fn list(&self, params: ListSessionsRequest) -> Answer {
        let sessions = self.storage.list().into_iter();
        let sessions = sessions
            .filter(|record| params.cwd.as_ref().is_none_or(|cwd| *cwd == record.cwd))
            .map(|record| {
                SessionInfo::new(record.session_id, record.cwd)
                    .title(record.title)
                    .updated_at(record.updated_at)
            });
        Ok(raw(&ListSessionsResponse::new(sessions.collect())))
    }

    fn close(&self, params: CloseSessionRequest) -> Answer {
        let session = self.session(&params.session_id.0)?;
        session.cancel();
        lock(&self.sessions).remove(&session.id);
        Ok(raw(&CloseSessionResponse::new()))
    }

    fn delete(&self, params: DeleteSessionRequest) -> Answer {
        let id = &*params.session_id.0;
        let open = lock(&self.sessions).remove(id);
        if let Some(session) = &open {
            session.cancel();
        }
        let stored = self
            .storage
            .delete(id)
            .map_err(Error::into_internal_error)?;
        if open.is_none() && !stored {
            return Err(unknown_session(id));
        }
        Ok(raw(&DeleteSessionResponse::new()))
    }

    fn set_mode(&self, params: SetSessionModeRequest) -> Answer {
        let session = self.session(&params.session_id.0)?;
        if session.set_mode(&params.mode_id.0)? {
            self.save(&session);
        }
        Ok(raw(&SetSessionModeResponse::new()))
    }

    fn set_config_option(&self, params: SetSessionConfigOptionRequest) -> Answer {
        let session = self.session(&params.session_id.0)?;
        let SessionConfigOptionValue::ValueId { value } = &params.value else {
            return Err(invalid("the value has to be an id".to_owned()));
        };
        session.set_config_option(&params.config_id.0, &value.0)?;
        self.save(&session);
        let options = session.config_options();
        Ok(raw(&SetSessionConfigOptionResponse::new(options)))
    }

    /// Starts a turn on a thread of its own, which will answer the request.
    fn prompt(&self, id: &RawValue, params: &RawValue) -> Result<(), Error> {
        let params: PromptRequest = parse(params)?;
        let session = self.session(&params.session_id.0)?;
        let cancel = Arc::new(Cancel::default());
        {
            let mut turn = lock(&session.turn);
            if turn.is_some() {
                return Err(Error::invalid_request()
                    .data("a turn of this session is running; cancel it or wait for it"));
            }
            *turn = Some(Arc::clone(&cancel));
        }
        lock(&self.running.turns).push((id.get().to_owned(), Arc::clone(&cancel)));
        let turn = Turn {
            wire: Arc::clone(&self.wire),
            session: Arc::clone(&session),
            cancel: Arc::clone(&cancel),
            client: lock(&self.client).clone(),
            results: 0,
        };
        let (wire, storage) = (Arc::clone(&self.wire), Arc::clone(&self.storage));
        let (running, id) = (Arc::clone(&self.running), id.to_owned());
        thread::spawn(move || {
            let answer = turn.run(&params.prompt, &storage);
            // Free before answering: the client may prompt again at once.
            *lock(&session.turn) = None;
            wire.respond(&id, answer.map(prompt_response));
            lock(&running.turns).retain(|(_, other)| !Arc::ptr_eq(other, &cancel));
            running.ended.notify_all();
        });
        Ok(())
    }

    fn session(&self, id: &str) -> Result<Arc<Session>, Error> {
        let session = lock(&self.sessions).get(id).cloned();
        session.ok_or_else(|| unknown_session(id))
    }

    fn restore(&self, id: &str, cwd: &Path, servers: &[McpServer]) -> Result<Arc<Session>, Error> {
        check_cwd(cwd)?;
        let record = self.storage.load(id).map_err(Error::into_internal_error)?;
        let record = record.ok_or_else(|| unknown_session(id))?;
        // A client that loads an open session again takes it over.
        if let Some(open) = lock(&self.sessions).remove(id) {
            open.cancel();
        }
        Ok(self.open(Session::restore(record, cwd.to_owned(), servers)))
    }

    fn open(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        lock(&self.sessions).insert(session.id.clone(), Arc::clone(&session));
        session
    }

    fn save(&self, session: &Session) {
        if let Err(error) = self.storage.save(&lock(&session.record)) {
            eprintln!("acpbox example agent: the session was not saved: {error}");
        }
    }

    fn announce_commands(&self, session_id: String) {
        let tour = AvailableCommand::new("tour", "Show what an agent can do");
        let update = AvailableCommandsUpdate::new(vec![tour]);
        let update = SessionUpdate::AvailableCommandsUpdate(update);
        let params = SessionNotification::new(session_id, update);
        self.wire.notify("session/update", &params);
    }
}

/// The id of the session that a request has just created.
fn announced_session(method: &str, answer: &Answer) -> Option<String> {
    if method != "session/new" {
        return None;
    }
    let answer: NewSessionResponse = serde_json::from_str(answer.as_ref().ok()?.get()).ok()?;
    Some(answer.session_id.0.to_string())
}

fn prompt_response(reason: StopReason) -> Box<RawValue> {
    raw(&PromptResponse::new(reason))
}

fn parse<T: DeserializeOwned>(params: &RawValue) -> Result<T, Error> {
    // A request without params may be one whose params are all optional.
    let text = if params.get() == "null" {
        "{}"
    } else {
        params.get()
    };
    serde_json::from_str(text).map_err(|error| invalid(error.to_string()))
}

fn check_cwd(cwd: &Path) -> Result<(), Error> {
    if cwd.is_absolute() {
        Ok(())
    } else {
        Err(invalid(format!(
            "cwd has to be an absolute path, not `{}`",
            cwd.display()
        )))
    }
}

fn unknown_session(id: &str) -> Error {
    Error::session_not_found(id.to_owned())
}
