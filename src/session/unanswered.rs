//! A question that nobody answers in time is refused, and all who were asked are
//! told that it is over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::permission::spelled;

impl Live {
    /// Starts the time that an answer may take. `token` ends it.
    pub(super) fn wait_for_answer(
        self: &Arc<Self>,
        id: &str,
        number: u64,
        token: CancellationToken,
    ) {
        let Some(patience) = self.permissions.unanswered else {
            return;
        };
        let (live, id) = (Arc::downgrade(self), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = token.cancelled() => return,
            }
            expire(&live, &id, number, patience).await;
        });
    }
}

async fn expire(live: &Weak<Live>, id: &str, number: u64, patience: Duration) {
    let Some(live) = live.upgrade() else { return };
    let refused = live
        .transact(|state, batch| {
            if state.ended.is_some() || !state.questions.remove_numbered(id, number) {
                return;
            }
            let reason = format!(
                "nobody answered within {} (permissions.unanswered)",
                spelled(patience)
            );
            live.deny(state, batch, id, &reason);
        })
        .await;
    if let Err(failure) = refused {
        live.end_with(failure);
    }
}
