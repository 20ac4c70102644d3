//! Who holds what: acpbox processes hold `flock`s on their sessions' leases and
//! their VMs' folders, and the kernel says so without a lock being taken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The processes that hold a lock on the file, ours included. Empty where
/// there is no file or `/proc/locks` cannot be read.
pub fn holders(path: &Path) -> Vec<u32> {
    let Ok(found) = std::fs::metadata(path) else {
        return Vec::new();
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut holders: Vec<u32> = locks
        .lines()
        .filter_map(|line| holder(line, found.ino()))
        .collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// `1: FLOCK  ADVISORY  WRITE 18654 fe:00:5653427 0 EOF`. A line with `->`
/// waits for a lock. Devices are not compared: some file systems show another
/// one here than `stat` does.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next() != Some("FLOCK") {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let place = fields.next()?;
    let held: u64 = place.rsplit(':').next()?.parse().ok()?;
    (held == inode).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn only_held_flocks_of_the_file_count() {
        let held = "1: FLOCK  ADVISORY  WRITE 18654 fe:00:5653427 0 EOF";
        assert_eq!(holder(held, 5653427), Some(18654));
        assert_eq!(holder(held, 5653428), None);
        let waits = "1: -> FLOCK  ADVISORY  WRITE 7 fe:00:5653427 0 EOF";
        assert_eq!(holder(waits, 5653427), None);
        let posix = "2: POSIX  ADVISORY  WRITE 7 fe:00:5653427 0 EOF";
        assert_eq!(holder(posix, 5653427), None);
        assert_eq!(holder("", 0), None);
    }
}
