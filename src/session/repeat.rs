//! Prompts that come again with the same key, such as after a lost connection:
//! nothing runs twice, and the answer is the one there was or will be.

use serde_json::Value;

use super::host::Host;
use super::live::{Live, too_many_pending};
use super::state::{Asker, REPLY_BYTES, State, with_meta};
use super::turns::with_id;
use crate::acp::extension::{PromptMeta, TurnEnd};
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::store::{Direction, EventPage, EventRow, Store, TurnRow};

/// The longest key that a client may give a prompt.
pub(super) const MAX_KEY_BYTES: usize = 255;

/// Chunks of a reply read at a time.
const PAGE_EVENTS: usize = 1000;

/// How often a turn is looked for that ends just then.
const ATTEMPTS: usize = 3;

const NEW_KEY: &str =
    "this is the stored outcome of the prompt; to run it again, send it with a new idempotencyKey";

/// Answers a prompt whose key is known: at once, or with the turn that runs.
/// `false` if the key is new. Whoever calls lets in one keyed prompt at a time.
///
/// # Errors
/// When the key was another prompt's, or the store cannot be read.
pub(super) async fn answer(
    live: &Live,
    asker: &Asker,
    params: Option<&str>,
    key: &Option<String>,
) -> Result<bool, Failure> {
    let Some(key) = key else { return Ok(false) };
    for _ in 0..ATTEMPTS {
        {
            // What the database says must be all that there is.
            let _order = live.order().await;
            live.flush().await?;
        }
        let Some(turn) = find(&live.store, &live.id, params, key).await? else {
            return Ok(false);
        };
        if turn.last.is_some() {
            let line = outcome(&live.store, &turn, &asker.id).await?;
            let _ = asker.client.outbox.send(&line).await;
            return Ok(true);
        }
        if live.join(turn.prompt, asker)? {
            return Ok(true);
        }
    }
    let what = "what became of the prompt with this idempotencyKey could not be stored";
    Err(Failure::internal(Phase::Turn, what)
        .hint("read the session's last events; to run it again, send it with a new idempotencyKey"))
}

impl Host {
    /// The answer to a prompt whose turn has ended, for which nothing needs to
    /// be started: a response with the given id. `None` if it is to be run, or runs.
    pub async fn stored_answer(
        &self,
        session: &str,
        id: &str,
        params: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let Some(key) = super::prompts::options(params)?.idempotency_key else {
            return Ok(None);
        };
        match find(&self.store, session, params, &key).await? {
            Some(turn) if turn.last.is_some() => Ok(Some(outcome(&self.store, &turn, id).await?)),
            _ => Ok(None),
        }
    }
}

impl Live {
    /// Adds somebody to those who wait for a prompt's answer. `false` if it is
    /// not in this process's hands any more.
    ///
    /// # Errors
    /// When as many wait for it as may wait for an agent.
    fn join(&self, prompt: i64, asker: &Asker) -> Result<bool, Failure> {
        let mut state = self.state();
        let State { turn, queue, .. } = &mut *state;
        let askers = match turn.as_mut().filter(|turn| turn.prompt == prompt) {
            Some(turn) => &mut turn.joined,
            None => match queue.iter_mut().find(|waiting| waiting.seq == prompt) {
                Some(waiting) => &mut waiting.askers,
                None => return Ok(false),
            },
        };
        if askers.len() >= self.bounds.pending_requests {
            return Err(too_many_pending());
        }
        askers.push(asker.clone());
        Ok(true)
    }
}

/// The turn of the prompt with that key, if it is the same prompt.
async fn find(
    store: &Store,
    session: &str,
    params: Option<&str>,
    key: &str,
) -> Result<Option<TurnRow>, Failure> {
    let Some(turn) = store.turn_of_key(session, key).await? else {
        return Ok(None);
    };
    let stored = event(store, &turn, turn.prompt).await?;
    let before = splice::member(&stored.raw, "params").and_then(prompt_of);
    if !is_same(before, params.and_then(prompt_of)) {
        let what = "`_meta.acpbox.idempotencyKey`: another prompt of this session had this key; give each prompt its own";
        return Err(Failure::invalid_params(what));
    }
    Ok(Some(turn))
}

