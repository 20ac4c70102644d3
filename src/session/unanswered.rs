//! A question that nobody answers in time is refused, and all who were asked are
//! told that it is over. So is one that was withdrawn.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::live::Live;
use super::permission::spelled;
use super::state::{Batch, State};

impl Live {
    /// Starts the time that the answer to a question may take; it ends with the
    /// guard. `None` where it may take for ever.
    pub(super) fn wait_for_answer(self: &Arc<Self>, seq: i64) -> Option<DropGuard> {
        let patience = self.rules.current().unanswered?;
        Some(self.after(patience, move |live, state, batch| {
            let reason = format!(
                "nobody answered within {} (permissions.unanswered)",
                spelled(patience)
            );
            live.deny(state, batch, seq, &reason);
        }))
    }

    /// Starts the time in which a client may say what became of a request that the
    /// agent has withdrawn; it ends with the guard.
    pub(super) fn wait_for_withdrawn(self: &Arc<Self>, seq: i64) -> DropGuard {
        self.after(self.bounds.cancel_grace, move |live, state, batch| {
            live.end_withdrawn(state, batch, seq);
        })
    }

    fn after(
        self: &Arc<Self>,
        patience: Duration,
        change: impl FnOnce(&Live, &mut State, &mut Batch) + Send + 'static,
    ) -> DropGuard {
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        let live = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(patience) => expire(&live, change).await,
                () = token.cancelled() => {}
            }
        });
        guard
    }
}

async fn expire(live: &Weak<Live>, change: impl FnOnce(&Live, &mut State, &mut Batch)) {
    let Some(live) = live.upgrade() else { return };
    let refused = live
        .transact(|state, batch| {
            if state.ended.is_none() {
                change(&live, state, batch);
            }
        })
        .await;
    if let Err(failure) = refused {
        live.end_with(failure);
    }
}
