//! Prompts take turns: one runs, the others wait or are refused, as their
//! clients ask.

use std::collections::VecDeque;
use std::sync::Arc;

use super::asked::stored_line;
use super::client::Client;
use super::live::Live;
use super::repeat::{self, MAX_KEY_BYTES};
use super::state::{Asker, Batch, QueuedPrompt, State};
use crate::acp::extension::{PromptOptions, WhenBusy};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::splice::{self, Edits};
use crate::rpc::{Room, message};
use crate::store::Direction;

/// Characters of the first prompt that become a title.
const TITLE_CHARACTERS: usize = 80;

/// A prompt as its client sent it.
struct Sent<'a> {
    asker: Asker,
    text: &'a str,
    params: Option<&'a str>,
    options: PromptOptions,
}

impl Live {
    /// Takes a prompt: it is begun, or waits, or is answered with an error.
    pub(super) async fn forward_prompt(
        self: &Arc<Self>,
        client: &Arc<Client>,
        text: &str,
        id: &str,
        params: Option<&str>,
    ) {
        let asker = Asker {
            client: Arc::clone(client),
            id: id.into(),
        };
        let taken = match options(params) {
            Err(failure) => Err(failure),
            Ok(options) => {
                let sent = Sent {
                    asker: asker.clone(),
                    text,
                    params,
                    options,
                };
                match sent.options.idempotency_key.is_some() {
                    true => self.take_keyed(sent).await,
                    false => {
                        self.take(sent).await;
                        Ok(())
                    }
                }
            }
        };
        if let Err(failure) = taken {
            let line = message::error(id, &failure.to_error_object());
            let _ = asker.client.outbox.send(&line).await;
        }
    }

    async fn take(&self, sent: Sent<'_>) {
        let room = self.room(sent.text.len()).await;
        let refused = self
            .note(|state, batch| match self.admit(state, batch, &sent, true) {
                Ok(_) => self
                    .start_next(state, batch, room)
                    .err()
                    .map(|refused| *refused),
                Err(refused) => Some(*refused),
            })
            .await;
        if let Some((prompt, failure)) = refused {
            self.refuse(&prompt, &failure).await;
        }
    }

    /// A prompt with a key is on disk before the agent sees it: it must not run
    /// twice, whatever happens in between.
    ///
    /// # Errors
    /// What the client is to be told. Nothing of the prompt is stored then.
    async fn take_keyed(&self, sent: Sent<'_>) -> Result<(), Failure> {
        // One at a time, so that two with the same key cannot miss each other.
        let _turnstile = self.keyed_prompts.lock().await;
        if repeat::answer(
            self,
            &sent.asker,
            sent.params,
            &sent.options.idempotency_key,
        )
        .await?
        {
            return Ok(());
        }
        let admitted = self
            .transact(|state, batch| {
                batch.durable = true;
                self.admit(state, batch, &sent, false)
            })
            .await
            .inspect_err(|_| {
                let is_it = |prompt: &QueuedPrompt| {
                    !prompt.is_committed
                        && (prompt.askers.iter())
                            .any(|it| it.is(&sent.asker.client, &sent.asker.id))
                };
                self.state().queue.retain(|prompt| !is_it(prompt));
            })?;
        let refused = match admitted {
            Ok(seq) => {
                let room = self.room(sent.text.len()).await;
                self.note(|state, batch| {
                    let mut queue = state.queue.iter_mut();
                    if let Some(prompt) = queue.find(|prompt| prompt.seq == seq) {
                        prompt.is_committed = true;
                    }
                    let started = self.start_next(state, batch, room);
                    started.err().map(|refused| *refused)
                })
                .await
            }
            Err(refused) => Some(*refused),
        };
        if let Some((prompt, failure)) = refused {
            self.refuse(&prompt, &failure).await;
        }
        Ok(())
    }

