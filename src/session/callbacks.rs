//! What the agent asks of its client: acpbox checks files, serves terminals in
//! the VM itself, passes the rest on, and fails closed where nobody can answer.

use std::sync::Arc;

use super::asking::Asked;
use super::client::Client;
use super::live::Live;
use super::permission::Heard;
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
        let mut only = None;
        // A request-scoped elicitation names a request by the id that the agent knows,
        // and is for whoever sent that one.
        if method == methods::ELICITATION_CREATE
            && let Some(theirs) = params.and_then(|params| splice::member(params, "requestId"))
            && let Some(Waiting::Client { id, client, .. }) = state.pending.get(theirs)
        {
            edits.replace(theirs, id.to_string());
            only = Some(Arc::clone(client));
        }
        let line = edits.apply();
        let kind = method.to_owned().into();
        let seq = state.record(batch, Direction::Agent, kind, line.as_str());
        if let Some(failure) = refused_after_cancel(state, method) {
            match method {
                methods::REQUEST_PERMISSION | methods::ELICITATION_CREATE => {
                    self.fail_closed(state, batch, id, method, &failure.message);
                }
                _ => self.refuse_agent(state, batch, id, method, &failure),
            }
            return;
        }
        let Heard::Question(consent) = self.decide(state, batch, id, method, params) else {
            return;
        };
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
        let request = Asked {
            line: &line,
            id,
            method,
            seq,
        };
        self.ask(state, batch, request, params, only, consent);
    }

    /// `fs/*` only where the client offered it, and only within the session's roots.
    pub(super) fn check_file(
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

    pub(super) fn refuse_agent(
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
