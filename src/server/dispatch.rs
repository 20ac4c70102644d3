//! Where each message of a client goes: one match.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::connection::Connection;
use super::initialize::check_token;
use crate::acp::failure::{INVALID_REQUEST, METHOD_NOT_FOUND, REQUEST_CANCELLED};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::message::{self, Body, Malformed, Message, Outcome};
use crate::rpc::splice;
use crate::session::Live;
use crate::session::create::Refusal;
use crate::session::sleep::Visit;

/// Longer ids are none of acpbox's, and would make long lines in logs.
const SESSION_ID_BYTES: usize = 64;

/// As much of a request's id as an error shows.
const SHOWN_ID_BYTES: usize = 64;

/// What is not cancelled: an agent that is ended is looked after until it is gone.
const WHOLE: [&str; 4] = [
    methods::SESSION_CLOSE,
    methods::SESSION_DELETE,
    "_acpbox/vm/sleep",
    "_acpbox/vm/delete",
];

/// What a handler says: a raw result, or that it has answered already.
pub enum Answer {
    Result(String),
    /// A whole response.
    Line(String),
    Sent,
    /// The agent of this session answers.
    Forward(Arc<Live>),
    /// The same, for a session that was brought back.
    Bring(Visit),
}

/// A request of the client's, owned, so that it can be worked on aside.
pub struct Request {
    pub text: Box<str>,
    pub method: Box<str>,
    id: Range<usize>,
    params: Option<Range<usize>>,
}

impl Request {
    /// `id` and `params` must be pieces of `text`.
    fn new(text: &str, id: &str, method: &str, params: Option<&str>) -> Request {
        Request {
            text: text.into(),
            method: method.into(),
            id: splice::range(text, id),
            params: params.map(|params| splice::range(text, params)),
        }
    }

    /// Raw; a piece of the text, where it can be replaced.
    pub fn id(&self) -> &str {
        &self.text[self.id.clone()]
    }

    /// Raw; a piece of the text, where it can be replaced.
    pub fn params(&self) -> Option<&str> {
        self.params.clone().map(|params| &self.text[params])
    }
}

impl Connection {
    pub(super) async fn dispatch(self: &Arc<Self>, parsed: Message<'_>) {
        match parsed.body {
            Body::Request { id, method, params } => {
                self.on_request(parsed.text, id, &method, params).await;
            }
            Body::Notification { method, params } => {
                self.on_notification(parsed.text, &method, params).await;
            }
            Body::Response { id, outcome } => {
                self.on_response(parsed.text, id, matches!(outcome, Outcome::Error(_)))
                    .await;
            }
        }
    }

    async fn on_request(
        self: &Arc<Self>,
        text: &str,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) {
        if method == methods::INITIALIZE {
            let answer = self.initialize(params).await;
            // One that may come in tries again; all others are let go.
            let is_stranger = match (&answer, &self.gate.token) {
                (Ok(_), _) | (Err(_), None) => false,
                (Err(_), Some(token)) => {
                    let meta = params.and_then(|params| splice::member(params, "_meta"));
                    check_token(token, meta).is_err()
                }
            };
            self.answer(id, answer).await;
            if is_stranger && !self.client.offer().initialized {
                self.refused.cancel();
            }
            return;
        }
        if !self.client.offer().initialized {
            let what = format!(
                "Invalid Request: `{method}` came before `initialize`; send `initialize` first"
            );
            self.answer(
                id,
                Err(Failure::new(Phase::Request, INVALID_REQUEST, what).into()),
            )
            .await;
            return;
        }
        if self.owes_answer(id) {
            // Under its own id the error would be taken for the answer to the other one.
            let shown = id.get(..SHOWN_ID_BYTES).unwrap_or(id);
            let what = format!(
                "Invalid Request: `{method}` has the id {shown} of a request that is not answered yet, and was not carried out; give each request an id of its own"
            );
            self.complain("null", INVALID_REQUEST, what).await;
            return;
        }
        let request = || Request::new(text, id, method, params);
        match method {
            methods::SESSION_NEW => self.aside(request(), Connection::session_new).await,
            methods::SESSION_LOAD | methods::SESSION_RESUME => {
                self.aside(request(), Connection::session_reconnect).await;
            }
            methods::SESSION_FORK => self.aside(request(), Connection::session_fork).await,
            methods::SESSION_LIST => self.aside(request(), Connection::session_list).await,
            methods::SESSION_CLOSE => self.aside(request(), Connection::session_close).await,
            methods::SESSION_DELETE => self.aside(request(), Connection::session_delete).await,
            methods::AUTHENTICATE | methods::LOGOUT => {
                self.aside(request(), Connection::to_agent_of_connection)
                    .await;
            }
            _ if method.starts_with(methods::OWN_PREFIX) => {
                self.aside(request(), Connection::own_method).await;
            }
            _ => match session_of(params) {
                Some(session) => match self.visit(&session) {
                    Some(live) => {
                        live.attach(&self.client);
                        live.ask_again_soon(&self.client);
                        live.forward_request(&self.client, text, id, method, params)
                            .await;
                    }
                    None => self.aside(request(), Connection::to_stored_session).await,
                },
                None if methods::SESSION_SCOPED.contains(&method) => {
                    let failure = Failure::invalid_params("`sessionId` is missing, a string");
                    self.answer(id, Err(failure.into())).await;
                }
                None if method.starts_with("providers/") || method.starts_with("auth/") => {
                    self.aside(request(), Connection::to_agent_of_connection)
                        .await;
                }
                None => self.aside(request(), Connection::to_any_agent).await,
            },
        }
    }