fn prompt_of(params: &str) -> Option<&str> {
    splice::member(params, "prompt")
}

/// Whether two prompts say the same, however they are written.
fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return one == other;
    };
    let read = |text| serde_json::from_str::<Value>(text);
    one == other || matches!((read(one), read(other)), (Ok(one), Ok(other)) if one == other)
}

/// How a turn ended, as a response with another id.
async fn outcome(store: &Store, turn: &TurnRow, id: &str) -> Result<String, Failure> {
    let last = event(store, turn, turn.last.unwrap_or(turn.prompt)).await?;
    if last.kind == response_kind(methods::SESSION_PROMPT, false) {
        let (text, text_truncated) = reply(store, turn, last.seq).await?;
        let meta = PromptMeta {
            text,
            text_truncated,
            last_seq: last.seq,
            repeated: true,
        };
        return Ok(with_id(&with_meta(&last.raw, "result", &meta), id));
    }
    if last.kind == response_kind(methods::SESSION_PROMPT, true) {
        let line = with_id(&last.raw, id);
        // What the agent said stays as it said it.
        return Ok(match last.direction {
            Direction::Acpbox => with_hint(&line, NEW_KEY),
            _ => line,
        });
    }
    let end = splice::member(&last.raw, "params");
    let end: Option<TurnEnd> = end.and_then(|params| serde_json::from_str(params).ok());
    let what = end.map_or_else(|| "the turn was cut short".to_owned(), |end| end.detail);
    let failure = Failure::internal(Phase::Turn, what).hint(NEW_KEY);
    Ok(message::error(id, &failure.to_error_object()))
}

fn with_hint(line: &str, hint: &str) -> String {
    let data = splice::member(line, "error").and_then(|error| splice::member(error, "data"));
    let Some(data) = data.filter(|data| data.starts_with('{')) else {
        return line.to_owned();
    };
    let mut edits = splice::Edits::of(line);
    edits.set(data, "hint", Value::from(hint).to_string());
    edits.apply()
}

/// What the agent said in a turn, as the result of it told.
async fn reply(store: &Store, turn: &TurnRow, last: i64) -> Result<(String, bool), Failure> {
    let mut text = String::new();
    let Some(first) = turn.first else {
        return Ok((text, false));
    };
    let mut after = first - 1;
    loop {
        let page = EventPage {
            session: turn.session.to_string(),
            after: Some(after),
            before: Some(last),
            limit: PAGE_EVENTS,
            max_bytes: REPLY_BYTES,
            kinds: vec!["agent_message_chunk".into()],
        };
        let rows = store.events(page).await?;
        let Some(last) = rows.last() else {
            return Ok((text, false));
        };
        after = last.seq;
        for row in &rows {
            let update = splice::member(&row.raw, "params")
                .and_then(|params| splice::member(params, "update"));
            let chunk = update.and_then(|update| chunk_text(splice::member(update, "content")));
            let Some(chunk) = chunk else { continue };
            if text.len() + chunk.len() > REPLY_BYTES {
                return Ok((text, true));
            }
            text.push_str(&chunk);
        }
    }
}

/// The text of a chunk's content.
pub(super) fn chunk_text(content: Option<&str>) -> Option<std::borrow::Cow<'_, str>> {
    splice::member(content?, "text").and_then(message::string)
}

/// One event of a turn's session.
async fn event(store: &Store, turn: &TurnRow, seq: i64) -> Result<EventRow, Failure> {
    let page = EventPage {
        session: turn.session.to_string(),
        after: Some(seq - 1),
        before: Some(seq + 1),
        limit: 1,
        ..EventPage::default()
    };
    let found = store.events(page).await?.pop();
    found.ok_or_else(|| {
        let what = format!("event {seq} of the session `{}` is gone", turn.session);
        Failure::internal(Phase::Store, what)
    })
}
