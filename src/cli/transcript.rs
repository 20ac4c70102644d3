//! Stored sessions as commands find and read them.

use super::exit::Usage;
use crate::store::{EventPage, EventRow, SessionRow, Store, StoreError};

/// Events read at a time, in rows and bytes of JSON.
const PAGE_EVENTS: usize = 2000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Sessions named when an id's beginning fits several.
const NAMED_SESSIONS: usize = 5;

/// The session of this id, or of the one id that begins so.
pub(super) async fn find(store: &Store, given: &str) -> anyhow::Result<SessionRow> {
    if let Some(row) = store.session(given).await? {
        return Ok(row);
    }
    let unknown = || {
        Usage(format!(
            "there is no session `{given}`; `acpbox sessions list` names those there are"
        ))
    };
    if given.is_empty() {
        return Err(unknown().into());
    }
    let given = given.to_ascii_lowercase();
    let mut rows = store
        .sessions_beginning_with(&given, NAMED_SESSIONS + 1)
        .await?;
    match rows.len() {
        0 => Err(unknown().into()),
        1 => Ok(rows.remove(0)),
        count => Err(ambiguous(&given, &rows, count).into()),
    }
}

fn ambiguous(given: &str, rows: &[SessionRow], count: usize) -> Usage {
    let mut text = format!("several sessions begin with `{given}`; give more of the id:");
    for row in rows.iter().take(NAMED_SESSIONS) {
        let title = row.title.as_deref().unwrap_or_default();
        text.push_str(&format!("\n  {} {title}", row.id));
    }
    if count > NAMED_SESSIONS {
        text.push_str("\n  …");
    }
    Usage(text)
}

/// Reads a session's events in order, also while they are being written.
pub(super) struct Follower {
    session: String,
    after: i64,
}

impl Follower {
    /// Begins with the event that follows number `after`.
    pub(super) fn new(session: &str, after: i64) -> Follower {
        Follower {
            session: session.to_owned(),
            after,
        }
    }

    /// The number of the last event that was read.
    pub(super) fn last_seq(&self) -> i64 {
        self.after
    }

    /// The next events; empty when there are no more for now.
    pub(super) async fn next(&mut self, store: &Store) -> Result<Vec<EventRow>, StoreError> {
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
