//! Turns that nobody drives any more: what a killed acpbox left open, and
//! prompts whose agent could not be started again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::host::Host;
use super::state::{QueuedPrompt, now};
use super::turns::with_id;
use crate::acp::Failure;
use crate::acp::extension::{TurnEnd, TurnEndReason};
use crate::acp::methods::{self, response_kind};
use crate::rpc::message;
use crate::store::{Direction, EventRow, StoreError, TurnRow};

impl Host {
    /// Records that the turns ended which a killed process left open. The
    /// caller has the session's lease and has not begun to write.
    pub async fn end_interrupted(&self, session: &str) -> Result<(), StoreError> {
        let left = self.restarts.left(session);
        let mut open = self.store.open_turns(session).await?;
        open.retain(|turn| !left.contains(&turn.prompt));
        if open.is_empty() {
            self.restarts.settle(session);
            return Ok(());
        }
        let lost = self.restarts.lost(session);
        let next_seq = self.store.last_seq(session).await? + 1;
        let ends = open.iter().zip(next_seq..);
        let ends = ends.map(|(turn, seq)| interruption(turn, seq, lost.as_deref()));
        let ends = ends.collect();
        self.append_ends(open, ends).await?;
        self.restarts.settle(session);
        Ok(())
    }

    /// Answers prompts that waited for an agent which could not be started.
    pub(super) async fn refuse_left(
        &self,
        session: &str,
        left: VecDeque<QueuedPrompt>,
        failure: &Failure,
    ) {
        let line = message::error("null", &failure.to_error_object());
        if let Err(error) = self.record_refusals(session, &left, &line).await {
            // The next who drives the session finds them open.
            tracing::warn!(%error, session, "the end of waiting prompts was not recorded");
        }
        for asker in left.iter().flat_map(|prompt| &prompt.askers) {
            let _ = asker.client.outbox.send(&with_id(&line, &asker.id)).await;
        }
    }

    async fn record_refusals(
        &self,
        session: &str,
        left: &VecDeque<QueuedPrompt>,
        line: &str,
    ) -> Result<(), Failure> {
        let _lease = self.lease(session).await?;
        let next_seq = self.store.last_seq(session).await? + 1;
        let session: Arc<str> = session.into();
        let turn = |prompt: &QueuedPrompt| TurnRow {
            session: Arc::clone(&session),
            prompt: prompt.seq,
            first: None,
            last: None,
            key: None,
        };
        let end = |(prompt, seq): (&QueuedPrompt, i64)| {
            let id = prompt.askers.first().map_or("null", |asker| &asker.id);
            EventRow {
                session: Arc::clone(&session),
                seq,
                time: now(),
                direction: Direction::Acpbox,
                kind: response_kind(methods::SESSION_PROMPT, true),
                raw: with_id(line, id).into(),
            }
        };
        let ends = left.iter().zip(next_seq..).map(end).collect();
        Ok(self
            .append_ends(left.iter().map(turn).collect(), ends)
            .await?)
    }

    /// Appends the events that end these turns, in the same order.
    async fn append_ends(
        &self,
        mut turns: Vec<TurnRow>,
        ends: Vec<EventRow>,
    ) -> Result<(), StoreError> {
        for (turn, end) in turns.iter_mut().zip(&ends) {
            turn.last = Some(end.seq);
        }
        let permit = self.store.reserve().await?;
        permit.append_with_turns(ends, turns, true).await
    }
}

/// The event that ends a turn which a killed process left open, or whose end could
/// not be stored because of what `lost` says.
pub fn interruption(turn: &TurnRow, seq: i64, lost: Option<&str>) -> EventRow {
    let detail = match (lost, turn.first) {
        (Some(why), _) => format!("the rest of the turn could not be stored: {why}"),
        (None, Some(_)) => "acpbox was killed during the turn".to_owned(),
        (None, None) => "acpbox was killed before the prompt's turn had begun".to_owned(),
    };
    let params = TurnEnd {
        session_id: turn.session.to_string(),
        prompt_seq: turn.prompt,
        reason: TurnEndReason::Interrupted,
        detail,
    };
    let params = serde_json::to_string(&params).unwrap_or_else(|_| "{}".into());
    EventRow {
        session: Arc::clone(&turn.session),
        seq,
        time: now(),
        direction: Direction::Acpbox,
        kind: methods::TURN_END.into(),
        raw: message::notification(methods::TURN_END, &params).into(),
    }
}
