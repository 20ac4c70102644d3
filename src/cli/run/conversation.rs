//! From `initialize` to the end of the turn: one loop, and all that can wake it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::consent::{self, Consent};
use super::failure::failure_of;
use super::progress::Progress;
use super::show::{Show, Summary};
use super::signals::{Asked, Signals};
use super::terminal::{Reply, reply};
use crate::acp::Failure;
use crate::acp::failure::METHOD_NOT_FOUND;
use crate::acp::methods;
use crate::cli::client::{Client, Incoming};
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::rpc::{message, splice};
use crate::session::handshake::own_info;
use crate::session::policy::{Choice, Offered, answer};
use crate::store::{SessionRow, Store};
use crate::transcript::Follower;
use crate::transcript::printable_line;

/// How often the transcript is looked at when nothing is sent: what acpbox does
/// for an agent by itself, as running its commands, is not announced.
const TICK: Duration = Duration::from_millis(200);

/// What the prompt goes to.
pub(super) enum Subject {
    New(PathBuf),
    /// With the folder where it is to go on, if that is another one now.
    Stored(Box<SessionRow>, Option<PathBuf>),
}

pub(super) struct Conversation<'a> {
    store: Store,
    client: Client,
    show: Show,
    consent: Consent,
    signals: &'a mut Signals,
    follower: Option<Follower>,
    session: Option<String>,
    /// Questions that wait for the person, the first one being asked.
    questions: VecDeque<Question>,
    progress: Progress,
    is_cancelled: bool,
}

struct Question {
    /// The request's raw id.
    id: String,
    offered: Offered,
    /// Those that are shown.
    choices: Vec<Choice>,
}

/// Everything that can wake the loop.
enum Event {
    Messages(Vec<Incoming>),
    Signal(Asked),
    /// A line typed by the person; `None` at the end of the terminal.
    Typed(Option<String>),
    Tick,
}

/// How waiting for an answer ended.
enum Outcome {
    Result(String),
    Error(Failure),
    /// Somebody did not want to wait any longer.
    Stopped,
}

