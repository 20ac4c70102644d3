//! From `session/resume` to the end: one loop, and all that can wake it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::asked::{Asked, Taken};
use super::find::Listed;
use super::input::{Input, Typed};
use super::line::{Line, Prompt, row, sender};
use super::view::View;
use crate::acp::failure::METHOD_NOT_FOUND;
use crate::acp::methods;
use crate::cli::args::AttachArguments;
use crate::cli::client::{Client, Incoming};
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::cli::run::failure::failure_of;
use crate::rpc::{message, splice};
use crate::store::EventRow;
use crate::transcript::printable_line;

/// How often the transcript is looked at when nothing is sent: what acpbox does
/// by itself is not announced to clients.
const TICK: Duration = Duration::from_millis(500);

/// Events that are read at once.
const PAGE_EVENTS: usize = 1000;

/// How long the server may take to bring the session back.
const RESUME_PATIENCE: Duration = Duration::from_secs(180);

/// Names of other clients that are kept until their prompts are shown.
const SENDERS: usize = 64;

/// How following ended.
pub(super) enum Ending {
    /// The person is done.
    Left(Code),
    /// The server is gone.
    Lost,
}

pub(super) struct Attachment {
    pub(super) view: View,
    session: Listed,
    is_observer: bool,
    /// Whether the person sees what is typed.
    is_echoed: bool,
    after: Option<i64>,
    tail: u32,
    /// The number of the last event that was shown, once anything was.
    last_seq: Option<i64>,
    /// This client's prompts that are not answered, the oldest first.
    prompts: VecDeque<Prompt>,
    /// Who sent prompts that are not shown yet, by number, and the last one of them.
    senders: BTreeMap<i64, String>,
    last_sender: i64,
    /// Prompts in the transcript that have not ended, as far as it was read.
    open_turns: usize,
    questions: VecDeque<Asked>,
    /// The error that the transcript showed last.
    shown_error: String,
    code: Code,
}

/// Everything that can wake the loop.
enum Woken {
    Messages(Vec<Incoming>),
    Typed(Typed),
    Tick,
}

impl Attachment {
    /// Call within a tokio runtime.
    pub(super) fn new(session: Listed, arguments: &AttachArguments) -> Attachment {
        Attachment {
            view: View::new(),
            session,
            is_observer: arguments.observe,
            is_echoed: false,
            after: arguments.after,
            tail: arguments.tail,
            last_seq: None,
            prompts: VecDeque::new(),
            senders: BTreeMap::new(),
            last_sender: 0,
            open_turns: 0,
            questions: VecDeque::new(),
            shown_error: String::new(),
            code: exit::DONE,
        }
    }

    /// Follows the session on this connection. What was shown on an earlier one is
    /// not shown again, and prompts that it did not answer are asked for again.
    ///
    /// # Errors
    /// `Ended` when the server is gone; a `Failure` when it refuses.
    pub(super) async fn follow(
        &mut self,
        client: Client,
        input: &mut Input,
    ) -> anyhow::Result<Ending> {
        let mut line = Line {
            client,
            unread: VecDeque::new(),
        };
        self.questions.clear();
        self.is_echoed = input.is_terminal && self.view.is_terminal();
        self.begin(&mut line).await?;
        loop {
            let messages = std::mem::take(&mut line.unread);
            if !messages.is_empty() {
                self.hear_first(&messages).await?;
                self.on_messages(messages, &mut line).await?;
                continue;
            }
            // On a terminal Ctrl-D leaves; what is piped in is worked off first.
            if input.has_ended
                && !self.is_observer
                && (input.is_terminal || self.prompts.is_empty())
            {
                line.client.close().await;
                return Ok(Ending::Left(match input.is_terminal {
                    true => exit::DONE,
                    false => self.code,
                }));
            }
            match self.wait(&mut line, input).await? {
                Woken::Messages(messages) => {
                    let messages = VecDeque::from(messages);
                    self.hear_first(&messages).await?;
                    self.catch_up(&mut line).await?;
                    self.on_messages(messages, &mut line).await?;
                }
                Woken::Typed(Typed::Line(text)) => self.on_line(text, &mut line).await?,
                Woken::Typed(Typed::Wrong(why)) => output::say(&why),
                Woken::Typed(Typed::End) => {}
                Woken::Typed(Typed::Interrupt) if self.is_observer => {
                    return Ok(Ending::Left(exit::DONE));
                }
                Woken::Typed(Typed::Interrupt) => self.on_interrupt(&line).await?,
                Woken::Tick => self.catch_up(&mut line).await?,
            }
            // What came meanwhile stands below what is asked.
            if !self.questions.is_empty() && !self.view.is_asking() {
                self.put_question().await?;
            }
        }
    }

