//! The way from a client to the agent: session ids and request ids change on
//! the way, prompts take turns, everything is recorded.

use std::sync::Arc;

use super::asked::stored_line;
use super::client::Client;
use super::live::{Live, too_many_pending};
use super::state::{Batch, QueuedPrompt, State, Turn, Waiting};
use crate::acp::extension::{TurnEnd, TurnEndReason};
use crate::acp::failure::REQUEST_CANCELLED;
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::rpc::Room;
use crate::rpc::connection::Refused;
use crate::rpc::message::{self, Body, Message};
use crate::rpc::splice::{self, Edits};
use crate::store::Direction;

/// Prompts that may wait for their turn in one session.
const QUEUED_PROMPTS: usize = 32;

/// Characters of the first prompt that become a title.
const TITLE_CHARACTERS: usize = 80;

impl Live {
    /// Relays a request. What cannot be sent is answered with an error at once.
    pub async fn forward_request(
        self: &Arc<Self>,
        client: &Arc<Client>,
        text: &str,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) {
        let room = self.room(text.len()).await;
        let refused = self
            .note(|state, batch| {
                if let Some(failure) = state.ended.clone() {
                    return Some(failure);
                }
                let stored = stored_line(method, text);
                state.record(batch, Direction::Client, method.to_owned().into(), stored);
                if method != methods::SESSION_PROMPT {
                    let waiting = Waiting::Client {
                        client: Arc::clone(client),
                        id: id.into(),
                        method: method.into(),
                    };
                    return self
                        .send_request(state, waiting, text, id, params, room)
                        .err();
                }
                take_title(state, params);
                let prompt = QueuedPrompt {
                    client: Arc::clone(client),
                    id: id.into(),
                    text: text.into(),
                };
                if state.turn.is_none() {
                    return self
                        .start_turn(state, prompt, room)
                        .err()
                        .map(|refused| refused.1);
                }
                if state.queue.len() >= QUEUED_PROMPTS {
                    let what = format!("{QUEUED_PROMPTS} prompts wait in this session already");
                    return Some(
                        Failure::internal(Phase::Turn, what)
                            .hint("wait for a turn to end, or cancel it"),
                    );
                }
                state.queue.push_back(prompt);
                None
            })
            .await;
        let Some(failure) = refused else { return };
        let mut is_told = false;
        let answered = self
            .transact(|state, batch| {
                state.refuse(batch, client, id, method, &failure);
                is_told = true;
            })
            .await;
        if answered.is_err() && !is_told {
            let _ = client
                .outbox
                .send(&message::error(id, &failure.to_error_object()))
                .await;
        }
    }

