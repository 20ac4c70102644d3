//! What is remembered of what passed between a client and its server.

use std::collections::BTreeSet;

use super::edits;
use super::followed::Sessions;
use super::requests::{Again, Request, Requests};
use crate::acp::failure::INTERNAL_ERROR;
use crate::acp::{Failure, Phase, methods};
use crate::rpc::message::{self, Body, Malformed, Message, Outcome};
use crate::rpc::splice::{self, Edits};

/// The option that keeps a prompt from running twice.
pub(super) const KEY: &str = "idempotencyKey";

/// What sessions and agents are, where the client does not say.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub(super) agent: Option<String>,
    pub(super) vm: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    defaults: Defaults,
    /// The longest message that the server reads.
    line_bytes: usize,
    /// The params of the client's `initialize`, as sent on.
    initialize: Option<Box<str>>,
    sessions: Sessions,
    requests: Requests,
    /// The agents' requests that the client is to answer, under the ids it knows.
    asked: BTreeSet<u64>,
    /// What is added to the ids of the server's requests: each connection counts
    /// from 1, and an answer must not be taken for one to another question.
    offset: u64,
    highest: u64,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passing {
    AsItIs,
    As(String),
    /// It goes no further.
    Nowhere,
    /// The one who sent it gets this.
    Back(String),
}

impl Book {
    pub(super) fn new(defaults: Defaults, line_bytes: usize) -> Book {
        Book {
            defaults,
            line_bytes,
            ..Book::default()
        }
    }

    /// The params of the client's `initialize`; absent before it came.
    pub(super) fn initialize(&self) -> Option<String> {
        self.initialize.as_deref().map(str::to_owned)
    }

    pub(super) fn owes_nothing(&self) -> bool {
        self.requests.is_empty()
    }

    /// A message of the client's. What cannot be read, the server is to judge.
    pub(super) fn client_said(&mut self, line: &[u8], depth: usize) -> Passing {
        match Message::parse(line, depth) {
            Ok(parsed) => match parsed.body {
                Body::Request { id, method, params } => {
                    self.request(parsed.text, id, &method, params)
                }
                Body::Notification { method, params } => {
                    self.cancelled(&method, params.unwrap_or("{}"));
                    Passing::AsItIs
                }
                Body::Response { id, .. } => match self.answered(id) {
                    Some(theirs) if theirs == id => Passing::AsItIs,
                    Some(theirs) => {
                        let mut edits = Edits::of(parsed.text);
                        edits.replace(id, theirs);
                        Passing::As(edits.apply())
                    }
                    None => Passing::Nowhere,
                },
            },
            Err(Malformed {
                id,
                response: true,
                error,
            }) => match self.answered(&id) {
                Some(theirs) => Passing::As(message::error(&theirs, &error)),
                None => Passing::Nowhere,
            },
            Err(_) => Passing::AsItIs,
        }
    }

    fn request(&mut self, text: &str, id: &str, method: &str, params: Option<&str>) -> Passing {
        // A message at the limit goes as it is.
        let room = self.line_bytes.saturating_sub(text.len());
        let changed = params
            .and_then(|params| Some((params.len(), self.completed(method, params)?)))
            .filter(|(before, changed)| changed.len().saturating_sub(*before) <= room)
            .map(|(_, changed)| changed);
        let params = changed.as_deref().or(params);
        let text = match (&changed, splice::member(text, "params")) {
            (Some(changed), Some(before)) => {
                edits::with_params(text, before, changed.clone()).into()
            }
            _ => std::borrow::Cow::Borrowed(text),
        };
        let session = params
            .and_then(|params| splice::member(params, "sessionId"))
            .and_then(message::string);
        if !self.requests.begin(id, method, session.as_deref(), &text) {
            let what = "too many requests are unanswered";
            let failure = Failure::new(Phase::Request, INTERNAL_ERROR, what);
            return Passing::Back(message::error(id, &failure.to_error_object()));
        }
        match (method, session) {
            (methods::INITIALIZE, _) => self.initialize = params.map(Into::into),
            (methods::SESSION_LOAD, Some(session)) => {
                let after = params.and_then(|params| edits::option(params, "after"));
                let after = after.and_then(|raw| raw.parse().ok()).unwrap_or(0);
                self.sessions.load_begins(&session, after);
            }
            (methods::SESSION_PROMPT, Some(session)) => {
                self.sessions.prompts(&session, params.unwrap_or("{}"));
            }
            _ => {}
        }
        match text {
            std::borrow::Cow::Borrowed(_) => Passing::AsItIs,
            std::borrow::Cow::Owned(text) => Passing::As(text),
        }
    }