impl<'a> Conversation<'a> {
    /// `store` is where the client's server writes.
    pub(super) fn new(
        client: Client,
        store: Store,
        show: Show,
        consent: Consent,
        signals: &'a mut Signals,
    ) -> Conversation<'a> {
        Conversation {
            store,
            client,
            show,
            consent,
            signals,
            follower: None,
            session: None,
            questions: VecDeque::new(),
            progress: Progress::new(),
            is_cancelled: false,
        }
    }

    /// Sends the prompt and shows what comes of it.
    pub(super) async fn hold(mut self, subject: Subject, prompt: &str) -> anyhow::Result<Code> {
        let outcome = self.converse(subject, prompt).await;
        self.progress.hide();
        let (code, summary, failure) = match outcome {
            Ok(Outcome::Result(result)) => self.ended(&result),
            Ok(Outcome::Error(failure)) => self.failed(failure),
            Ok(Outcome::Stopped) => {
                let error = json!({ "message": "stopped before the turn ended" });
                (exit::CANCELLED, self.summary(Some(error)), None)
            }
            // Nobody reads any more: what is left to say has no reader either.
            Err(error) if error.is::<output::Closed>() => {
                self.client.close().await;
                return Ok(exit::CANCELLED);
            }
            Err(error) => {
                self.client.close().await;
                return Err(error);
            }
        };
        self.show.finish(summary).await?;
        self.client.close().await;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(code),
        }
    }

    async fn converse(&mut self, subject: Subject, prompt: &str) -> anyhow::Result<Outcome> {
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false },
                "terminal": true,
                "_meta": { "acpbox": { "agentNotifications": true } },
            },
            "clientInfo": own_info(),
        });
        let initialized = self.ask(methods::INITIALIZE, &params.to_string()).await?;
        if !matches!(initialized, Outcome::Result(_)) {
            return Ok(initialized);
        }
        match subject {
            Subject::New(cwd) => {
                let params = json!({ "cwd": cwd, "mcpServers": [] }).to_string();
                match self.ask(methods::SESSION_NEW, &params).await? {
                    Outcome::Result(result) => {
                        let id = splice::member(&result, "sessionId").and_then(message::string);
                        self.follow(&id.unwrap_or_default(), 0);
                        let warnings = splice::member(&result, "_meta")
                            .and_then(|meta| splice::member(meta, "acpbox"))
                            .and_then(|ours| splice::member(ours, "warnings"));
                        for warning in texts(warnings) {
                            tracing::info!("{warning}");
                        }
                    }
                    other => return Ok(other),
                }
            }
            Subject::Stored(row, moved) => {
                let last_seq = self.store.last_seq(&row.id).await?;
                self.follow(&row.id, last_seq);
                if let Some(cwd) = moved {
                    let params = json!({ "sessionId": row.id, "cwd": cwd }).to_string();
                    let resumed = self.ask(methods::SESSION_RESUME, &params).await?;
                    if !matches!(resumed, Outcome::Result(_)) {
                        return Ok(resumed);
                    }
                }
            }
        }
        // A stored session comes back with its first prompt, with all it was made with.
        let params = json!({
            "sessionId": self.session,
            "prompt": [{ "type": "text", "text": prompt }],
        });
        let outcome = self
            .ask(methods::SESSION_PROMPT, &params.to_string())
            .await?;
        self.catch_up().await?;
        Ok(outcome)
    }

    fn follow(&mut self, session: &str, after: i64) {
        self.follower = Some(Follower::new(session, after));
        self.session = Some(session.to_owned());
    }

    /// Sends a request and waits for its answer; serves and shows all else meanwhile.
    async fn ask(&mut self, method: &str, params: &str) -> anyhow::Result<Outcome> {
        let request = self.client.request(method, params).await?;
        self.progress.begin();
        let is_turn = method == methods::SESSION_PROMPT;
        loop {
            if self.is_cancelled {
                self.drop_questions().await?;
            }
            self.show_progress(method);
            match self.next().await? {
                Event::Messages(messages) => {
                    self.catch_up().await?;
                    for message in messages {
                        if let Some(outcome) = self.on_message(message, request).await? {
                            return Ok(outcome);
                        }
                    }
                }
                Event::Signal(Asked::Cancel) if is_turn => self.cancel().await?,
                Event::Signal(_) => {
                    if is_turn && self.client.is_shared() {
                        // Such a server would go on with the turn.
                        send_cancel(&self.client, self.session.as_deref()).await?;
                    }
                    return Ok(Outcome::Stopped);
                }
                Event::Typed(line) => self.on_line(line.as_deref()).await?,
                Event::Tick => self.catch_up().await?,
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Event> {
        let typed = async {
            match &self.consent {
                Consent::Ask(terminal) if !self.questions.is_empty() => terminal.line().await,
                _ => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            asked = self.signals.next() => Event::Signal(asked),
            messages = self.client.receive() => Event::Messages(messages?),
            line = typed => Event::Typed(line),
            () = tokio::time::sleep(TICK) => Event::Tick,
        })
    }

    async fn on_message(
        &mut self,
        message: Incoming,
        request: u64,
    ) -> anyhow::Result<Option<Outcome>> {
        match message {
            Incoming::Response { id, outcome } if id == request => {
                return Ok(Some(match outcome {
                    Ok(result) => Outcome::Result(result),
                    Err(error) => Outcome::Error(failure_of(&error)),
                }));
            }
            Incoming::Response { .. } => {}
            Incoming::Request { id, method, params } => match method.as_str() {
                methods::REQUEST_PERMISSION => self.on_question(id, &params).await?,
                methods::ELICITATION_CREATE => {
                    self.client
                        .respond(&id, Ok(r#"{"action":"cancel"}"#))
                        .await?;
                }
                _ => {
                    let what = format!("Method not found: `{method}` (acpbox run)");
                    self.client
                        .respond(&id, Err((METHOD_NOT_FOUND, &what)))
                        .await?;
                }
            },
            Incoming::Notification { method, params } if method == methods::CANCEL_REQUEST => {
                let withdrawn = splice::member(&params, "requestId").unwrap_or_default();
                let was_asked = self.questions.front().is_some_and(|it| it.id == withdrawn);
                self.questions.retain(|question| question.id != withdrawn);
                if was_asked {
                    self.put_question();
                }
            }
            Incoming::Notification { method, params } if method == methods::AGENT_STDERR => {
                for line in texts(splice::member(&params, "lines")) {
                    tracing::info!("the agent on stderr: {}", printable_line(&line));
                }
            }
            Incoming::Notification { .. } => {}
        }
        Ok(None)
    }

    async fn on_question(&mut self, id: String, params: &str) -> anyhow::Result<()> {
        let (offered, choices) = consent::offered(params);
        let chosen = match &mut self.consent {
            _ if self.is_cancelled => None,
            Consent::Yes => {
                let allowing = offered.allowing(false);
                if allowing.is_none() {
                    self.show.settle().await?;
                    output::say(
                        "the agent asks for permission without a clear way to say yes once, so it \
                         is refused; [permissions] of the configuration says more",
                    );
                }
                allowing
            }
            Consent::No { is_told } => {
                if !std::mem::replace(is_told, true) {
                    self.show.settle().await?;
                    output::say(
                        "the agent asks for permission and there is no terminal to ask on, so it \
                         is refused; use --yes to allow",
                    );
                }
                offered.refusing()
            }
            Consent::Ask(_) if !choices.is_empty() => {
                self.questions.push_back(Question {
                    id,
                    offered,
                    choices,
                });
                if self.questions.len() == 1 {
                    self.progress.hide();
                    self.show.settle().await?;
                    self.put_question();
                }
                return Ok(());
            }
            Consent::Ask(_) => None,
        };
        let answer = answer(chosen.map(|choice| choice.id.as_str()));
        self.client.respond(&id, Ok(&answer)).await?;
        Ok(())
    }

    /// Asks the first of the questions that wait.
    fn put_question(&self) {
        if let (Consent::Ask(terminal), Some(question)) = (&self.consent, self.questions.front()) {
            terminal.ask(&question.choices);
        }
    }

    async fn on_line(&mut self, line: Option<&str>) -> anyhow::Result<()> {
        let Some(question) = self.questions.front() else {
            return Ok(());
        };
        let answer = match reply(line, &question.choices, &question.offered) {
            Reply::Chosen(choice) => answer(Some(&choice.id)),
            Reply::Refused(choice) => answer(choice.map(|choice| choice.id.as_str())),
            Reply::Unclear => {
                self.put_question();
                return Ok(());
            }
        };
        self.client.respond(&question.id, Ok(&answer)).await?;
        self.questions.pop_front();
        self.put_question();
        Ok(())
    }

    async fn cancel(&mut self) -> anyhow::Result<()> {
        self.is_cancelled = true;
        self.progress.hide();
        self.show.settle().await?;
        output::say("cancelling the turn; Ctrl-C again stops at once");
        send_cancel(&self.client, self.session.as_deref()).await
    }

    /// ACP: questions that are open are answered as cancelled when the turn is.
    async fn drop_questions(&mut self) -> anyhow::Result<()> {
        for question in std::mem::take(&mut self.questions) {
            let answer = answer(None);
            self.client.respond(&question.id, Ok(&answer)).await?;
        }
        Ok(())
    }

    /// Shows what the transcript has that was not shown.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let Some(follower) = &mut self.follower else {
            return Ok(());
        };
        loop {
            let rows = follower.next(&self.store).await?;
            if rows.is_empty() {
                return Ok(());
            }
            self.progress.hide();
            for row in rows {
                // A reader that does not read must not keep a signal from being heard.
                let mut shown = std::pin::pin!(self.show.event(row));
                loop {
                    tokio::select! {
                        shown = &mut shown => break shown?,
                        asked = self.signals.next() => match asked {
                            Asked::Stop => return Err(output::Closed.into()),
                            Asked::Cancel => {
                                self.is_cancelled = true;
                                send_cancel(&self.client, self.session.as_deref()).await?;
                            }
                        },
                    }
                }
            }
        }
    }

    fn show_progress(&mut self, method: &str) {
        if self.questions.is_empty() && self.show.has_room_for_progress() {
            self.progress.show(match method {
                methods::SESSION_PROMPT => "working",
                _ => "starting the agent in its VM",
            });
        } else {
            self.progress.hide();
        }
    }

    fn summary(&self, error: Option<Value>) -> Summary {
        Summary {
            session_id: self.session.clone(),
            last_seq: self.follower.as_ref().map_or(0, Follower::last_seq),
            error,
            ..Summary::default()
        }
    }

    fn ended(&self, result: &str) -> (Code, Summary, Option<Failure>) {
        let reason = splice::member(result, "stopReason").and_then(message::string);
        let reason = reason.unwrap_or_default().into_owned();
        let code = match reason.as_str() {
            "cancelled" => exit::CANCELLED,
            "refusal" | "max_tokens" | "max_turn_requests" => exit::REFUSED,
            _ => exit::DONE,
        };
        let usage = splice::member(result, "usage").filter(|usage| *usage != "null");
        let summary = Summary {
            stop_reason: Some(reason),
            usage: usage.and_then(|usage| RawValue::from_string(usage.to_owned()).ok()),
            ..self.summary(None)
        };
        (code, summary, None)
    }

    fn failed(&self, failure: Failure) -> (Code, Summary, Option<Failure>) {
        let error = json!(failure.to_error_object());
        let code = exit::of_failure(&failure);
        (code, self.summary(Some(error)), Some(failure))
    }
}

async fn send_cancel(client: &Client, session: Option<&str>) -> anyhow::Result<()> {
    let params = json!({ "sessionId": session }).to_string();
    client.notify(methods::SESSION_CANCEL, &params).await?;
    Ok(())
}

/// A raw array's strings.
fn texts(raw: Option<&str>) -> Vec<String> {
    raw.and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default()
}
