//! A migration of a large file takes minutes: it says that it runs, and how far it is.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::open::beside;
use super::schema;

/// Smaller files are migrated within a second or so.
const LARGE_BYTES: u64 = 64 << 20;

/// How often it says how far it is.
const PAUSE: Duration = Duration::from_secs(5);

/// What a migration writes to the log for each page that the file had, about:
/// events are written anew, and their old pages overwritten.
const WRITTEN_PER_PAGE: u64 = 2;

/// Whether whoever waits for a migration of this file is to be told.
pub(super) fn is_large(path: &Path) -> bool {
    bytes(path) >= LARGE_BYTES
}

/// Runs the migration of a large file whose log is empty.
pub(super) fn tell<T, E: std::fmt::Display>(
    path: &Path,
    found: i64,
    migrate: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let name = &path.display();
    let before = bytes(path);
    tracing::warn!(
        "the database {name} ({} MiB) is brought up to date, from schema {found} to {}: this is done \
         once, and takes a while and up to {WRITTEN_PER_PAGE} times its space. If it is ended \
         meanwhile, the file is as before, and the next start begins anew",
        before >> 20,
        schema::VERSION
    );
    let began = Instant::now();
    let outcome = std::thread::scope(|scope| {
        // Nothing is sent: the end of the migration closes it.
        let (running, ended) = sync_channel::<()>(0);
        scope.spawn(move || {
            while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let written = bytes(&beside(path, "-wal"));
                let percent = (written * 100 / (before * WRITTEN_PER_PAGE)).min(99);
                tracing::warn!("the database {name} is brought up to date: about {percent} %");
            }
        });
        let outcome = migrate();
        drop(running);
        outcome
    });
    let seconds = began.elapsed().as_secs();
    match &outcome {
        Ok(_) => tracing::warn!("the database {name} is up to date, after {seconds} s"),
        Err(error) => {
            tracing::warn!("the database {name} is as before, after {seconds} s: {error}");
        }
    }
    outcome
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}