    async fn on_notification(self: &Arc<Self>, text: &str, method: &str, params: Option<&str>) {
        // It may be anybody's: who has to say a token has not said it yet.
        if !self.client.offer().initialized {
            tracing::debug!(method, "a notification before `initialize`");
            return;
        }
        if method == methods::CANCEL_REQUEST {
            let Some(id) = params.and_then(|params| splice::member(params, "requestId")) else {
                return;
            };
            if !self.cancel(id) {
                for live in self.server.host.registry.all() {
                    if live.forward_cancel_request(&self.client, id).await {
                        return;
                    }
                }
            }
            return;
        }
        let Some(session) = session_of(params) else {
            match self.server.host.registry.all().as_slice() {
                [live] => {
                    live.forward_notification(&self.client, text, method, params)
                        .await
                }
                _ => tracing::debug!(method, "a notification for no one agent"),
            }
            return;
        };
        if let Some(live) = self.server.host.registry.live(&session) {
            live.forward_notification(&self.client, text, method, params)
                .await;
            return;
        }
        // The session is being started or brought back, or will be by what was sent
        // before this: that waits at the same place, and comes first.
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return;
        };
        let slot = self.server.host.registry.slot(&session);
        let (text, method) = (text.to_owned(), method.to_owned());
        let connection = Arc::clone(self);
        self.tasks.spawn(async move {
            let live = slot.lock().await.live();
            drop(slot);
            match live {
                Some(live) => {
                    let params = splice::member(&text, "params");
                    live.forward_notification(&connection.client, &text, &method, params)
                        .await;
                }
                // Whoever guesses ids leaves nothing behind.
                None => connection.server.host.registry.sweep(),
            }
            drop(room);
        });
    }

    async fn on_response(&self, text: &str, id: &str, is_error: bool) {
        let waiting = self.client.pending().take(id);
        match waiting.and_then(|request| Some((request.session.upgrade()?, request))) {
            Some((live, request)) => {
                live.answer_question(&self.client, text, id, &request, is_error)
                    .await;
            }
            None => tracing::debug!(id, "a response of the client's that nobody waits for"),
        }
    }

    /// A response that is none still ends the agent's wait for it.
    pub(super) async fn on_bad_response(&self, malformed: &Malformed) {
        let line = message::error(&malformed.id, &malformed.error);
        tracing::warn!(
            id = malformed.id,
            error = malformed.error.message(),
            "a client's response"
        );
        self.on_response(&line, splice::member(&line, "id").unwrap_or("null"), true)
            .await;
    }

    /// Works on a request without keeping the client's further messages waiting.
    async fn aside<F>(
        self: &Arc<Self>,
        request: Request,
        handler: impl FnOnce(Arc<Connection>, Arc<Request>) -> F,
    ) where
        F: Future<Output = Result<Answer, Refusal>> + Send + 'static,
    {
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return;
        };
        let request = Arc::new(request);
        let token = self.begin(request.id());
        let connection = Arc::clone(self);
        let work = handler(Arc::clone(self), Arc::clone(&request));
        let task = async move {
            let is_whole = WHOLE.contains(&&*request.method);
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = token.cancelled(), if !is_whole => {
                    let what = format!("Request cancelled: `{}`", request.method);
                    Err(Failure::new(Phase::Request, REQUEST_CANCELLED, what).into())
                }
            };
            match &outcome {
                Ok(Answer::Forward(live)) => connection.forward(live, &request, &token).await,
                Ok(Answer::Bring(live)) => connection.forward(live, &request, &token).await,
                _ => {}
            }
            connection.end(request.id());
            if matches!(outcome, Err(Refusal::Failed(_))) {
                // Whoever guesses ids leaves nothing behind.
                connection.server.host.registry.sweep();
            }
            connection.answer(request.id(), outcome).await;
            drop(room);
        };
        self.tasks.spawn(task.in_current_span());
    }

    async fn answer(&self, id: &str, outcome: Result<Answer, Refusal>) {
        let line = match outcome {
            Ok(Answer::Sent | Answer::Forward(_) | Answer::Bring(_)) => return,
            Ok(Answer::Result(result)) => message::result(id, &result),
            Ok(Answer::Line(line)) => line,
            Err(Refusal::Agent(error)) => {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
            }
            Err(Refusal::Failed(failure)) => message::error(id, &failure.to_error_object()),
        };
        let _ = self.client.outbox.send(&line).await;
    }

    /// Relays a request that was worked on aside. From here on it is the agent's
    /// to answer; whoever cancels it meanwhile cancels it there.
    async fn forward(&self, live: &Arc<Live>, request: &Request, token: &CancellationToken) {
        live.forward_request(
            &self.client,
            &request.text,
            request.id(),
            &request.method,
            request.params(),
        )
        .await;
        self.end(request.id());
        if token.is_cancelled() {
            live.forward_cancel_request(&self.client, request.id())
                .await;
        }
    }

    /// A request for a session that is not live: it is brought back first.
    async fn to_stored_session(self: Arc<Self>, request: Arc<Request>) -> Result<Answer, Refusal> {
        let session = session_of(request.params()).unwrap_or_default();
        let host = &self.server.host;
        if &*request.method == methods::SESSION_PROMPT
            && let Some(line) =
                (host.stored_answer(&session, request.id(), request.params())).await?
        {
            return Ok(Answer::Line(line));
        }
        loop {
            let live = host.ensure(&self.client, &session).await?;
            // It may just be going to sleep again.
            if let Some(live) = live.visit() {
                return Ok(Answer::Bring(live));
            }
        }
    }

    /// A session whose agent takes messages now.
    fn visit(&self, session: &str) -> Option<Visit> {
        self.server.host.registry.live(session)?.visit()
    }

    /// A method that acpbox does not know and that names no session: for the
    /// agent, if it is clear which.
    async fn to_any_agent(self: Arc<Self>, request: Arc<Request>) -> Result<Answer, Refusal> {
        let all = self.server.host.registry.all();
        let [live] = all.as_slice() else {
            let what = format!("Method not found: `{}`", request.method);
            return Err(Failure::new(Phase::Request, METHOD_NOT_FOUND, what).into());
        };
        Ok(Answer::Forward(Arc::clone(live)))
    }
}

/// What logs say of whatever a message leads to: the session that it is about.
pub(super) fn session_span(body: &Body<'_>) -> tracing::Span {
    let (method, params) = match body {
        Body::Request { method, params, .. } | Body::Notification { method, params } => {
            (method.as_ref(), *params)
        }
        Body::Response { .. } => return tracing::Span::none(),
    };
    match session_of(params) {
        Some(id) if id.len() <= SESSION_ID_BYTES => tracing::error_span!("session", id),
        // Whoever makes the session fills it in.
        None if method == methods::SESSION_NEW => {
            tracing::error_span!("session", id = tracing::field::Empty)
        }
        _ => tracing::Span::none(),
    }
}

/// The session that a message names.
fn session_of(params: Option<&str>) -> Option<String> {
    let raw = splice::member(params?, "sessionId")?;
    message::string(raw).map(std::borrow::Cow::into_owned)
}
