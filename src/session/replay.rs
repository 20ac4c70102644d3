//! A stored transcript, sent to a client as it was seen.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::client::Client;
use crate::acp::Failure;
use crate::rpc::Framing;
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
    /// Where it ends, if not at the end.
    before: Option<i64>,
    read: usize,
}

/// A stretch of a stored transcript, read piece by piece, as lines.
pub struct Backlog {
    store: Store,
    session: String,
    /// Absent after an error.
    reading: Option<Reading>,
    is_begun: bool,
}

impl Backlog {
    /// A session's updates with numbers above `after`, up to `last`, as [`replay`]
    /// sends them.
    pub fn new(store: Store, session: &str, after: i64, last: i64) -> Backlog {
        Backlog {
            store,
            session: session.to_owned(),
            reading: Some(Reading {
                shown: Shown::new(session, Framing::Lines),
                after,
                before: Some(last.saturating_add(1)),
                read: 0,
            }),
            is_begun: false,
        }
    }

    /// The next messages, a line each, about a mebibyte; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(None);
        };
        if !self.is_begun && reading.after > 0 {
            reading = look_back(&self.store, &self.session, reading).await?;
        }
        self.is_begun = true;
        reading = read(&self.store, &self.session, reading).await?;
        if reading.read == 0 {
            return Ok(None);
        }
        let lines = reading.shown.take();
        self.reading = Some(reading);
        Ok(Some(lines))
    }
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
        before: None,
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
        before: reading.before,
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