    async fn wait(&self, line: &mut Line, input: &mut Input) -> anyhow::Result<Woken> {
        // What is piped in waits for its turn, so that it cannot answer by chance
        // what is asked during the one before it.
        let is_heard = input.is_terminal || self.prompts.is_empty() || !self.questions.is_empty();
        Ok(tokio::select! {
            biased;
            messages = line.client.receive() => Woken::Messages(messages?),
            typed = input.next(is_heard) => Woken::Typed(typed),
            () = tokio::time::sleep(TICK) => Woken::Tick,
        })
    }

    /// Attaches, and shows what the transcript has.
    async fn begin(&mut self, line: &mut Line) -> anyhow::Result<()> {
        let mut ours = json!({});
        if self.is_observer {
            ours["role"] = "observer".into();
        }
        let params = json!({
            "sessionId": self.session.session_id,
            "cwd": self.session.cwd,
            "_meta": { "acpbox": ours },
        });
        let result = line
            .ask(methods::SESSION_RESUME, &params, RESUME_PATIENCE)
            .await?;
        if self.last_seq.is_none() {
            self.head(&result).await?;
            self.last_seq = Some(self.first(line).await?);
        }
        self.catch_up(line).await?;
        for index in 0..self.prompts.len() {
            let params = self.prompts[index].params(&self.session.session_id);
            let request = line
                .client
                .request(methods::SESSION_PROMPT, &params)
                .await?;
            self.prompts[index].request = request;
        }
        Ok(())
    }

    async fn head(&mut self, result: &str) -> anyhow::Result<()> {
        let meta = splice::member(result, "_meta").and_then(|meta| splice::member(meta, "acpbox"));
        let of = |key| {
            let raw = meta.and_then(|meta| splice::member(meta, key));
            raw.and_then(message::string).unwrap_or_default()
        };
        let way = match self.is_observer {
            true => "looking on, Ctrl-C leaves",
            false => "each line is a prompt, Ctrl-C cancels, Ctrl-D leaves, /help says more",
        };
        let head = format!(
            "session {} · {} in {} · {} · {way}",
            self.session.session_id,
            of("agent"),
            of("vm"),
            self.session.cwd,
        );
        self.view.note(&head).await
    }

    /// The number behind which to begin.
    async fn first(&mut self, line: &mut Line) -> anyhow::Result<i64> {
        if let Some(after) = self.after {
            return Ok(after);
        }
        let prompts = json!({
            "sessionId": self.session.session_id,
            "before": i64::MAX,
            "limit": self.tail.max(1),
            "kinds": [methods::SESSION_PROMPT],
        });
        let page = line.events(&prompts).await?;
        Ok(match page.events.first() {
            Some(first) if self.tail > 0 => first.seq - 1,
            // Nothing was asked yet: there is little, and all of it is of interest.
            None if self.tail > 0 => 0,
            _ => page.last_seq,
        })
    }

