//! Room in the writer's queue, and what is appended through it.

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use super::rows::{EventRow, Rows, TurnRow};
use super::writer::{Job, Shared};

/// Room in the writer's bounded queue. Sending does not wait, so sequence
/// numbers can be given out and rows sent under one short lock.
pub struct Permit<'a> {
    pub(super) place: mpsc::Permit<'a, Job>,
    pub(super) shared: &'a Shared,
}

impl Permit<'_> {
    /// Commits a few rows at once where nothing else waits, or queues them, to be
    /// committed together and in order. Rows may be of any sessions. The future ends when they are committed (and, with `durable`, on disk, with
    /// all that was committed before). Dropping it does not withdraw them.
    ///
    /// Errors: `UnknownSession`, `Sqlite` for a sequence number that is taken,
    /// `Full`, `Busy`; none of the rows is stored then.
    pub fn append(
        self,
        events: Vec<EventRow>,
        durable: bool,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        self.append_with_turns(events, Vec::new(), durable)
    }

    /// [`Permit::append`], with what the events begin and end.
    pub fn append_with_turns(
        self,
        events: Vec<EventRow>,
        turns: Vec<TurnRow>,
        durable: bool,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let rows = Rows {
            session: None,
            events,
            turns,
        };
        self.append_rows(rows, durable)
    }

    /// [`Permit::append_with_turns`], which may make the session too.
    pub fn append_rows(
        self,
        rows: Rows,
        durable: bool,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        self.shared.counter.count(&rows.events, &rows.turns);
        if !durable && self.shared.append_at_once(&rows) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (reply, answer) = oneshot::channel();
        self.shared.job_sent();
        self.place.send(Job::Append {
            rows,
            durable,
            reply,
        });
        Box::pin(async move { answer.await.map_err(|_| StoreError::Stopped)? })
    }
}
