//! The connection, with what came over it while something else was waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::acp::extension::{Event, EventDirection, EventsResponse};
use crate::cli::client::{Client, Ended, Incoming};
use crate::cli::run::failure::failure_of;
use crate::rpc::splice;
use crate::store::{Direction, EventRow};

/// How long the server may take to answer a page.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);

/// A connection, and what came while something else was waited for.
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) unread: VecDeque<Incoming>,
}

impl Line {
    /// Sends a request and waits for its raw result; the rest waits in `unread`.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        params: &serde_json::Value,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let request = self.client.request(method, &params.to_string()).await?;
        let until = Instant::now() + patience;
        loop {
            let received = tokio::time::timeout_at(until, self.client.receive()).await;
            // A server that is silent for so long is as good as gone.
            let messages = received.map_err(|_| Ended)??;
            let mut answer = None;
            for message in messages {
                match message {
                    Incoming::Response { id, outcome } if id == request => answer = Some(outcome),
                    other => self.unread.push_back(other),
                }
            }
            match answer {
                Some(Ok(result)) => return Ok(result),
                Some(Err(error)) => return Err(failure_of(&error).into()),
                None => {}
            }
        }
    }

    pub(super) async fn events(
        &mut self,
        params: &serde_json::Value,
    ) -> anyhow::Result<EventsResponse> {
        let result = self
            .ask("_acpbox/session/events", params, PAGE_PATIENCE)
            .await?;
        Ok(serde_json::from_str(&result)?)
    }
}

/// A prompt of this client's.
pub(super) struct Prompt {
    /// Its name for the server, which lets nothing run twice.
    pub(super) key: String,
    pub(super) text: String,
    /// The request, on the present connection.
    pub(super) request: u64,
}

impl Prompt {
    pub(super) fn params(&self, session: &str) -> String {
        json!({
            "sessionId": session,
            "prompt": [{ "type": "text", "text": self.text }],
            "_meta": { "acpbox": { "idempotencyKey": self.key } },
        })
        .to_string()
    }
}

/// An event as it is stored.
pub(super) fn row(session: &str, event: Event) -> EventRow {
    EventRow {
        session: Arc::from(session),
        seq: event.seq,
        time: event.time,
        direction: match event.direction {
            EventDirection::Client => Direction::Client,
            EventDirection::Agent => Direction::Agent,
            EventDirection::Acpbox => Direction::Acpbox,
        },
        kind: event.kind.into(),
        raw: event.message.get().into(),
    }
}

/// The number of another client's prompt, and who sent it.
pub(super) fn sender(params: &str) -> Option<(i64, String)> {
    #[derive(Deserialize)]
    struct Ours {
        seq: i64,
        from: String,
    }
    let meta = splice::member(params, "_meta")?;
    let ours: Ours = serde_json::from_str(splice::member(meta, "acpbox")?).ok()?;
    Some((ours.seq, ours.from))
}
