//! Lease files that killed processes left behind.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

/// Files looked at in one start, so that it stays short; the rest has time.
const AT_ONCE: usize = 1000;

/// Removes the lease files in a folder that no process holds. A missed one does
/// no harm: whoever drives its session takes it over.
pub(super) fn remove_stale(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.take(AT_ONCE) {
        let path = entry.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        // Its holder may have removed it meanwhile, and another one made it anew.
        let named = rustix::fs::stat(&path).ok();
        let is_same = named
            .zip(rustix::fs::fstat(&file).ok())
            .is_some_and(|(named, held)| named.st_ino == held.st_ino);
        if lock.is_ok() && is_same {
            let _ = std::fs::remove_file(&path);
        }
    }
}
