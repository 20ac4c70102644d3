//! What the agent asks of its client: acpbox checks files, serves terminals in
//! the VM itself, passes the rest on, and fails closed where nobody can answer.

use std::sync::Arc;

use super::client::{AgentRequest, Client};
use super::live::Live;
use super::roots::Access;
use super::state::{After, Batch, State, Waiting};
use crate::acp::Failure;
use crate::acp::Phase;
use crate::acp::extension::PermissionDenied;
use crate::acp::failure::METHOD_NOT_FOUND;
use crate::acp::methods::{self, response_kind};
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};
use crate::store::Direction;

impl Live {
    pub(super) fn on_request(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        text: &str,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) {
        let public = state.public_id();
        let mut edits = Edits::of(text);
        for member in params.and_then(splice::members).unwrap_or_default() {
            if member.key == "sessionId" && state.is_agents_own(member.value) {
                edits.replace(member.value, public.clone());
            }
        }
        // A request-scoped elicitation names a request by the id that the agent knows.
        if method == methods::ELICITATION_CREATE
            && let Some(theirs) = params.and_then(|params| splice::member(params, "requestId"))
            && let Some(Waiting::Client { id, .. }) = state.pending.get(theirs)
        {
            edits.replace(theirs, id.to_string());
        }
        let line = edits.apply();
        state.record(
            batch,
            Direction::Agent,
            method.to_owned().into(),
            line.as_str(),
        );
        if let Some(failure) = refused_after_cancel(state, method) {
            match method {
                methods::REQUEST_PERMISSION | methods::ELICITATION_CREATE => {
                    self.fail_closed(state, batch, id, method, &failure.message);
                }
                _ => self.refuse_agent(state, batch, id, method, &failure),
            }
            return;
        }
        if self.decide(state, batch, id, method, params) {
            return;
        }
        if method.starts_with("terminal/") && is_terminal(method) {
            let params = params.unwrap_or("{}");
            let Some(room) = self.terminals.room(method, params.len()) else {
                let what = "too many requests for terminals wait in this session";
                let failure = Failure::internal(Phase::Request, what)
                    .hint("wait for some of them to be answered");
                self.refuse_agent(state, batch, id, method, &failure);
                return;
            };
            batch.after.push(After::Terminal {
                room,
                id: id.into(),
                method: method.into(),
                params: params.into(),
            });
            return;
        }
        let asked = match state
            .clients
            .iter()
            .find(|client| !client.gone.is_cancelled())
            .cloned()
        {
            None => Err(None),
            Some(client) => match self.check_file(&client, method, params) {
                Ok(()) => Ok(client),
                Err(failure) => Err(Some(failure)),
            },
        };
        match asked {
            Ok(client) => self.ask(state, batch, &client, &line, id, method),
            Err(Some(failure)) => self.refuse_agent(state, batch, id, method, &failure),
            Err(None) => self.fail_closed(
                state,
                batch,
                id,
                method,
                "no client is attached to the session",
            ),
        }
    }

    /// Sends an agent's request on to a client, under an id of the client's connection.
    fn ask(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        client: &Arc<Client>,
        line: &str,
        id: &str,
        method: &str,
    ) {
        let request = AgentRequest {
            session: Arc::downgrade(self),
            id: id.into(),
            method: method.into(),
        };
        let inserted = client.pending().insert(request);
        let Ok(number) = inserted else {
            let reason = "too many requests wait for the client's answers";
            self.fail_closed(state, batch, id, method, reason);
            return;
        };
        let number = number.to_string();
        let outward = match message::Message::parse(line.as_bytes(), message::ANY_DEPTH)
            .map(|parsed| parsed.body)
        {
            Ok(message::Body::Request { id, .. }) => {
                let mut edits = Edits::of(line);
                edits.replace(id, number);
                edits.apply()
            }
            _ => return,
        };
        batch.send(client, &[&outward]);
    }

    /// `fs/*` only where the client offered it, and only within the session's roots.
    fn check_file(
        &self,
        client: &Client,
        method: &str,
        params: Option<&str>,
    ) -> Result<(), Failure> {
        let access = match method {
            methods::FS_READ => Access::Read,
            methods::FS_WRITE => Access::Write,
            _ => return Ok(()),
        };
        let offer = client.offer();
        let is_offered = match access {
            Access::Read => offer.read_text_file,
            Access::Write => offer.write_text_file,
        };
        if !is_offered {
            let what = format!(
                "Method not found: the client does not offer `{method}`; use the files in the VM"
            );
            return Err(Failure::new(Phase::Request, METHOD_NOT_FOUND, what));
        }
        let params = params.unwrap_or("{}");
        let Some(path) = splice::member(params, "path").and_then(message::string) else {
            return Err(Failure::invalid_params(format!(
                "`{method}` needs `path`, a string"
            )));
        };
        for field in ["line", "limit"] {
            let Some(raw) = splice::member(params, field) else {
                continue;
            };
            if raw != "null" && raw.parse::<u32>().is_err() {
                return Err(Failure::invalid_params(format!(
                    "`{field}` must be a whole number from 0 to 4294967295, not {raw}"
                )));
            }
        }
        self.roots()
            .check(&path, access)
            .map_err(Failure::invalid_params)
    }