    /// Shows what the transcript has that was not shown.
    async fn catch_up(&mut self, line: &mut Line) -> anyhow::Result<()> {
        loop {
            let after = self.last_seq.unwrap_or(0);
            let params = json!({
                "sessionId": self.session.session_id,
                "after": after,
                "limit": PAGE_EVENTS,
            });
            let page = line.events(&params).await?;
            if page.events.is_empty() {
                return Ok(());
            }
            self.hear_first(&line.unread).await?;
            for event in page.events {
                self.last_seq = Some(event.seq);
                self.show(row(&self.session.session_id, event)).await?;
            }
            if self.last_seq >= Some(page.last_seq) {
                return Ok(());
            }
        }
    }

    async fn show(&mut self, event: EventRow) -> anyhow::Result<()> {
        let is_prompt = event.kind == methods::SESSION_PROMPT;
        if is_prompt {
            self.open_turns += 1;
        } else if event.kind.starts_with("session/prompt:") {
            self.open_turns = self.open_turns.saturating_sub(1);
            if let Some(error) = splice::member(&event.raw, "error") {
                self.shown_error = error.to_owned();
            }
        }
        if is_prompt {
            let is_own = (self.prompts.iter()).any(|prompt| event.raw.contains(&prompt.key));
            if is_own && self.is_echoed {
                return self.view.skip(&event);
            }
            if let Some(sender) = self.senders.remove(&event.seq) {
                self.view.note(&format!("from {sender}:")).await?;
            }
        }
        self.view.event(&event).await
    }

