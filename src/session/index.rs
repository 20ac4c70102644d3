//! Keeps transcripts searchable: behind each turn in the background, and what a
//! kill or an older acpbox left behind when somebody searches.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::store::{
    Document, EventPage, EventRow, IndexStep, Indexed, Store, StoreError, UnindexedSession,
};
use crate::transcript::documents::Documents;

/// Events read at a time.
const PAGE_EVENTS: usize = 1000;
const PAGE_BYTES: usize = 1024 * 1024;

/// Text that one step of the writer takes, about: some 10 ms of its time.
const STEP_BYTES: usize = 32 * 1024;

/// Events without text, after which it is noted that they have none.
const SILENT_EVENTS: i64 = 10_000;

/// Sessions asked for at a time.
const PAGE_SESSIONS: usize = 100;

/// The end of a turn is left alone for so long: its client comes first, and
/// several turns may end together.
const SETTLING: Duration = Duration::from_millis(100);

/// How long acpbox stays for it when it ends.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// Others who index the same sessions are waited for so often.
const ROUNDS: usize = 3;

/// Indexes in the background until it is stopped or dropped.
pub struct Indexer {
    store: Store,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Indexer {
    /// Outside of a runtime nothing is done in the background.
    pub fn start(store: Store) -> Indexer {
        let background = store.clone();
        let runtime = tokio::runtime::Handle::try_current().ok();
        let task = runtime.map(|runtime| runtime.spawn(follow(background)));
        Indexer {
            store,
            task: Mutex::new(task),
        }
    }

    /// Ends the background's work with a last short round. Call before the store is closed.
    pub async fn stop(&self) {
        self.abort();
        if let Err(error) = catch_up(&self.store, LAST_PATIENCE).await {
            tracing::debug!(%error, "the last turns were not indexed; the next search does it");
        }
    }

    fn abort(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.abort();
    }
}

async fn follow(store: Store) {
    loop {
        // Half of the time is left to others, however much there is to do.
        if let Err(error) = all(&store, None, Pace::Gentle).await {
            tracing::debug!(%error, "not everything could be indexed");
        }
        store.synced().await;
        tokio::time::sleep(SETTLING).await;
    }
}

/// Indexes what is left, the newest sessions first. False if that took longer
/// than `patience`.
///
/// # Errors
/// The first of those that some sessions met; the others are indexed all the same.
pub async fn catch_up(store: &Store, patience: Duration) -> Result<bool, StoreError> {
    all(store, Some(Instant::now() + patience), Pace::Full).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    Gentle,
}

/// How it went with one session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Another is at it, or it is gone.
    Elsewhere,
    OutOfTime,
}

async fn all(store: &Store, deadline: Option<Instant>, pace: Pace) -> Result<bool, StoreError> {
    let mut failure = None;
    let mut is_elsewhere = false;
    for _ in 0..ROUNDS {
        is_elsewhere = false;
        let mut below = i64::MAX;
        loop {
            let sessions = store.unindexed(below, PAGE_SESSIONS).await?;
            let Some(last) = sessions.last() else { break };
            below = last.key;
            for session in &sessions {
                match one(store, session, deadline, pace).await {
                    Ok(Outcome::Done) => {}
                    Ok(Outcome::Elsewhere) => is_elsewhere = true,
                    Ok(Outcome::OutOfTime) => return failure.map_or(Ok(false), Err),
                    Err(error) => {
                        tracing::debug!(%error, session = session.id, "could not be indexed");
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        if !is_elsewhere {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    failure.map_or(Ok(!is_elsewhere), Err)
}

async fn one(
    store: &Store,
    session: &UnindexedSession,
    deadline: Option<Instant>,
    pace: Pace,
) -> Result<Outcome, StoreError> {
    let mut from = session.indexed;
    let mut documents = Documents::after(from.settled);
    let mut after = from.settled;
    loop {
        let started = Instant::now();
        if deadline.is_some_and(|deadline| started >= deadline) {
            return Ok(Outcome::OutOfTime);
        }
        let rows = store
            .events(EventPage {
                session: session.id.clone(),
                after: Some(after),
                limit: PAGE_EVENTS,
                max_bytes: PAGE_BYTES,
                ..EventPage::default()
            })
            .await?;
        let is_end = rows.is_empty();
        after = rows.last().map_or(after, |last| last.seq);
        let (returned, found) = match is_end {
            true => (documents, Vec::new()),
            false => read(documents, rows).await?,
        };
        documents = returned;
        let settled = documents.settled();
        for (to, documents) in steps(found, settled, &mut documents, is_end.then_some(after)) {
            if documents.is_empty() && !is_end && to.settled - from.settled < SILENT_EVENTS {
                // The step that follows keeps it.
                continue;
            }
            let step = IndexStep {
                session: session.id.clone(),
                from,
                to,
                documents,
            };
            if !store.index(step).await? {
                return Ok(Outcome::Elsewhere);
            }
            from = to;
        }
        if is_end {
            return Ok(Outcome::Done);
        }
        if pace == Pace::Gentle {
            tokio::time::sleep(started.elapsed()).await;
        }
    }
}

/// Reads a page of events on a thread where that keeps nobody waiting.
async fn read(
    mut documents: Documents,
    rows: Vec<EventRow>,
) -> Result<(Documents, Vec<Document>), StoreError> {
    let reading = tokio::task::spawn_blocking(move || {
        rows.iter().for_each(|row| documents.feed(row));
        let found = documents.take();
        (documents, found)
    });
    reading.await.map_err(|_| StoreError::Stopped)
}

/// Divides documents among steps of bounded size. At the end of the transcript,
/// at event `end`, what is still being said is added for the time being.
fn steps(
    found: Vec<Document>,
    settled: i64,
    documents: &mut Documents,
    end: Option<i64>,
) -> Vec<(Indexed, Vec<Document>)> {
    let mut steps = Vec::new();
    let mut step: Vec<Document> = Vec::new();
    let mut bytes = 0;
    for document in found {
        // Documents of one event stay together: a step ends between two events.
        if bytes >= STEP_BYTES && step.last().is_some_and(|last| last.seq < document.seq) {
            let border = document.seq - 1;
            let to = Indexed {
                settled: border,
                seen: border,
            };
            steps.push((to, std::mem::take(&mut step)));
            bytes = 0;
        }
        bytes += document.text.len();
        step.push(document);
    }
    let mut seen = settled;
    if let Some(end) = end {
        step.extend(documents.finish());
        seen = end;
    }
    steps.push((Indexed { settled, seen }, step));
    steps
}
