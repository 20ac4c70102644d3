//! A session's events, page by page.

use crate::store::{EventPage, EventRow, Store, StoreError};

/// Events read at a time, in rows and bytes of JSON.
const PAGE_EVENTS: usize = 2000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Reads a session's events in order, also while they are being written.
pub struct Follower {
    session: String,
    after: i64,
}

impl Follower {
    /// Begins with the event that follows number `after`.
    pub fn new(session: &str, after: i64) -> Follower {
        Follower {
            session: session.to_owned(),
            after,
        }
    }

    /// The number of the last event that was read.
    pub fn last_seq(&self) -> i64 {
        self.after
    }

    /// The next events; empty when there are no more for now.
    pub async fn next(&mut self, store: &Store) -> Result<Vec<EventRow>, StoreError> {
        let rows = store
            .events(EventPage {
                session: self.session.clone(),
                after: Some(self.after),
                limit: PAGE_EVENTS,
                max_bytes: PAGE_BYTES,
                ..EventPage::default()
            })
            .await?;
        if let Some(last) = rows.last() {
            self.after = last.seq;
        }
        Ok(rows)
    }
}
