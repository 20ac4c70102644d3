//! A stored transcript as a client would have seen it.

use std::sync::Arc;

use super::client::Client;
use super::state::with_meta;
use crate::acp::Failure;
use crate::acp::extension::UpdateMeta;
use crate::acp::methods;
use crate::rpc::{message, splice};
use crate::store::{Direction, EventPage, EventRow, Store};

/// Events read at a time.
const PAGE_EVENTS: usize = 2000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Sends a session's updates with a number above `after` to a client, in order;
/// its prompts appear as `user_message_chunk`s.
pub async fn replay(
    store: &Store,
    session: &str,
    after: i64,
    client: &Arc<Client>,
) -> Result<(), Failure> {
    let mut after = after;
    loop {
        let page = EventPage {
            session: session.to_owned(),
            after: Some(after),
            limit: PAGE_EVENTS,
            max_bytes: PAGE_BYTES,
            ..EventPage::default()
        };
        let rows = store.events(page).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.seq;
        let mut bytes = Vec::new();
        for row in &rows {
            for line in shown(row) {
                client.outbox.framing().encode(&[&line], &mut bytes);
            }
        }
        if !bytes.is_empty() && client.outbox.send_encoded(bytes).await.is_err() {
            return Ok(());
        }
    }
}

/// The updates that an event is to a client.
pub fn shown(row: &EventRow) -> Vec<String> {
    let is_update =
        splice::member(&row.raw, "method").is_some_and(|method| method == "\"session/update\"");
    if row.direction == Direction::Agent && is_update {
        return vec![with_meta(&row.raw, "params", &UpdateMeta { seq: row.seq })];
    }
    if row.direction == Direction::Client && row.kind == methods::SESSION_PROMPT {
        return prompt_chunks(row);
    }
    Vec::new()
}

fn prompt_chunks(row: &EventRow) -> Vec<String> {
    let prompt =
        splice::member(&row.raw, "params").and_then(|params| splice::member(params, "prompt"));
    let blocks: Vec<&serde_json::value::RawValue> = prompt
        .and_then(|prompt| serde_json::from_str(prompt).ok())
        .unwrap_or_default();
    let chunk = |block: &&serde_json::value::RawValue| {
        let params = format!(
            r#"{{"_meta":{{"acpbox":{{"seq":{}}}}},"sessionId":"{}","update":{{"sessionUpdate":"user_message_chunk","content":{}}}}}"#,
            row.seq,
            row.session,
            block.get()
        );
        message::notification(methods::SESSION_UPDATE, &params)
    };
    blocks.iter().map(chunk).collect()
}
