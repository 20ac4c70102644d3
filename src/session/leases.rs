//! Which sessions are live, in whatever process: acpbox processes hold `flock`s
//! on their sessions' leases, and the kernel says so without a lock being taken.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;

/// Files looked at in one start, so that it stays short; the rest has time.
const AT_ONCE: usize = 1000;

/// The live sessions by id, each with the process that drives it. `folder` is
/// where the leases are; see [`super::Registry::leases`].
pub fn held(folder: &Path) -> HashMap<String, u32> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return HashMap::new();
    };
    // A lease is a file only while its session is live, or after a kill.
    let files: Vec<(u64, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let inode = entry.metadata().ok()?.ino();
            Some((inode, entry.file_name().into_string().ok()?))
        })
        .collect();
    if files.is_empty() {
        return HashMap::new();
    }
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let holders: HashMap<u64, u32> = locks.lines().filter_map(holder).collect();
    let held = files.into_iter().filter_map(|(inode, id)| {
        let holder = holders.get(&inode)?;
        Some((id, *holder))
    });
    held.collect()
}

/// The inode and the process of a line such as `1: FLOCK  ADVISORY  WRITE 18654
/// fe:00:5653427 0 EOF`. A line with `->` waits for a lock. Devices are not
/// compared: some file systems show another one here than `stat` does.
pub fn holder(line: &str) -> Option<(u64, u32)> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next() != Some("FLOCK") {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let place = fields.next()?;
    let inode = place.rsplit(':').next()?.parse().ok()?;
    Some((inode, pid))
}

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

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn only_held_flocks_count() {
        let held = "1: FLOCK  ADVISORY  WRITE 18654 fe:00:5653427 0 EOF";
        assert_eq!(holder(held), Some((5_653_427, 18654)));
        let waits = "1: -> FLOCK  ADVISORY  WRITE 7 fe:00:5653427 0 EOF";
        assert_eq!(holder(waits), None);
        let posix = "2: POSIX  ADVISORY  WRITE 7 fe:00:5653427 0 EOF";
        assert_eq!(holder(posix), None);
        assert_eq!(holder(""), None);
    }
}