    /// Relays a notification. Cancellation also starts the grace period.
    pub async fn forward_notification(
        self: &Arc<Self>,
        text: &str,
        method: &str,
        params: Option<&str>,
    ) {
        let is_cancel = method == methods::SESSION_CANCEL;
        let room = self.room(text.len()).await;
        let mut denials = Vec::new();
        let noted = self
            .note(|state, batch| {
                if state.ended.is_some() {
                    return None;
                }
                state.record(batch, Direction::Client, method.to_owned().into(), text);
                let line = self.outward(state, text, params).apply();
                if let Err(error) = self.send(room, &line) {
                    tracing::warn!(%error, method, "a notification did not reach the agent");
                }
                if !is_cancel {
                    return None;
                }
                self.deny_all(state, batch);
                denials.append(&mut batch.answers);
                let turn = state.turn.as_mut()?;
                let is_first = !std::mem::replace(&mut turn.is_cancelled, true);
                is_first.then_some(turn.request)
            })
            .await;
        for denial in denials {
            self.answer_later(denial);
        }
        if is_cancel {
            self.drop_queue().await;
        }
        if let Some(request) = noted {
            let live = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(live.bounds.cancel_grace).await;
                live.end_cancelled_turn(request).await;
            });
        }
    }

    /// Relays a response to a request of the agent's.
    pub async fn forward_response(
        self: &Arc<Self>,
        text: &str,
        id: &str,
        agent_id: &str,
        method: &str,
        is_error: bool,
    ) {
        let mut edits = Edits::of(text);
        edits.replace(id, agent_id);
        self.answer_agent(method, &edits.apply(), Direction::Client, is_error)
            .await;
    }

    /// Passes on that a client no longer waits for a request of its own.
    pub async fn forward_cancel_request(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        if self.cancel_queued(client, raw_id).await {
            return true;
        }
        let found = self.state().pending.find(|waiting| {
            matches!(waiting, Waiting::Client { client: theirs, id, .. }
                if Arc::ptr_eq(theirs, client) && &**id == raw_id)
        });
        let Some(request) = found else { return false };
        let line = message::notification(
            methods::CANCEL_REQUEST,
            &format!("{{\"requestId\":{request}}}"),
        );
        self.note(|state, batch| {
            state.record(
                batch,
                Direction::Client,
                methods::CANCEL_REQUEST.into(),
                line.as_str(),
            );
        })
        .await;
        let _ = self.agent.outbox.try_send(&line);
        true
    }

    /// Takes a prompt out of the queue. `false` if it does not wait there.
    async fn cancel_queued(&self, client: &Arc<Client>, raw_id: &str) -> bool {
        let position = |state: &State| {
            let is_it = |prompt: &QueuedPrompt| {
                Arc::ptr_eq(&prompt.client, client) && &*prompt.id == raw_id
            };
            state.queue.iter().position(is_it)
        };
        if position(&self.state()).is_none() {
            return false;
        }
        let cancelled = self.transact(|state, batch| {
            let prompt = position(state).and_then(|at| state.queue.remove(at));
            if let Some(prompt) = prompt {
                let what = "Request cancelled: the prompt had not begun";
                let failure = Failure::new(Phase::Request, REQUEST_CANCELLED, what);
                let method = methods::SESSION_PROMPT;
                state.refuse(batch, client, &prompt.id, method, &failure);
                return true;
            }
            false
        });
        cancelled.await.unwrap_or_default()
    }

    /// Ends a turn that was cancelled and whose agent did not end it in time.
    async fn end_cancelled_turn(self: &Arc<Self>, request: u64) {
        let ended = self
            .transact(|state, batch| {
                if state
                    .turn
                    .as_ref()
                    .is_none_or(|turn| turn.request != request)
                {
                    return;
                }
                let Some(waiting) = state.pending.get_mut(request) else {
                    return;
                };
                let abandoned = Waiting::Abandoned {
                    method: methods::SESSION_PROMPT.into(),
                };
                let waiting = std::mem::replace(waiting, abandoned);
                let seconds = self.bounds.cancel_grace.as_secs();
                let params = TurnEnd {
                    session_id: self.id.to_string(),
                    reason: TurnEndReason::CancelTimeout,
                    detail: format!("the agent did not end the cancelled turn within {seconds} s"),
                };
                state.record_own(batch, methods::TURN_END, &params);
                if let Waiting::Client { id, .. } = &waiting {
                    let line = message::result(id, "{\"stopReason\":\"cancelled\"}");
                    state.answer_with(batch, waiting, &line);
                }
                self.next_prompt(state, batch);
            })
            .await;
        if let Err(failure) = ended {
            tracing::warn!(%failure, "a cancelled turn could not be ended");
        }
    }

    /// Cancellation is of the session: prompts that wait for their turn go too.
    async fn drop_queue(&self) {
        if self.state().queue.is_empty() {
            return;
        }
        let dropped = self
            .transact(|state, batch| {
                while let Some(prompt) = state.queue.pop_front() {
                    let line = message::result(&prompt.id, "{\"stopReason\":\"cancelled\"}");
                    let kind = response_kind(methods::SESSION_PROMPT, false);
                    state.record(batch, Direction::Acpbox, kind, line.as_str());
                    let answered = (Arc::clone(&prompt.client), prompt.id.clone());
                    batch.answered.push(answered);
                    batch.send(&prompt.client, &[&line]);
                }
            })
            .await;
        if let Err(failure) = dropped {
            tracing::warn!(%failure, "waiting prompts could not be cancelled");
        }
    }

    /// Starts the prompt that waits longest, once no turn runs.
    pub(super) fn next_prompt(&self, state: &mut State, batch: &mut Batch) {
        while state.turn.is_none() && state.ended.is_none() {
            let Some(prompt) = state.queue.pop_front() else {
                return;
            };
            if let Err(refused) = self.start_turn(state, prompt, None) {
                let (prompt, failure) = *refused;
                state.refuse(
                    batch,
                    &prompt.client,
                    &prompt.id,
                    methods::SESSION_PROMPT,
                    &failure,
                );
            }
        }
    }

    fn start_turn(
        &self,
        state: &mut State,
        prompt: QueuedPrompt,
        room: Option<Room>,
    ) -> Result<(), Box<(QueuedPrompt, Failure)>> {
        let text = match &state.first_prompt {
            Some(preamble) => with_preamble(&prompt.text, preamble),
            None => prompt.text.to_string(),
        };
        let Ok(parsed) = Message::parse(text.as_bytes(), message::ANY_DEPTH) else {
            let failure = Failure::invalid_params("the prompt could not be read again");
            return Err(Box::new((prompt, failure)));
        };
        let Body::Request { id, params, .. } = parsed.body else {
            let failure = Failure::invalid_params("a prompt is a request");
            return Err(Box::new((prompt, failure)));
        };
        let waiting = Waiting::Client {
            client: Arc::clone(&prompt.client),
            id: prompt.id.clone(),
            method: methods::SESSION_PROMPT.into(),
        };
        match self.send_request(state, waiting, &text, id, params, room) {
            Ok(request) => {
                state.first_prompt = None;
                state.turn = Some(Turn {
                    request,
                    text: String::new(),
                    is_truncated: false,
                    is_cancelled: false,
                });
                Ok(())
            }
            Err(failure) => Err(Box::new((prompt, failure))),
        }
    }

    fn send_request(
        &self,
        state: &mut State,
        waiting: Waiting,
        text: &str,
        id: &str,
        params: Option<&str>,
        room: Option<Room>,
    ) -> Result<u64, Failure> {
        let request = state
            .pending
            .insert(waiting)
            .map_err(|_| too_many_pending())?;
        let mut edits = self.outward(state, text, params);
        edits.replace(id, request.to_string());
        if let Err(error) = self.send(room, &edits.apply()) {
            state.pending.remove(request);
            let what = format!("the agent `{}` cannot be reached: {error}", self.agent_name);
            return Err(Failure::internal(Phase::Turn, what).stderr(self.agent.last_words()));
        }
        Ok(request)
    }

    /// Sends a line into room that was waited for, else only if there is some.
    fn send(&self, room: Option<Room>, line: &str) -> Result<(), Refused> {
        match room {
            Some(room) => room.send(line),
            None => self.agent.outbox.try_send(line)?,
        }
        Ok(())
    }

    /// The edits that put the agent's own session id where the public one is.
    fn outward<'a>(&self, state: &State, text: &'a str, params: Option<&'a str>) -> Edits<'a> {
        let mut edits = Edits::of(text);
        let Some(own) = &state.row.agent_session else {
            return edits;
        };
        for member in params.and_then(splice::members).unwrap_or_default() {
            if member.key == "sessionId"
                && message::string(member.value).is_some_and(|id| *id == *self.id)
            {
                edits.replace(
                    member.value,
                    serde_json::Value::from(own.as_str()).to_string(),
                );
            }
        }
        edits
    }
}

