//! The way from a client to the agent: session ids and request ids change on
//! the way, everything is recorded.

use std::sync::Arc;

use tracing::Instrument as _;

use super::asked::stored_line;
use super::client::Client;
use super::live::{Live, too_many_pending};
use super::state::{Batch, QueuedPrompt, State, Turn, Waiting};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::Room;
use crate::rpc::connection::Refused;
use crate::rpc::message::{self, Body, Message};
use crate::rpc::splice::{self, Edits};
use crate::store::Direction;
use crate::transcript::Echo;

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
        if let Err(failure) = self.check_control(client) {
            let line = message::error(id, &failure.to_error_object());
            let _ = client.outbox.send(&line).await;
            return;
        }
        if method == methods::SESSION_PROMPT {
            self.forward_prompt(client, text, id, params).await;
            return;
        }
        let room = self.room(text.len()).await;
        let refused = self
            .note(|state, batch| {
                if let Some(failure) = state.ended.clone() {
                    return Some(failure);
                }
                let stored = stored_line(method, text);
                state.record(batch, Direction::Client, method.to_owned().into(), stored);
                let waiting = Waiting::Client {
                    client: Arc::clone(client),
                    id: id.into(),
                    method: method.into(),
                };
                self.send_request(state, waiting, text, id, params, room)
                    .err()
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
        client: &Arc<Client>,
        text: &str,
        method: &str,
        params: Option<&str>,
    ) {
        if self.check_control(client).is_err() {
            tracing::debug!(method, "a notification of an observer's");
            return;
        }
        let is_cancel = method == methods::SESSION_CANCEL;
        let room = self.room(text.len()).await;
        let mut denials = Vec::new();
        let mut withdrawn = Vec::new();
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
                withdrawn = self.deny_all(state, batch, client);
                denials.append(&mut batch.answers);
                let turn = state.turn.as_mut()?;
                let is_first = !std::mem::replace(&mut turn.is_cancelled, true);
                is_first.then_some(turn.request)
            })
            .await;
        for denial in denials {
            self.answer_later(denial);
        }
        self.withdraw_soon(withdrawn);
        if is_cancel {
            self.drop_queue().await;
        }
        if let Some(request) = noted {
            let span = self.watch.span.clone();
            tokio::spawn(Arc::clone(self).enforce_cancel(request).instrument(span));
        }
    }

    /// Hands a prompt to the agent.
    pub(super) fn start_turn(
        &self,
        state: &mut State,
        batch: &mut Batch,
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
        let (Body::Request { id, params, .. }, Some(asker)) =
            (parsed.body, prompt.askers.first().cloned())
        else {
            let failure = Failure::invalid_params("a prompt is a request");
            return Err(Box::new((prompt, failure)));
        };
        let waiting = Waiting::Client {
            client: asker.client,
            id: asker.id,
            method: methods::SESSION_PROMPT.into(),
        };
        match self.send_request(state, waiting, &text, id, params, room) {
            Ok(request) => {
                let first = state.next_seq;
                state.tell_start(batch, &prompt);
                state.turn_row(prompt.seq).first = Some(first);
                let preamble = state.first_prompt.take();
                state.turn = Some(Turn {
                    request,
                    prompt: prompt.seq,
                    joined: prompt.askers[1..].to_vec(),
                    knowing: prompt.askers.into_iter().map(|it| it.client).collect(),
                    echo: Echo::of(&prompt.text).behind(preamble.as_deref()),
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
