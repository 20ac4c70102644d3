//! The client's requests that are unanswered, and what becomes of each when the
//! server that had it is gone.

use std::collections::HashMap;

use jsonrpsee_types::ErrorObjectOwned;

use crate::acp::failure::{INTERNAL_ERROR, REQUEST_CANCELLED};
use crate::acp::{Failure, Phase, methods};
use crate::rpc::{message, splice};

/// Requests that may be unanswered.
const LIMIT: usize = 4096;

/// What is kept of them to be sent again, in bytes.
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// Methods that change nothing, and can be asked again.
const READS: [&str; 10] = [
    methods::INITIALIZE,
    methods::SESSION_LIST,
    methods::SESSION_LOAD,
    methods::SESSION_RESUME,
    "_acpbox/server/info",
    "_acpbox/session/events",
    "_acpbox/session/search",
    "_acpbox/agent/logs",
    "_acpbox/vm/list",
    "_acpbox/vm/status",
];

/// By raw id.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: HashMap<Box<str>, Request>,
    next: u64,
    kept_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Request {
    number: u64,
    pub(super) method: Box<str>,
    pub(super) session: Option<Box<str>>,
    /// The whole message; absent where there was no room to keep it.
    pub(super) text: Option<Box<str>>,
    /// Whether it can be sent again whatever it is: no server has it.
    is_unsent: bool,
    is_cancelled: bool,
    /// Whether the server that it was sent to first is gone.
    pub(super) is_of_another: bool,
}

/// What a request becomes on a new connection.
pub(super) enum Again {
    Send {
        text: String,
        /// A `session/cancel` that may not have arrived.
        cancel: Option<String>,
    },
    /// It was answered: a line for the client.
    Answer(String),
}

impl Requests {
    /// Remembers a request. `false` if there are too many.
    pub(super) fn begin(
        &mut self,
        id: &str,
        method: &str,
        session: Option<&str>,
        text: &str,
    ) -> bool {
        if self.waiting.len() >= LIMIT {
            return false;
        }
        let is_kept = is_kept(method) && self.kept_bytes + text.len() <= KEPT_BYTES;
        self.next += 1;
        let request = Request {
            number: self.next,
            method: method.into(),
            session: session.map(Into::into),
            text: is_kept.then(|| text.into()),
            is_unsent: false,
            is_cancelled: false,
            is_of_another: false,
        };
        self.kept_bytes += request.bytes();
        if let Some(before) = self.waiting.insert(id.into(), request) {
            // A client that uses an id twice gets two answers, and both pass.
            self.kept_bytes -= before.bytes();
        }
        true
    }

    /// Takes the request that is answered.
    pub(super) fn end(&mut self, id: &str) -> Option<Request> {
        let request = self.waiting.remove(id)?;
        self.kept_bytes -= request.bytes();
        Some(request)
    }

    /// The server that ends has not begun it.
    pub(super) fn put_back(&mut self, id: &str, mut request: Request) {
        request.is_unsent = true;
        self.kept_bytes += request.bytes();
        if let Some(before) = self.waiting.insert(id.into(), request) {
            self.kept_bytes -= before.bytes();
        }
    }

    /// It did not go out.
    pub(super) fn is_unsent(&mut self, id: &str, text: &str) {
        if let Some(request) = self.waiting.get_mut(id) {
            self.kept_bytes -= request.bytes();
            request.text = Some(text.into());
            self.kept_bytes += request.bytes();
            request.is_unsent = true;
        }
    }

    pub(super) fn cancel_prompts(&mut self, session: &str) {
        let prompts = self.waiting.values_mut().filter(|it| it.is_prompt());
        for prompt in prompts.filter(|it| it.session.as_deref() == Some(session)) {
            prompt.is_cancelled = true;
        }
    }

