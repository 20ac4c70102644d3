//! A stored transcript, read for a client as it is to see it.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::acp::{Failure, methods};
use crate::rpc::Framing;
use crate::store::{EventPage, EventRow, Store};
use crate::transcript::Shown;

/// Events read at a time, and how many bytes of messages are sent at once.
const PAGE_EVENTS: usize = 20_000;
const PAGE_BYTES: usize = 1024 * 1024;

/// How far back tool calls are looked for that had begun before what a client lacks.
const LOOK_BACK: i64 = 10_000;

/// A transcript on its way to a client.
pub(super) struct Reading {
    /// What is to be sent.
    pub(super) shown: Shown,
    /// What is for the client alone, each with the event behind which it belongs.
    pub(super) own: VecDeque<(i64, Vec<u8>)>,
    /// The last event that was read.
    pub(super) after: i64,
    /// The last event that is to be read.
    pub(super) until: i64,
}

impl Reading {
    /// Adds what belongs before an event.
    pub(super) fn show_own(&mut self, before: i64) {
        while let Some((_, bytes)) = self.own.pop_front_if(|(behind, _)| *behind < before) {
            self.shown.append(&bytes);
        }
    }
}

/// A stretch of a stored transcript, read piece by piece, as lines.
pub struct Backlog {
    store: Store,
    session: String,
    /// Absent after an error, and at the end.
    reading: Option<Reading>,
    is_begun: bool,
}

impl Backlog {
    /// What a client is shown of a session's events with numbers above `after`, up
    /// to `last`.
    pub fn new(store: Store, session: &str, after: i64, last: i64) -> Backlog {
        Backlog {
            store,
            session: session.to_owned(),
            reading: Some(Reading {
                shown: Shown::new(session, Framing::Lines),
                own: VecDeque::new(),
                after,
                until: last,
            }),
            is_begun: false,
        }
    }

    /// The next messages, a line each, about a mebibyte; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(None);
        };
        if !self.is_begun {
            let (store, session) = (&self.store, &self.session);
            reading.shown = look_back(store, session, reading.shown, reading.after).await?;
            self.is_begun = true;
        }
        if reading.after >= reading.until {
            return Ok(None);
        }
        reading = read(&self.store, &self.session, reading).await?;
        let lines = reading.shown.take();
        self.reading = Some(reading);
        Ok(Some(lines))
    }
}

/// Reads a page; `after` is then the last event of it, or `until` if no more are left.
pub(super) async fn read(
    store: &Store,
    session: &str,
    mut reading: Reading,
) -> Result<Reading, Failure> {
    if reading.after >= reading.until {
        return Ok(reading);
    }
    show_later(store, session, &mut reading.shown, reading.after).await?;
    let until = reading.until;
    let page = EventPage {
        session: session.to_owned(),
        after: Some(reading.after),
        before: Some(until.saturating_add(1)),
        limit: PAGE_EVENTS,
        max_bytes: PAGE_BYTES,
        ..EventPage::default()
    };
    let (mut reading, count) = store
        .fold_events(page, (reading, 0), |(reading, count), event| {
            reading.show_own(event.seq);
            reading.shown.feed(event);
            reading.after = event.seq;
            *count += 1;
            ControlFlow::Continue(())
        })
        .await?;
    if count == 0 {
        reading.after = until;
    }
    Ok(reading)
}

/// Tells which prompts behind `after` are shown where their turn begins, and what
/// those say that came before.
async fn show_later(
    store: &Store,
    session: &str,
    shown: &mut Shown,
    after: i64,
) -> Result<(), Failure> {
    let later = store
        .prompts_begun_by(session, after, methods::TURN_START)
        .await?;
    shown.show_later(later.iter().copied());
    for seq in later {
        if seq <= after
            && !shown.knows_prompt(seq)
            && let Some(prompt) = event(store, session, seq).await?
        {
            shown.feed(prompt.borrowed());
        }
    }
    Ok(())
}

/// One event of a session's.
pub(super) async fn event(
    store: &Store,
    session: &str,
    seq: i64,
) -> Result<Option<EventRow>, Failure> {
    let page = EventPage {
        session: session.to_owned(),
        after: Some(seq - 1),
        before: Some(seq + 1),
        limit: 1,
        ..EventPage::default()
    };
    Ok(store.events(page).await?.pop())
}

/// Learns which tool calls were under way when the client saw its last event.
pub(super) async fn look_back(
    store: &Store,
    session: &str,
    shown: Shown,
    after: i64,
) -> Result<Shown, Failure> {
    if after <= 0 {
        return Ok(shown);
    }
    let page = EventPage {
        session: session.to_owned(),
        after: Some(after.saturating_sub(LOOK_BACK)),
        before: Some(after.saturating_add(1)),
        limit: usize::MAX,
        max_bytes: usize::MAX,
        kinds: Vec::new(),
    };
    let shown = store.fold_events(page, shown, |shown, event| {
        shown.skip(event);
        ControlFlow::Continue(())
    });
    Ok(shown.await?)
}
