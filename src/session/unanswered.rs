//! A question that nobody answers in time is refused, and all who were asked are
//! told that it is over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::live::Live;
use super::permission::spelled;

impl Live {
    /// Starts the time that the answer to a question may take; it ends with the
    /// guard. `None` where it may take for ever.
    pub(super) fn wait_for_answer(self: &Arc<Self>, seq: i64) -> Option<DropGuard> {
        let patience = self.rules.current().unanswered?;
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        let live = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(patience) => expire(&live, seq, patience).await,
                () = token.cancelled() => {}
            }
        });
        Some(guard)
    }
}

async fn expire(live: &Weak<Live>, seq: i64, patience: Duration) {
    let Some(live) = live.upgrade() else { return };
    let refused = live
        .transact(|state, batch| {
            if state.ended.is_none() {
                let reason = format!(
                    "nobody answered within {} (permissions.unanswered)",
                    spelled(patience)
                );
                live.deny(state, batch, seq, &reason);
            }
        })
        .await;
    if let Err(failure) = refused {
        live.end_with(failure);
    }
}
