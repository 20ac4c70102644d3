//! Every turn of every transcript ends exactly once, and says why. Looked at
//! whenever the folders of an acpbox go.

use std::collections::BTreeMap;
use std::path::Path;

use acpbox::store::{Direction, EventPage, EventRow, SessionFilter, Store};
use serde_json::Value;

/// What is known of one prompt of a transcript.
struct Prompt {
    /// Its id, as its client wrote it.
    id: String,
    /// Why acpbox ended its turn.
    reason: Option<String>,
    /// The kind of its response.
    response: Option<String>,
}

/// Checks the database of an acpbox that has ended. Turns may be open only if it
/// was killed.
pub fn check(database: &Path, was_killed: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Some tests damage it on purpose.
        let Ok(store) = Store::open(database) else {
            return;
        };
        let all = SessionFilter {
            limit: 1000,
            ..SessionFilter::default()
        };
        for session in store.sessions(all).await.unwrap_or_default() {
            let Ok(events) = store.events(page(&session.id)).await else {
                continue;
            };
            let stored: Vec<i64> = (store.open_turns(&session.id).await.unwrap().iter())
                .map(|turn| turn.prompt)
                .collect();
            let open = check_events(&events);
            assert_eq!(
                open, stored,
                "what is open, by the events and by the table, in {}",
                session.id
            );
            assert!(
                was_killed || open.is_empty(),
                "turns without an end in {}: {open:?}",
                session.id
            );
        }
        let _ = store.close().await;
    });
}

fn page(session: &str) -> EventPage {
    EventPage {
        session: session.to_owned(),
        limit: usize::MAX,
        max_bytes: usize::MAX,
        kinds: [
            "session/prompt",
            "session/prompt:result",
            "session/prompt:error",
            "_acpbox/turn/end",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..EventPage::default()
    }
}

/// Checks one transcript. Returns the numbers of prompts without an end.
pub fn check_events(events: &[EventRow]) -> Vec<i64> {
    let mut prompts = BTreeMap::new();
    for event in events {
        match event.kind.as_ref() {
            "session/prompt" if event.direction == Direction::Client => {
                let id = super::client::raw_id(&event.raw);
                prompts.insert(
                    event.seq,
                    Prompt {
                        id,
                        reason: None,
                        response: None,
                    },
                );
            }
            "_acpbox/turn/end" => {
                let end: Value = serde_json::from_str(&event.raw).unwrap();
                let seq = end["params"]["promptSeq"].as_i64().unwrap();
                let reason = end["params"]["reason"].as_str().unwrap().to_owned();
                let prompt = prompts
                    .get_mut(&seq)
                    .unwrap_or_else(|| panic!("an end of no prompt: {event:?}"));
                assert!(
                    prompt.response.is_none(),
                    "the reason comes after the response: {event:?}"
                );
                let before = prompt.reason.replace(reason);
                assert_eq!(before, None, "a second end: {event:?}");
            }
            "session/prompt:result" | "session/prompt:error" => {
                let id = super::client::raw_id(&event.raw);
                // Clients use ids again: the first that waits for this one.
                let waiting = prompts.values_mut().find(|prompt| {
                    let is_over = prompt.reason.as_deref() == Some("interrupted");
                    prompt.id == id && prompt.response.is_none() && !is_over
                });
                let prompt =
                    waiting.unwrap_or_else(|| panic!("a response to no prompt: {event:?}"));
                prompt.response = Some(event.kind.to_string());
            }
            _ => {}
        }
    }
    let mut open = Vec::new();
    for (seq, prompt) in prompts {
        match (prompt.reason.as_deref(), prompt.response.as_deref()) {
            (None, None) => open.push(seq),
            (None, Some(_))
            | (Some("interrupted"), None)
            | (Some("cancel_timeout"), Some("session/prompt:result"))
            | (Some("agent_exit" | "shutdown" | "sleep"), Some("session/prompt:error")) => {}
            wrong => panic!("prompt {seq} ended as {wrong:?}"),
        }
    }
    open
}