    /// Learns who sent the prompts of others, before they are shown where possible, and
    /// what is asked no more.
    async fn hear_first(&mut self, messages: &VecDeque<Incoming>) -> anyhow::Result<()> {
        for message in messages {
            let Incoming::Notification { method, params } = message else {
                continue;
            };
            if method == methods::CANCEL_REQUEST {
                // Said before what came of it is shown.
                self.withdraw(params).await?;
            }
            if method != methods::SESSION_UPDATE || !self.is_own(params) {
                continue;
            }
            match sender(params) {
                Some((seq, sender)) if seq > self.last_sender => {
                    self.last_sender = seq;
                    if self.last_seq >= Some(seq) {
                        self.view.note(&format!("· sent by {sender}")).await?;
                    } else if self.senders.len() < SENDERS {
                        self.senders.insert(seq, sender);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn on_messages(
        &mut self,
        messages: VecDeque<Incoming>,
        line: &mut Line,
    ) -> anyhow::Result<()> {
        for message in messages {
            match message {
                Incoming::Response { id, outcome } => self.on_answer(id, outcome, line).await?,
                Incoming::Request { id, method, params } => {
                    self.on_request(id, &method, &params, line).await?;
                }
                Incoming::Notification { method, params } => {
                    self.on_notification(&method, &params).await?;
                }
            }
        }
        Ok(())
    }

    async fn on_answer(
        &mut self,
        id: u64,
        outcome: Result<String, String>,
        line: &mut Line,
    ) -> anyhow::Result<()> {
        let Some(at) = self.prompts.iter().position(|prompt| prompt.request == id) else {
            return Ok(());
        };
        self.catch_up(line).await?;
        self.prompts.remove(at);
        self.code = match outcome {
            Ok(result) => {
                let reason = splice::member(&result, "stopReason").and_then(message::string);
                exit::of_stop_reason(&reason.unwrap_or_default())
            }
            Err(error) => {
                let failure = failure_of(&error);
                // What is in the transcript was shown with it.
                if error != self.shown_error {
                    self.view.settle().await?;
                    output::say(&failure.to_string());
                }
                exit::of_failure(&failure)
            }
        };
        self.view.settle().await
    }

    async fn on_request(
        &mut self,
        id: String,
        method: &str,
        params: &str,
        line: &mut Line,
    ) -> anyhow::Result<()> {
        // One that is about a request of ours names that instead of the session.
        let is_about_request =
            method == methods::ELICITATION_CREATE && splice::member(params, "sessionId").is_none();
        if !self.is_own(params) && !is_about_request {
            return Ok(());
        }
        // What is asked for stands above the choices.
        self.catch_up(line).await?;
        match Asked::of(id.clone(), method, params) {
            _ if self.is_observer => {}
            Some(asked) => {
                self.questions.push_back(asked);
                if self.questions.len() == 1 {
                    self.put_question().await?;
                }
            }
            None => {
                let what = format!("Method not found: `{method}` ({})", super::NAME);
                let refusal = Err((METHOD_NOT_FOUND, what.as_str()));
                line.client.respond(&id, refusal).await?;
            }
        }
        Ok(())
    }

    async fn on_notification(&mut self, method: &str, params: &str) -> anyhow::Result<()> {
        match method {
            // It may have come at once with what it withdraws.
            methods::CANCEL_REQUEST => self.withdraw(params).await?,
            methods::AGENT_STDERR if self.is_own(params) => {
                let lines = splice::member(params, "lines");
                let lines: Vec<String> = lines
                    .and_then(|raw| serde_json::from_str(raw).ok())
                    .unwrap_or_default();
                for line in lines {
                    tracing::info!("the agent on stderr: {}", printable_line(&line));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn withdraw(&mut self, params: &str) -> anyhow::Result<()> {
        let withdrawn = splice::member(params, "requestId").unwrap_or_default();
        let was_asked = self.questions.front().is_some_and(|it| it.id == withdrawn);
        self.questions.retain(|question| question.id != withdrawn);
        match was_asked {
            true => self.view.note("· answered elsewhere, or withdrawn").await,
            false => Ok(()),
        }
    }

    /// Asks the first of the questions that wait.
    async fn put_question(&mut self) -> anyhow::Result<()> {
        match self.questions.front().map(Asked::text) {
            Some(text) => self.view.ask(&text).await,
            None => Ok(()),
        }
    }

    async fn on_line(&mut self, text: String, line: &mut Line) -> anyhow::Result<()> {
        if let Some(asked) = self.questions.front_mut() {
            self.view.typed();
            match asked.take(&text) {
                Taken::Answer(answer) => {
                    line.client.respond(&asked.id, Ok(&answer)).await?;
                    self.questions.pop_front();
                }
                Taken::Next => {}
                Taken::Wrong(why) if asked.takes_nothing() || !text.trim().is_empty() => {
                    self.view.settle().await?;
                    output::say(&why);
                }
                Taken::Wrong(_) => {}
            }
            return self.put_question().await;
        }
        let text = match text.trim() {
            "" => return Ok(()),
            "/help" => return self.view.text(super::HELP).await,
            "//help" => "/help".to_owned(),
            _ => text,
        };
        let mut prompt = Prompt {
            key: Uuid::new_v4().to_string(),
            text,
            request: 0,
        };
        let params = prompt.params(&self.session.session_id);
        prompt.request = line
            .client
            .request(methods::SESSION_PROMPT, &params)
            .await?;
        self.prompts.push_back(prompt);
        Ok(())
    }

    async fn on_interrupt(&mut self, line: &Line) -> anyhow::Result<()> {
        self.view.settle().await?;
        if self.open_turns == 0 && self.prompts.is_empty() {
            output::say("Ctrl-C again, or Ctrl-D, leaves; the session goes on");
            return Ok(());
        }
        output::say("cancelling the turn; Ctrl-C again leaves");
        // ACP: what is asked is answered as cancelled when the turn is.
        for question in std::mem::take(&mut self.questions) {
            let answer = question.cancelled();
            line.client.respond(&question.id, Ok(&answer)).await?;
        }
        let params = json!({ "sessionId": self.session.session_id }).to_string();
        Ok(line.client.notify(methods::SESSION_CANCEL, &params).await?)
    }

    fn is_own(&self, params: &str) -> bool {
        splice::member(params, "sessionId")
            .and_then(message::string)
            .is_some_and(|id| id == self.session.session_id.as_str())
    }
}