    /// Params with what the client left out; `None` where there is nothing to add.
    fn completed(&self, method: &str, params: &str) -> Option<String> {
        let mut changed = None;
        let set = |changed: &mut Option<String>, key: &str, value: &Option<String>| {
            let now = changed.as_deref().unwrap_or(params);
            if let Some(value) = value
                && edits::option(now, key).is_none()
            {
                let value = serde_json::Value::from(value.as_str()).to_string();
                if let Some(set) = edits::with_option(now, key, &value) {
                    *changed = Some(set);
                }
            }
        };
        match method {
            methods::INITIALIZE => set(&mut changed, "agent", &self.defaults.agent),
            methods::SESSION_NEW => {
                changed = edits::with_absolute_cwd(params);
                set(&mut changed, "agent", &self.defaults.agent);
                set(&mut changed, "vm", &self.defaults.vm);
            }
            methods::SESSION_LOAD | methods::SESSION_RESUME | methods::SESSION_FORK => {
                changed = edits::with_absolute_cwd(params);
            }
            methods::SESSION_PROMPT => {
                let key = format!("acpbox-shim-{}", uuid::Uuid::now_v7().simple());
                set(&mut changed, KEY, &Some(key));
            }
            _ => {}
        }
        changed
    }

    fn cancelled(&mut self, method: &str, params: &str) {
        if method == methods::SESSION_CANCEL {
            let session = splice::member(params, "sessionId").and_then(message::string);
            self.requests.cancel_prompts(&session.unwrap_or_default());
        } else if method == methods::CANCEL_REQUEST {
            let id = splice::member(params, "requestId").unwrap_or_default();
            self.requests.cancel(id);
        }
    }

    /// The client answered a request: its id on this connection. `None` if the one
    /// who asked is gone, or nobody did.
    fn answered(&mut self, id: &str) -> Option<String> {
        let Ok(number) = id.parse::<u64>() else {
            // None of the server's, which will say nothing of it.
            return (self.offset == 0).then(|| id.to_owned());
        };
        self.asked.remove(&number);
        let theirs = number
            .checked_sub(self.offset)
            .filter(|theirs| *theirs > 0)?;
        Some(theirs.to_string())
    }

    /// The request did not leave.
    pub(super) fn is_unsent(&mut self, line: &[u8]) {
        if let Ok(parsed) = Message::parse(line, message::ANY_DEPTH)
            && let Body::Request { id, .. } = parsed.body
        {
            self.requests.is_unsent(id, parsed.text);
        }
    }

    /// A message of the server's.
    pub(super) fn server_said(&mut self, text: &str) -> Passing {
        let Ok(parsed) = Message::parse(text.as_bytes(), message::ANY_DEPTH) else {
            return Passing::AsItIs;
        };
        match parsed.body {
            Body::Notification { method, params } => {
                let params = params.unwrap_or("{}");
                match &*method {
                    methods::SESSION_UPDATE if !self.sessions.update(params) => Passing::Nowhere,
                    methods::CANCEL_REQUEST => self.withdrawn(text, params),
                    _ => Passing::AsItIs,
                }
            }
            Body::Request { id, .. } => {
                let Ok(number) = id.parse::<u64>() else {
                    return Passing::AsItIs;
                };
                let ours = number.saturating_add(self.offset);
                self.asked.insert(ours);
                self.highest = self.highest.max(ours);
                self.renumbered(text, id, ours)
            }
            Body::Response { id, outcome } => match self.requests.end(id) {
                // It is kept for the next server.
                Some(request) if request.text.is_some() && is_of_end(outcome) => {
                    self.requests.put_back(id, request);
                    Passing::Nowhere
                }
                Some(request) => self.ended(text, &request, outcome),
                None => Passing::AsItIs,
            },
        }
    }

    fn withdrawn(&mut self, text: &str, params: &str) -> Passing {
        let id = splice::member(params, "requestId").unwrap_or_default();
        let Ok(number) = id.parse::<u64>() else {
            return Passing::AsItIs;
        };
        let ours = number.saturating_add(self.offset);
        self.asked.remove(&ours);
        self.renumbered(text, id, ours)
    }

    /// `id` is a piece of the text.
    fn renumbered(&self, text: &str, id: &str, ours: u64) -> Passing {
        if self.offset == 0 {
            return Passing::AsItIs;
        }
        let mut edits = Edits::of(text);
        edits.replace(id, ours.to_string());
        Passing::As(edits.apply())
    }

