//! How what a session records gets into the database: before it is shown, and
//! nothing behind what could not be stored.

use super::live::Live;
use super::state::{Batch, EARLY_BYTES, State};
use crate::acp::{Failure, Phase};
use crate::rpc::message;
use crate::store::Rows;

/// What may be noted before it is committed without waiting for the relay.
const BACKLOG_BYTES: usize = 256 * 1024;

impl Live {
    /// Changes the state; commits what that recorded, then sends what it had to
    /// send, ahead of any later change. What is left over is the caller's.
    ///
    /// # Errors
    /// When the rows could not be committed. Nothing was sent then, and the agent
    /// is ended.
    pub(super) async fn transact<R>(
        &self,
        change: impl FnOnce(&mut State, &mut Batch) -> R,
    ) -> Result<R, Failure> {
        self.transact_in(&mut Batch::default(), change).await
    }

    /// [`Live::transact`], with what was to be sent left in `batch` on errors.
    pub(super) async fn transact_in<R>(
        &self,
        batch: &mut Batch,
        change: impl FnOnce(&mut State, &mut Batch) -> R,
    ) -> Result<R, Failure> {
        let order = self.order.lock().await;
        let commits = self.commits.lock().await;
        let permit = self.store.reserve().await?;
        let mut is_flooding = false;
        let (result, committed, last, row, news) = {
            let mut state = self.state();
            if let Some(lost) = state.lost.as_ref().filter(|_| !batch.is_last) {
                return Err(lost.failure.clone());
            }
            batch.through = state.next_seq - 1;
            state.show_started(batch);
            let result = change(&mut state, batch);
            let keeps_row = state.is_stored && !state.is_coming_back && state.lost.is_none();
            let row = (batch.row && keeps_row).then(|| state.row.clone());
            let mut events = std::mem::take(&mut state.backlog);
            events.append(&mut batch.events);
            let mut turns = std::mem::take(&mut state.turn_rows);
            turns.retain(|turn| !state.is_lost(turn.prompt));
            let news = super::news::of(&state, &events);
            let last = events.last().map(|event| event.seq);
            let committed = if !state.is_stored {
                is_flooding = !state.keep_early(events);
                None
            } else if events.is_empty() && turns.is_empty() {
                None
            } else {
                let rows = Rows {
                    session: batch.creates.take(),
                    events,
                    turns,
                };
                Some(permit.append_rows(rows, batch.durable))
            };
            (result, committed, last, row, news)
        };
        if let Some(committed) = committed
            && let Err(error) = committed.await
        {
            // An answer that cannot be stored is not shown, but nobody waits for ever.
            let failure = Failure::from(error);
            self.cannot_store(&failure);
            for (client, id) in std::mem::take(&mut batch.answered) {
                let line = message::error(&id, &failure.to_error_object());
                let _ = client.outbox.send(&line).await;
            }
            return Err(failure);
        }
        self.has_stored(last);
        drop(commits);
        if is_flooding {
            let what = format!(
                "the agent `{}` sent more than {EARLY_BYTES} bytes before its session began",
                self.agent_name
            );
            self.end_with(Failure::internal(Phase::Session, what));
        }
        self.deliver(batch).await;
        self.watch.tell(news);
        if let Some(row) = row
            && let Err(error) = self.store.update_session(&row).await
        {
            tracing::warn!(%error, "the session's row could not be updated");
        }
        drop(order);
        self.send_answers(std::mem::take(&mut batch.answers)).await;
        Ok(result)
    }

    /// Changes the state from the client's side. Nothing is shown, so nothing
    /// waits: what is recorded is committed with what comes next, or soon.
    pub(super) async fn note<R>(&self, change: impl FnOnce(&mut State, &mut Batch) -> R) -> R {
        let mut batch = Batch::default();
        let (result, waiting) = {
            let mut state = self.state();
            let result = change(&mut state, &mut batch);
            if state.is_stored {
                state.backlog.append(&mut batch.events);
            } else {
                // Of the client's, and few.
                state.keep_early(std::mem::take(&mut batch.events));
            }
            let waiting: usize = state.backlog.iter().map(|event| event.raw.len() + 1).sum();
            (result, waiting)
        };
        // A relay that waits for a slow client does not come to it.
        if waiting > BACKLOG_BYTES {
            // What was changed stands, and all who wait are told with the end.
            let _ = self.flush().await;
        } else if waiting > 0 {
            self.noted.notify_one();
        }
        self.send_answers(batch.answers).await;
        result
    }

    /// Commits what was noted.
    ///
    /// # Errors
    /// When that could not be committed. The agent is ended then.
    pub async fn flush(&self) -> Result<(), Failure> {
        let _commits = self.commits.lock().await;
        let permit = self.store.reserve().await?;
        let (committed, last) = {
            let mut state = self.state();
            if let Some(lost) = &state.lost {
                return Err(lost.failure.clone());
            }
            let backlog = std::mem::take(&mut state.backlog);
            let turns = std::mem::take(&mut state.turn_rows);
            if backlog.is_empty() && turns.is_empty() {
                return Ok(());
            }
            let last = backlog.last().map(|event| event.seq);
            (permit.append_with_turns(backlog, turns, false), last)
        };
        let committed = committed.await.map_err(Failure::from);
        match &committed {
            Ok(()) => self.has_stored(last),
            Err(failure) => self.cannot_store(failure),
        }
        committed
    }

    fn has_stored(&self, last: Option<i64>) {
        if let Some(last) = last {
            let mut state = self.state();
            if state.is_stored {
                state.stored = last;
            }
        }
    }

    /// Ends the agent, since events are lost: what came later would be recorded as
    /// if they had never been.
    fn cannot_store(&self, failure: &Failure) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.lose(failure);
            drop(state);
            self.restarts.lose(&self.id, failure);
            self.end_with(failure.clone());
        }
    }
}