/// A session without a title takes one from its first prompt.
fn take_title(state: &mut State, params: Option<&str>) {
    if state.row.title.is_some() {
        return;
    }
    let blocks = params.and_then(|params| splice::member(params, "prompt"));
    let blocks: Vec<&serde_json::value::RawValue> = blocks
        .and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default();
    let text = blocks
        .iter()
        .find_map(|block| splice::member(block.get(), "text").and_then(message::string));
    let Some(text) = text else { return };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.is_empty() {
        let mut title: String = line.chars().take(TITLE_CHARACTERS).collect();
        if title.len() < line.len() {
            title.push('…');
        }
        state.row.title = Some(title);
    }
}

/// Puts a text block in front of a prompt's blocks.
fn with_preamble(text: &str, preamble: &str) -> String {
    let prompt = splice::member(text, "params").and_then(|params| splice::member(params, "prompt"));
    let Some(prompt) = prompt.filter(|prompt| prompt.starts_with('[')) else {
        return text.to_owned();
    };
    let block = serde_json::json!({ "type": "text", "text": preamble });
    let is_empty = prompt[1..].trim_ascii_start().starts_with(']');
    let comma = if is_empty { "" } else { "," };
    let mut edits = Edits::of(text);
    edits.replace(prompt, format!("[{block}{comma}{}", &prompt[1..]));
    edits.apply()
}