    pub(super) fn cancel(&mut self, id: &str) {
        if let Some(request) = self.waiting.get_mut(id) {
            request.is_cancelled = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes through all of them on a new connection, in order. `is_another` if it
    /// leads to another server than before. `renewed` may change the text of a
    /// `session/load`.
    pub(super) fn again(
        &mut self,
        is_another: bool,
        renewed: impl Fn(&Request, &str) -> Option<String>,
    ) -> Vec<Again> {
        let mut order: Vec<(u64, Box<str>)> = (self.waiting.iter())
            .map(|(id, request)| (request.number, id.clone()))
            .collect();
        order.sort_unstable();
        let mut all = Vec::with_capacity(order.len());
        for (_, id) in order {
            let Some(request) = self.waiting.get_mut(&id) else {
                continue;
            };
            request.is_of_another |= is_another && !request.is_unsent;
            let text = request.text.as_deref().filter(|_| request.may_come_again());
            match text {
                Some(text) => {
                    let cancel = request.is_cancelled && request.is_prompt();
                    let session = request.session.as_deref().filter(|_| cancel);
                    all.push(Again::Send {
                        text: renewed(request, text).unwrap_or_else(|| text.to_owned()),
                        cancel: session.map(cancel_line),
                    });
                    request.is_unsent = false;
                }
                None => {
                    let line = message::error(&id, &request.why_lost());
                    self.end(&id);
                    all.push(Again::Answer(line));
                }
            }
        }
        all
    }

    /// Answers all of them with an error.
    pub(super) fn refuse_all(&mut self, failure: &Failure) -> Vec<String> {
        let mut all: Vec<(Box<str>, Request)> = self.waiting.drain().collect();
        self.kept_bytes = 0;
        all.sort_by_key(|(_, request)| request.number);
        let error = failure.to_error_object();
        all.iter()
            .map(|(id, _)| message::error(id, &error))
            .collect()
    }
}

impl Request {
    fn bytes(&self) -> usize {
        self.text.as_deref().map_or(0, str::len)
    }

    pub(super) fn is_prompt(&self) -> bool {
        *self.method == *methods::SESSION_PROMPT
    }

    fn may_come_again(&self) -> bool {
        if self.is_unsent || is_read(&self.method) {
            return true;
        }
        // The key keeps it from running twice.
        let key = self.text.as_deref().and_then(|text| {
            super::edits::option(splice::member(text, "params")?, super::book::KEY)
        });
        self.is_prompt() && key.is_some()
    }

    fn why_lost(&self) -> ErrorObjectOwned {
        if self.is_cancelled && !self.is_prompt() {
            let what = format!("Request cancelled: `{}`", self.method);
            return Failure::new(Phase::Request, REQUEST_CANCELLED, what).to_error_object();
        }
        let how = match self.is_of_another {
            true => "the acpbox server was restarted",
            false => "the connection to the acpbox server was lost",
        };
        let (phase, what, hint) = if self.is_prompt() {
            (
                Phase::Turn,
                format!("{how} during the turn, and what became of it is not known"),
                "the transcript has what was done; send the prompt again if it is to go on",
            )
        } else {
            (
                Phase::Request,
                format!("{how} before it answered `{}`", self.method),
                "whether it was done is not known; look, and ask again",
            )
        };
        let failure = Failure::new(phase, INTERNAL_ERROR, what).hint(hint);
        failure.to_error_object()
    }
}

fn is_read(method: &str) -> bool {
    READS.contains(&method)
}

/// Whether the message is needed once more: to be sent again, or for what it said.
fn is_kept(method: &str) -> bool {
    let said = [
        methods::SESSION_PROMPT,
        methods::SESSION_NEW,
        methods::SESSION_FORK,
    ];
    said.contains(&method) || is_read(method)
}

fn cancel_line(session: &str) -> String {
    let params = serde_json::json!({ "sessionId": session });
    message::notification(methods::SESSION_CANCEL, &params.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u64, method: &str, params: &str) -> String {
        message::request(id, method, params)
    }

    #[test]
    fn only_what_changes_nothing_or_cannot_run_twice_is_sent_again() {
        let mut requests = Requests::default();
        let keyed = r#"{"sessionId":"s","_meta":{"acpbox":{"idempotencyKey":"k"}}}"#;
        let mut begin = |id: u64, method: &str, params: &str| {
            let session = splice::member(params, "sessionId").and_then(message::string);
            let text = line(id, method, params);
            assert!(requests.begin(&id.to_string(), method, session.as_deref(), &text));
        };
        begin(1, "session/prompt", keyed);
        begin(2, "session/prompt", r#"{"sessionId":"s"}"#);
        begin(3, "session/list", "{}");
        begin(4, "session/new", "{}");
        begin(5, "session/delete", r#"{"sessionId":"s"}"#);
        begin(6, "_acpbox/session/events", "{}");
        begin(7, "_acpbox/vm/delete", "{}");
        begin(8, "session/new", "{}");
        requests.is_unsent("8", &line(8, "session/new", "{}"));
        requests.cancel_prompts("s");
        requests.cancel("5");
        let said: Vec<String> = (requests.again(true, |_, _| None).into_iter())
            .map(|again| match again {
                Again::Send { text, cancel } => {
                    let id = splice::member(&text, "id").unwrap();
                    format!("send {id} {}", cancel.is_some())
                }
                Again::Answer(line) => {
                    let error = splice::member(&line, "error").unwrap();
                    let code = splice::member(error, "code").unwrap();
                    format!("answer {} {code}", splice::member(&line, "id").unwrap())
                }
            })
            .collect();
        assert_eq!(
            said,
            [
                "send 1 true",
                "answer 2 -32603",
                "send 3 false",
                "answer 4 -32603",
                "answer 5 -32800",
                "send 6 false",
                "answer 7 -32603",
                "send 8 false"
            ]
        );
        assert!(requests.end("1").unwrap().is_of_another);
        assert!(!requests.end("8").unwrap().is_of_another);
        assert_eq!(
            requests
                .refuse_all(&Failure::internal(Phase::Turn, "x"))
                .len(),
            2
        );
        assert_eq!(requests.kept_bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut requests = Requests::default();
        let huge = line(
            1,
            "session/prompt",
            &format!("{:?}", "x".repeat(KEPT_BYTES)),
        );
        assert!(requests.begin("1", "session/prompt", Some("s"), &huge));
        assert_eq!(requests.kept_bytes, 0);
        for id in 2..=LIMIT {
            assert!(requests.begin(&id.to_string(), "x", None, "{}"));
        }
        assert!(!requests.begin("\"one more\"", "x", None, "{}"));
    }
}