    fn ended(&mut self, text: &str, request: &Request, outcome: Outcome<'_>) -> Passing {
        let session = request.session.as_deref();
        let begun_with = (request.text.as_deref()).and_then(|text| splice::member(text, "params"));
        match (&*request.method, outcome) {
            (methods::SESSION_NEW | methods::SESSION_FORK, Outcome::Result(result)) => {
                let id = splice::member(result, "sessionId").and_then(message::string);
                if let Some(id) = id {
                    self.sessions.is_there(&id, begun_with);
                    self.has_seen(&id, result);
                }
            }
            (methods::SESSION_LOAD | methods::SESSION_RESUME, Outcome::Result(result)) => {
                if let Some(session) = session {
                    self.sessions.is_there(session, begun_with);
                    self.has_seen(session, result);
                }
            }
            (methods::SESSION_CLOSE | methods::SESSION_DELETE, Outcome::Result(_)) => {
                self.sessions.is_gone(session.unwrap_or_default());
            }
            (methods::SESSION_PROMPT, Outcome::Error(error)) if is_of_turn(error) => {
                self.sessions.is_there(session.unwrap_or_default(), None);
            }
            (methods::SESSION_PROMPT, Outcome::Result(result)) => {
                let session = session.unwrap_or_default();
                self.sessions.is_there(session, None);
                if !is_repeated(result) {
                    self.has_seen(session, result);
                }
            }
            // Whatever is sent to a session lets the client follow it.
            (method, Outcome::Result(_)) if !method.starts_with(methods::OWN_PREFIX) => {
                if let Some(session) = session {
                    self.sessions.is_there(session, None);
                }
            }
            _ => {}
        }
        if let Some(session) = session {
            if *request.method == *methods::SESSION_LOAD {
                self.sessions.load_ends(session);
                self.sessions.is_complete(session);
            }
            if request.is_prompt() {
                let has_result = matches!(outcome, Outcome::Result(it) if !is_repeated(it));
                let params = begun_with.unwrap_or("{}");
                self.sessions.answered(session, params, has_result);
            }
        }
        match outcome {
            Outcome::Error(error) if request.is_prompt() && request.is_of_another => {
                said_of_a_restart(text, error)
            }
            _ => Passing::AsItIs,
        }
    }

    fn has_seen(&mut self, session: &str, result: &str) {
        let last = edits::option(result, "lastSeq").and_then(|raw| raw.parse().ok());
        self.sessions.has_seen(session, last.unwrap_or(0));
    }

