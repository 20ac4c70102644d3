//! The way from the agent to its clients: every message is read, recorded,
//! committed, and only then shown.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::client::Client;
use super::live::Live;
use super::repeat::chunk_text;
use super::state::{After, Batch, State};
use crate::acp::methods::{self, update_kind};
use crate::acp::{Failure, Phase};
use crate::agent::process::AgentOutput;
use crate::rpc::codec::Frame;
use crate::rpc::message::{self, Body, Message};
use crate::rpc::splice::{self, Edits};
use crate::store::Direction;
use crate::vm::Exit;

/// How long a process that ended may leave output in its pipe for, and how long
/// one that closed its output may take to end.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long what a client sent may wait to be committed with the agent's answer.
const NOTED: Duration = Duration::from_millis(2);

/// Updates that wait until a client knows its session, in bytes.
const HELD_BYTES: usize = 16 * 1024 * 1024;

impl Live {
    /// Relays until the agent ends, then says so to all who wait.
    pub(super) async fn run(self: Arc<Self>, mut output: AgentOutput) {
        let mut frames = Vec::new();
        let mut exit = self.agent.exit.clone();
        let mut deadline: Option<Instant> = None;
        let mut stderr_open = true;
        // One timer for all: setting one costs more than letting it run out.
        let mut flush = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_flush_due = false;
        loop {
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = output.messages.read(&mut frames) => match read {
                    Ok(true) => {
                        if !self.relay(&mut frames).await {
                            break;
                        }
                    }
                    Ok(false) | Err(_) => break,
                },
                lines = output.stderr.recv(), if stderr_open => match lines {
                    Some(lines) => self.log("stderr", lines).await,
                    None => stderr_open = false,
                },
                () = ended(&mut exit), if deadline.is_none() => {
                    deadline = Some(Instant::now() + LAST_WORDS);
                }
                () = self.noted.notified(), if !is_flush_due => {
                    flush.as_mut().reset(Instant::now() + NOTED);
                    is_flush_due = true;
                }
                () = &mut flush, if is_flush_due => {
                    is_flush_due = false;
                    let is_quiet = self.state().started.is_empty();
                    let shown = match is_quiet {
                        true => self.flush().await,
                        false => self.transact(|_, _| ()).await,
                    };
                    if let Err(failure) = shown {
                        self.end_with(failure);
                        break;
                    }
                }
                () = late => break,
            }
        }
        // Closed output without an end is an end: nothing can come any more.
        let has_ended = tokio::time::timeout(LAST_WORDS, ended(&mut exit))
            .await
            .is_ok();
        if !has_ended {
            self.agent.control.kill();
            let _ = tokio::time::timeout(LAST_WORDS, ended(&mut exit)).await;
        }
        while let Ok(Some(lines)) =
            tokio::time::timeout(Duration::from_millis(50), output.stderr.recv()).await
        {
            self.log("stderr", lines).await;
        }
        self.finish().await;
    }

    /// Handles what one read brought. `false` when the agent cannot go on.
    async fn relay(self: &Arc<Self>, frames: &mut Vec<Frame>) -> bool {
        self.await_a_reader().await;
        let mut batch = Batch::default();
        let relayed = self
            .transact_in(&mut batch, |state, batch| {
                // None of it is kept: it may be long until there is more.
                for frame in std::mem::take(frames) {
                    match frame {
                        Frame::Message(bytes) => self.on_line(state, batch, &bytes),
                        Frame::TooLong { bytes } => batch
                            .after
                            .push(After::Kill(too_long(bytes, self.bounds.line_bytes))),
                        Frame::Broken(why) => batch
                            .after
                            .push(After::Kill(Failure::internal(Phase::Turn, why))),
                    }
                }
            })
            .await;
        if let Err(failure) = relayed {
            self.end_with(failure);
            return false;
        }
        let mut goes_on = true;
        for next in batch.after {
            match next {
                // Those were made when the batch was delivered.
                After::Reply(..) => {}
                After::Terminal {
                    room,
                    id,
                    method,
                    params,
                } => {
                    let live = Arc::clone(self);
                    let serving = async move {
                        live.serve_terminal(&id, &method, &params).await;
                        drop(room);
                    };
                    tokio::spawn(serving.instrument(self.watch.span.clone()));
                }
                After::Noise(text) => self.log("stdout", vec![text]).await,
                After::Kill(failure) => {
                    self.end_with(failure);
                    goes_on = false;
                }
            }
        }
        goes_on
    }

    fn on_line(self: &Arc<Self>, state: &mut State, batch: &mut Batch, line: &[u8]) {
        let parsed = match Message::parse(line, self.bounds.depth) {
            Ok(parsed) => parsed,
            Err(malformed) => {
                // A response that is none still ends the wait for it.
                if malformed.response
                    && let Some(waiting) = state.pending.take(&malformed.id)
                {
                    let failure = Failure::internal(
                        Phase::Turn,
                        format!(
                            "the agent's answer is not JSON-RPC: {}",
                            malformed.error.message()
                        ),
                    );
                    let line = message::error(&malformed.id, &failure.to_error_object());
                    state.answer_with(batch, waiting, &line);
                    self.next_prompt(state, batch);
                }
                let mut text = String::from_utf8_lossy(line).into_owned();
                text.truncate(text.floor_char_boundary(8 * 1024));
                batch.after.push(After::Noise(text));
                return;
            }
        };
        match parsed.body {
            Body::Notification { ref method, params } if method == methods::CANCEL_REQUEST => {
                self.withdraw(state, batch, params);
            }
            Body::Notification { ref method, params } => {
                self.on_notification(state, batch, parsed.text, method, params);
            }
            Body::Request {
                id,
                ref method,
                params,
            } => {
                self.on_request(state, batch, parsed.text, id, method, params);
            }
            Body::Response { id, outcome } => match state.pending.take(id) {
                Some(waiting) => {
                    state.answer(batch, waiting, parsed.text, id, outcome);
                    self.next_prompt(state, batch);
                }
                None => tracing::debug!(id, "a response of the agent's that nobody waits for"),
            },
        }
    }

    fn on_notification(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        text: &str,
        method: &str,
        params: Option<&str>,
    ) {
        let public = state.public_id();
        let members = params.and_then(splice::members).unwrap_or_default();
        let mut edits = Edits::of(text);
        for member in &members {
            if member.key == "sessionId" && state.is_agents_own(member.value) {
                edits.replace(member.value, public.as_str());
            }
        }
        if method != methods::SESSION_UPDATE {
            let line = edits.apply();
            state.record(
                batch,
                Direction::Agent,
                method.to_owned().into(),
                line.as_str(),
            );
            self.show(state, batch, &[&line], line.len());
            return;
        }
        if state.is_swallowing {
            return;
        }
        let update = splice::value(&members, "update");
        let kind = update.map_or_else(
            || methods::SESSION_UPDATE.into(),
            |update| self.on_update(state, update),
        );
        if matches!(&*kind, "tool_call" | "tool_call_update")
            && let Some((content, shown)) = update.and_then(|update| self.show_content(update))
        {
            edits.replace(content, shown);
        }
        let line = edits.apply();
        if state.fence.is_some() && !methods::is_of_session(&kind) {
            state.record(batch, Direction::Agent, methods::late_kind(&kind), line);
            return;
        }
        let (kind, only) = match update {
            Some(update) if kind == "user_message_chunk" => on_user_chunk(state, kind, update),
            _ => (kind, None),
        };
        let only = only.as_deref();
        let seq = state.next_seq;
        // The seq goes in front of the first member, or into the `_meta` there is.
        let meta = format!("{{\"seq\":{seq}}}");
        let has_meta = members.iter().any(|member| member.key == "_meta");
        let open = params
            .filter(|params| params.starts_with('{'))
            .map(|params| splice::range(text, params).start + 1);
        match open {
            Some(_) if has_meta => {
                let shown = super::state::with_meta(
                    &line,
                    "params",
                    &crate::acp::extension::UpdateMeta::of(seq),
                );
                self.show_to(only, state, batch, &[&shown], shown.len());
            }
            // `params` may move when an edit before it changes its length; `sessionId` lies inside it.
            Some(open) => {
                let comma = if members.is_empty() { "" } else { "," };
                let inserted = format!("\"_meta\":{{\"acpbox\":{meta}}}{comma}");
                self.show_to(
                    only,
                    state,
                    batch,
                    &[&line[..open], &inserted, &line[open..]],
                    line.len() + inserted.len(),
                );
            }
            None => self.show_to(only, state, batch, &[&line], line.len()),
        }
        state.record(batch, Direction::Agent, kind, line);
    }

    /// Takes from an update what the session itself needs; returns its kind.
    fn on_update(&self, state: &mut State, update: &str) -> Cow<'static, str> {
        let members = splice::members(update).unwrap_or_default();
        let value = |key: &str| splice::value(&members, key);
        let Some(kind) = value("sessionUpdate").and_then(message::string) else {
            return methods::SESSION_UPDATE.into();
        };
        match kind.as_ref() {
            "agent_message_chunk" if state.turn.is_some() => {
                if let Some(text) = chunk_text(value("content")) {
                    state.add_reply(&text);
                }
            }
            "tool_call" | "tool_call_update" => {
                state.tool_calls.note(&members, kind == "tool_call");
            }
            "session_info_update" => {
                if let Some(title) = value("title").and_then(message::string) {
                    state.row.title = Some(title.into_owned());
                }
            }
            _ => {}
        }
        update_kind(&kind)
    }

    /// Sends to all who follow, or holds until the client knows the session.
    pub(super) fn show(&self, state: &mut State, batch: &mut Batch, parts: &[&str], length: usize) {
        self.show_to(None, state, batch, parts, length);
    }

    /// [`Live::show`] to `only` these, if any are named.
    fn show_to(
        &self,
        only: Option<&[Arc<Client>]>,
        state: &mut State,
        batch: &mut Batch,
        parts: &[&str],
        length: usize,
    ) {
        let is_held = !state.is_announced && state.held_bytes + length <= HELD_BYTES;
        if is_held {
            state.held_bytes += length;
            state.held.push(parts.concat());
            return;
        }
        for attached in state.clients.iter().filter(|known| known.is_live()) {
            if only.is_none_or(|only| is_among(only, &attached.client)) {
                batch.show(&attached.client, parts);
            }
        }
    }
}

