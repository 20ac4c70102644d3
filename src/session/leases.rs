//! Which sessions are live, in whatever process: acpbox processes hold `flock`s
//! on their sessions' leases, and the kernel says so without a lock being taken.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;

/// Files looked at in one start, so that it stays short; the rest has time.
const AT_ONCE: usize = 1000;

/// How often the kernel is asked before a file is taken to be free: it lists locks
/// some kilobytes at a time, and leaves one out where another went in between.
const LOOKS: usize = 3;

/// The live sessions by id, each with the process that drives it. `folder` is
/// where the leases are; see [`super::Registry::leases`].
pub fn held(folder: &Path) -> HashMap<String, u32> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return HashMap::new();
    };
    // A lease is a file only while its session is live, or after a kill.
    let mut files: Vec<(u64, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let inode = entry.metadata().ok()?.ino();
            Some((inode, entry.file_name().into_string().ok()?))
        })
        .collect();
    let mut held = HashMap::new();
    for _ in 0..LOOKS {
        if files.is_empty() {
            break;
        }
        let holders: HashMap<u64, u32> = all_holders().into_iter().collect();
        files.retain_mut(|(inode, id)| match holders.get(inode) {
            Some(holder) => {
                held.insert(std::mem::take(id), *holder);
                false
            }
            None => true,
        });
    }
    held
}

/// Who holds a lock on the file of this inode, ours included.
pub(super) fn holders_of(inode: u64) -> Vec<u32> {
    for _ in 0..LOOKS {
        let all = all_holders().into_iter();
        let found: Vec<u32> = (all.filter(|(of, _)| *of == inode))
            .map(|(_, pid)| pid)
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn all_holders() -> Vec<(u64, u32)> {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().filter_map(holder).collect()
}

/// The inode and the process of a line such as `1: FLOCK  ADVISORY  WRITE 18654
/// fe:00:5653427 0 EOF`. A line with `->` waits for a lock. Devices are not
/// compared: some file systems show another one here than `stat` does.
fn holder(line: &str) -> Option<(u64, u32)> {
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