    /// The connection is lost: what the client is told at once.
    pub(super) fn lost(&mut self) -> Vec<String> {
        self.offset = self.highest;
        let withdraw = |id| {
            let params = format!(r#"{{"requestId":{id}}}"#);
            message::notification(methods::CANCEL_REQUEST, &params)
        };
        std::mem::take(&mut self.asked)
            .into_iter()
            .map(withdraw)
            .collect()
    }

    /// The requests with which a new connection begins: session and params.
    pub(super) fn loads(&mut self) -> Vec<super::followed::Load> {
        self.sessions.loads()
    }

    /// A session was loaded again; a raw result, or why not.
    pub(super) fn loaded(&mut self, session: &str, result: Option<&str>) {
        self.sessions.is_complete(session);
        if let Some(result) = result {
            self.has_seen(session, result);
        }
    }

    /// What becomes of the requests that are unanswered.
    pub(super) fn again(&mut self, is_another: bool) -> Vec<Again> {
        let sessions = &self.sessions;
        self.requests.again(is_another, |request, text| {
            // A replay goes on where it was.
            let is_load = *request.method == *methods::SESSION_LOAD;
            let after = sessions.after(request.session.as_deref().filter(|_| is_load)?)?;
            let params = splice::member(text, "params")?;
            let changed = edits::with_option(params, "after", &after)?;
            Some(edits::with_params(text, params, changed))
        })
    }

    pub(super) fn refuse_all(&mut self, failure: &Failure) -> Vec<String> {
        self.requests.refuse_all(failure)
    }
}

/// Whether the server did nothing of what it was asked because it ends.
fn is_of_end(outcome: Outcome<'_>) -> bool {
    let Outcome::Error(error) = outcome else {
        return false;
    };
    let data = splice::member(error, "data").unwrap_or("null");
    splice::member(data, "ending") == Some("true")
}

/// Whether a prompt's result is that of its turn before, which says nothing of what
/// the client has been sent by now.
fn is_repeated(result: &str) -> bool {
    edits::option(result, "repeated") == Some("true")
}

/// Whether the session is there and its turn failed.
fn is_of_turn(error: &str) -> bool {
    let data = splice::member(error, "data").unwrap_or("null");
    splice::member(data, "phase") == Some("\"turn\"")
}

/// The end of a turn as the client is to hear it that had sent the prompt to a
/// server before. What an agent said stays as it said it.
fn said_of_a_restart(text: &str, error: &str) -> Passing {
    let data = splice::member(error, "data").unwrap_or("null");
    let message = splice::member(error, "message").and_then(message::string);
    let (Some(_), Some(message)) = (splice::member(data, "phase"), message) else {
        return Passing::AsItIs;
    };
    let what = format!("the acpbox server was restarted, and the turn has ended: {message}");
    let hint = "the transcript has what was done; send a prompt to go on";
    let mut edits = Edits::of(text);
    edits.set(error, "message", serde_json::Value::from(what).to_string());
    edits.set(data, "hint", serde_json::Value::from(hint).to_string());
    Passing::As(edits.apply())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(id: u64) -> String {
        message::request(id, "session/request_permission", r#"{"a":1.0}"#)
    }

    #[test]
    fn an_answer_to_a_question_of_a_lost_connection_answers_no_other() {
        let mut book = Book::new(Defaults::default(), 1000);
        assert_eq!(book.server_said(&asks(1)), Passing::AsItIs);
        assert_eq!(book.server_said(&asks(2)), Passing::AsItIs);
        let answer = |id: u64| message::result(&id.to_string(), r#"{"b":1.0}"#);
        assert_eq!(book.client_said(answer(1).as_bytes(), 9), Passing::AsItIs);
        let withdrawn = book.lost();
        assert_eq!(withdrawn.len(), 1);
        assert!(withdrawn[0].contains(r#""requestId":2"#), "{withdrawn:?}");
        assert_eq!(book.server_said(&asks(1)), Passing::As(asks(3)));
        assert_eq!(book.client_said(answer(2).as_bytes(), 9), Passing::Nowhere);
        assert_eq!(
            book.client_said(answer(3).as_bytes(), 9),
            Passing::As(answer(1))
        );
        let withdraw = |id: u64| {
            message::notification("$/cancel_request", &format!(r#"{{"requestId":{id}}}"#))
        };
        assert_eq!(book.server_said(&asks(2)), Passing::As(asks(4)));
        assert_eq!(book.server_said(&withdraw(2)), Passing::As(withdraw(4)));
        assert!(book.lost().is_empty());
    }

    #[test]
    fn a_message_is_passed_on_byte_for_byte_but_for_what_it_lacks() {
        let defaults = Defaults {
            agent: Some("a".into()),
            vm: None,
        };
        let mut book = Book::new(defaults, 1000);
        for text in [
            r#"{ "jsonrpc":"2.0","id":1.0,"method":"session/list","params":{"x":1e400,"y":"\ud800"}}"#,
            r#"{"jsonrpc":"2.0","method":"_v/any","params":[18446744073709551616]}"#,
            r#"{"id":2,"method":"session/prompt","params":{"_meta":{"acpbox":{"idempotencyKey":"mine"}}}}"#,
            "{nonsense",
        ] {
            assert_eq!(
                book.client_said(text.as_bytes(), 9),
                Passing::AsItIs,
                "{text}"
            );
        }
        let new = r#"{"id":3,"method":"session/new","params":{"cwd":"/w" ,"z":1e400}}"#;
        let expected = new.replace(r#"{"cwd""#, r#"{"_meta":{"acpbox":{"agent":"a"}},"cwd""#);
        assert_eq!(book.client_said(new.as_bytes(), 9), Passing::As(expected));
        let prompt = r#"{"id":4,"method":"session/prompt","params":{"prompt":[1e400]}}"#;
        let Passing::As(sent) = book.client_said(prompt.as_bytes(), 9) else {
            panic!("a prompt gets a key");
        };
        let long = prompt.replace("1e400", &"9".repeat(1000 - prompt.len()));
        let passing = book.client_said(long.as_bytes(), 9);
        assert_eq!(passing, Passing::AsItIs, "there is no room for a key");
        assert!(
            sent.contains(KEY) && sent.ends_with(r#""prompt":[1e400]}}"#),
            "{sent}"
        );
    }
}