/// What a piece of a user's message is, and who is to be shown it, if not all: an
/// agent that says its prompt back says it to who knows no other sign of it.
fn on_user_chunk(
    state: &mut State,
    kind: Cow<'static, str>,
    update: &str,
) -> (Cow<'static, str>, Option<Vec<Arc<Client>>>) {
    let seq = state.next_seq;
    let shown = state.shown;
    let Some(turn) = state.turn.as_mut().filter(|_| state.fence.is_none()) else {
        return (kind, None);
    };
    if turn.echo.takes_preamble(update) {
        return (methods::ECHO.into(), Some(Vec::new()));
    }
    if !turn.echo.takes(update) {
        return (kind, None);
    }
    let knowing = turn.knowing.clone();
    for attached in &mut state.clients {
        if is_among(&knowing, &attached.client) {
            attached.note_own(seq, shown);
        }
    }
    (methods::ECHO.into(), Some(knowing))
}

fn is_among(clients: &[Arc<Client>], client: &Arc<Client>) -> bool {
    clients.iter().any(|known| Arc::ptr_eq(known, client))
}

/// Waits for a process's end, without keeping the lock on what it was.
async fn ended(exit: &mut watch::Receiver<Option<Exit>>) {
    let _ = exit.wait_for(Option::is_some).await;
}

fn too_long(bytes: usize, limit: usize) -> Failure {
    Failure::internal(
        Phase::Turn,
        format!("the agent sent a message of {bytes} bytes, over the limit of {limit} (limits.line_bytes)"),
    )
    .hint("raise limits.line_bytes in the configuration if the agent is to be trusted with it")
}
