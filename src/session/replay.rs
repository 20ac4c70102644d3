//! A stored transcript, sent to a client as it was seen.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::client::Client;
use crate::acp::Failure;
use crate::store::{EventPage, Store, StoreError};
use crate::transcript::Shown;

/// Events read at a time, and how many bytes of messages are sent at once.
const PAGE_EVENTS: usize = 20_000;
const PAGE_BYTES: usize = 1024 * 1024;

/// How far back tool calls are looked for that had begun before what a client lacks.
const LOOK_BACK: i64 = 10_000;

/// A replay on its way: what is to be sent, and the number of the last event.
struct Reading {
    shown: Shown,
    after: i64,
    read: usize,
}

/// Sends a session's updates with a number above `after` to a client, in order;
/// its prompts appear as `user_message_chunk`s.
pub async fn replay(
    store: &Store,
    session: &str,
    after: i64,
    client: &Arc<Client>,
) -> Result<(), Failure> {
    let mut reading = Reading {
        shown: Shown::new(session, client.outbox.framing()),
        after,
        read: 0,
    };
    if after > 0 {
        reading = look_back(store, session, reading).await?;
    }
    reading = read(store, session, reading).await?;
    while reading.read > 0 {
        // The next page is read while this one is sent.
        let bytes = reading.shown.take();
        let sent = async {
            if bytes.is_empty() {
                Ok(())
            } else {
                client.outbox.send_encoded(bytes).await
            }
        };
        let (sent, next) = tokio::join!(sent, read(store, session, reading));
        if sent.is_err() {
            return Ok(());
        }
        reading = next?;
    }
    Ok(())
}

async fn read(store: &Store, session: &str, reading: Reading) -> Result<Reading, StoreError> {
    let page = EventPage {
        session: session.to_owned(),
        after: Some(reading.after),
        limit: PAGE_EVENTS,
        max_bytes: PAGE_BYTES,
        ..EventPage::default()
    };
    let reading = Reading { read: 0, ..reading };
    store
        .fold_events(page, reading, |reading, event| {
            reading.shown.feed(event);
            reading.after = event.seq;
            reading.read += 1;
            ControlFlow::Continue(())
        })
        .await
}

/// Learns which tool calls were under way when the client saw its last event.
async fn look_back(store: &Store, session: &str, reading: Reading) -> Result<Reading, StoreError> {
    let after = reading.after;
    let page = EventPage {
        session: session.to_owned(),
        after: Some(after.saturating_sub(LOOK_BACK)),
        before: Some(after.saturating_add(1)),
        limit: usize::MAX,
        max_bytes: usize::MAX,
        kinds: Vec::new(),
    };
    store
        .fold_events(page, reading, |reading, event| {
            reading.shown.skip(event);
            ControlFlow::Continue(())
        })
        .await
}
