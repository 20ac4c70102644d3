//! A question that nobody answers in time is refused, and all who were asked are
//! told that it is over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::permission::spelled;
use super::state::{Batch, State};
use crate::acp::methods;
use crate::rpc::message;

impl Live {
    /// Starts the time that an answer may take. `token` ends it.
    pub(super) fn wait_for_answer(
        self: &Arc<Self>,
        id: &str,
        method: &str,
        number: u64,
        token: CancellationToken,
    ) {
        let Some(patience) = self.permissions.unanswered else {
            return;
        };
        let (live, id, method) = (Arc::downgrade(self), id.to_owned(), method.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = token.cancelled() => return,
            }
            expire(&live, &id, &method, number, patience).await;
        });
    }

    /// Takes a request back from the clients that were asked. `false` if none was.
    fn take_back(&self, state: &State, batch: &mut Batch, id: &str) -> bool {
        let mut was_asked = false;
        for client in &state.clients {
            let number = {
                let mut pending = client.pending();
                let found = pending.find(|request| {
                    &*request.id == id && request.session.as_ptr() == std::ptr::from_ref(self)
                });
                let Some(number) = found else { continue };
                pending.remove(number);
                number
            };
            was_asked = true;
            let params = format!("{{\"requestId\":{number}}}");
            let line = message::notification(methods::CANCEL_REQUEST, &params);
            batch.send(client, &[&line]);
        }
        was_asked
    }
}

async fn expire(live: &Weak<Live>, id: &str, method: &str, number: u64, patience: Duration) {
    let Some(live) = live.upgrade() else { return };
    let refused = live
        .transact(|state, batch| {
            if state.ended.is_some()
                || !state.questions.remove_numbered(id, number)
                || !live.take_back(state, batch, id)
            {
                return;
            }
            let reason = format!(
                "nobody answered within {} (permissions.unanswered)",
                spelled(patience)
            );
            live.fail_closed(state, batch, id, method, &reason);
        })
        .await;
    if let Err(failure) = refused {
        live.end_with(failure);
    }
}