    /// Records a prompt and lets it wait; returns the number of its event.
    fn admit(
        &self,
        state: &mut State,
        batch: &mut Batch,
        sent: &Sent<'_>,
        is_committed: bool,
    ) -> Result<i64, Box<(QueuedPrompt, Failure)>> {
        let mut prompt = QueuedPrompt {
            seq: state.next_seq,
            askers: vec![sent.asker.clone()],
            text: without_options(sent.text, sent.params).into(),
            key: sent.options.idempotency_key.as_deref().map(Into::into),
            is_committed,
        };
        if let Some(failure) = state.ended.clone() {
            return Err(Box::new((prompt, failure)));
        }
        let stored = stored_line(methods::SESSION_PROMPT, sent.text);
        let kind = methods::SESSION_PROMPT.into();
        prompt.seq = state.record(batch, Direction::Client, kind, stored);
        state.turn_row(prompt.seq);
        let waiting = self.bounds.queued_prompts;
        let refusal = match sent.options.when_busy {
            _ if !state.is_busy() => None,
            WhenBusy::Refuse => Some(
                Failure::internal(Phase::Turn, "a turn runs in this session already")
                    .hint("wait for it to end, or cancel it; without `whenBusy` a prompt waits"),
            ),
            WhenBusy::Queue if state.queue.len() >= waiting => {
                let what = format!("{waiting} prompts wait in this session already");
                Some(
                    Failure::internal(Phase::Turn, what)
                        .hint("wait for a turn to end, or cancel it"),
                )
            }
            WhenBusy::Queue => None,
        };
        if let Some(failure) = refusal {
            return Err(Box::new((prompt, failure)));
        }
        // Only now: a prompt that was refused for being early may come again.
        let key = sent.options.idempotency_key.as_deref();
        state.turn_row(prompt.seq).key = key.map(Into::into);
        take_title(state, sent.params);
        let seq = prompt.seq;
        state.queue.push_back(prompt);
        Ok(seq)
    }

    /// Starts the prompt that waits longest, if no turn runs.
    fn start_next(
        &self,
        state: &mut State,
        batch: &mut Batch,
        room: Option<Room>,
    ) -> Result<(), Box<(QueuedPrompt, Failure)>> {
        if state.turn.is_some() || state.fence.is_some() || state.ended.is_some() {
            return Ok(());
        }
        match state.queue.pop_front_if(|prompt| prompt.is_committed) {
            Some(prompt) => self.start_turn(state, batch, prompt, room),
            None => Ok(()),
        }
    }

    /// Starts the prompt that waits longest, once no turn runs; answers those
    /// that cannot be sent.
    pub(super) fn next_prompt(&self, state: &mut State, batch: &mut Batch) {
        while let Err(refused) = self.start_next(state, batch, None) {
            let (prompt, failure) = *refused;
            state.refuse_prompt(batch, prompt.seq, &prompt.askers, &failure);
        }
        state.show_started(batch);
    }

    /// Answers a prompt with an error, whether or not that can be stored.
    async fn refuse(&self, prompt: &QueuedPrompt, failure: &Failure) {
        let mut is_told = false;
        let answered = self
            .transact(|state, batch| {
                state.refuse_prompt(batch, prompt.seq, &prompt.askers, failure);
                self.next_prompt(state, batch);
                is_told = true;
            })
            .await;
        if answered.is_err() && !is_told {
            for asker in &prompt.askers {
                let line = message::error(&asker.id, &failure.to_error_object());
                let _ = asker.client.outbox.send(&line).await;
            }
        }
    }

    /// Takes over prompts that an agent before left waiting. At once, so that
    /// whoever brings the session back may give up at any time.
    pub(super) fn adopt(self: &Arc<Self>, prompts: VecDeque<QueuedPrompt>) {
        if prompts.is_empty() {
            return;
        }
        for asker in prompts.iter().flat_map(|prompt| &prompt.askers) {
            self.attach(&asker.client);
        }
        self.state().queue.extend(prompts);
        let live = Arc::clone(self);
        tokio::spawn(async move {
            // If it fails they are told with the agent's end.
            let _ = live
                .transact(|state, batch| match state.ended.clone() {
                    Some(failure) => state.refuse_queue(batch, &failure),
                    None => live.next_prompt(state, batch),
                })
                .await;
        });
    }
}

/// What a client asks of acpbox with a prompt.
pub(super) fn options(params: Option<&str>) -> Result<PromptOptions, Failure> {
    let meta = params.and_then(|params| splice::member(params, "_meta"));
    let options: PromptOptions = match meta.and_then(|meta| splice::member(meta, "acpbox")) {
        None | Some("null") => return Ok(PromptOptions::default()),
        Some(raw) => serde_json::from_str(raw)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox`: {error}")))?,
    };
    match &options.idempotency_key {
        Some(key) if key.is_empty() || key.len() > MAX_KEY_BYTES => {
            let what = format!("`idempotencyKey` must have 1 to {MAX_KEY_BYTES} bytes");
            Err(Failure::invalid_params(what))
        }
        _ => Ok(options),
    }
}

/// A prompt as the agent gets it: what was meant for acpbox is taken out.
fn without_options(text: &str, params: Option<&str>) -> String {
    let meta = params.and_then(|params| splice::member(params, "_meta"));
    let mut edits = Edits::of(text);
    if let Some(meta) = meta.filter(|meta| meta.starts_with('{')) {
        edits.remove(meta, "acpbox");
    }
    edits.apply()
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