    /// Answers for a client that is not there: never with consent.
    pub(super) fn fail_closed(
        &self,
        state: &mut State,
        batch: &mut Batch,
        id: &str,
        method: &str,
        reason: &str,
    ) {
        state.questions.remove(id);
        let params = PermissionDenied {
            session_id: self.id.to_string(),
            method: method.to_owned(),
            reason: reason.to_owned(),
        };
        state.record_own(batch, methods::PERMISSION_DENIED, &params);
        let result = match method {
            methods::REQUEST_PERMISSION => r#"{"outcome":{"outcome":"cancelled"}}"#,
            methods::ELICITATION_CREATE => r#"{"action":"cancel"}"#,
            _ => {
                let failure = Failure::internal(
                    Phase::Request,
                    format!("`{method}` cannot be answered: {reason}"),
                );
                self.refuse_agent(state, batch, id, method, &failure);
                return;
            }
        };
        let line = message::result(id, result);
        state.record(
            batch,
            Direction::Acpbox,
            response_kind(method, false),
            line.as_str(),
        );
        batch.answers.push(line);
    }

    fn refuse_agent(
        &self,
        state: &mut State,
        batch: &mut Batch,
        id: &str,
        method: &str,
        failure: &Failure,
    ) {
        let line = message::error(id, &failure.to_error_object());
        state.record(
            batch,
            Direction::Acpbox,
            response_kind(method, true),
            line.as_str(),
        );
        batch.answers.push(line);
    }

    /// The agent no longer waits for one of its requests: neither need the client.
    pub(super) fn withdraw(&self, state: &mut State, batch: &mut Batch, params: Option<&str>) {
        let Some(theirs) = params.and_then(|params| splice::member(params, "requestId")) else {
            return;
        };
        for client in &state.clients.clone() {
            let found = client.pending().find(|request| {
                &*request.id == theirs && request.session.as_ptr() == std::ptr::from_ref(self)
            });
            let Some(number) = found else { continue };
            let line = message::notification(
                methods::CANCEL_REQUEST,
                &format!("{{\"requestId\":{number}}}"),
            );
            state.record(
                batch,
                Direction::Agent,
                methods::CANCEL_REQUEST.into(),
                line.as_str(),
            );
            batch.send(client, &[&line]);
        }
    }

    /// The agent is gone: nothing that it asked needs an answer.
    pub(super) fn withdraw_all(&self, batch: &mut Batch, client: &Arc<Client>) {
        loop {
            let number = {
                let mut pending = client.pending();
                let found =
                    pending.find(|request| request.session.as_ptr() == std::ptr::from_ref(self));
                let Some(number) = found else { return };
                pending.remove(number);
                number
            };
            let line = message::notification(
                methods::CANCEL_REQUEST,
                &format!("{{\"requestId\":{number}}}"),
            );
            batch.send(client, &[&line]);
        }
    }

    /// A turn is cancelled: what was asked for it is not granted any more,
    /// whatever its client answers later.
    pub(super) fn deny_all(&self, state: &mut State, batch: &mut Batch) {
        for client in &state.clients.clone() {
            loop {
                let request = {
                    let mut pending = client.pending();
                    let found = pending.find(|request| {
                        request.session.as_ptr() == std::ptr::from_ref(self)
                            && &*request.method == methods::REQUEST_PERMISSION
                    });
                    found.and_then(|number| pending.remove(number))
                };
                let Some(request) = request else { break };
                let reason = "the turn was cancelled";
                self.fail_closed(state, batch, &request.id, &request.method, reason);
            }
        }
    }

    /// A client answers no more: what it was asked fails closed.
    pub async fn stop_asking(self: &Arc<Self>, client: &Arc<Client>, reason: &str) {
        loop {
            let request = {
                let mut pending = client.pending();
                let found =
                    pending.find(|request| request.session.as_ptr() == std::ptr::from_ref(self));
                found.and_then(|number| pending.remove(number))
            };
            let Some(request) = request else { return };
            let denials = self.note(|state, batch| {
                self.fail_closed(state, batch, &request.id, &request.method, reason);
                std::mem::take(&mut batch.answers)
            });
            for line in denials.await {
                self.answer_later(line);
            }
        }
    }
}

/// A cancelled turn is granted nothing more, and once acpbox has ended it
/// neither files nor new commands.
fn refused_after_cancel(state: &State, method: &str) -> Option<Failure> {
    let is_cancelled = state.turn.as_ref().is_some_and(|turn| turn.is_cancelled);
    let is_refused = match method {
        methods::REQUEST_PERMISSION => is_cancelled || state.fence.is_some(),
        methods::ELICITATION_CREATE
        | methods::FS_READ
        | methods::FS_WRITE
        | methods::TERMINAL_CREATE => state.fence.is_some(),
        _ => false,
    };
    is_refused.then(|| Failure::internal(Phase::Turn, "the turn was cancelled"))
}

fn is_terminal(method: &str) -> bool {
    [
        methods::TERMINAL_CREATE,
        methods::TERMINAL_OUTPUT,
        methods::TERMINAL_WAIT,
        methods::TERMINAL_KILL,
        methods::TERMINAL_RELEASE,
    ]
    .contains(&method)
}
