//! Who holds what: acpbox processes hold `flock`s on their VMs' folders, as they
//! do on their sessions' leases.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::session::leases;

/// The processes that hold a lock on the file, ours included. Empty where
/// there is no file or `/proc/locks` cannot be read.
pub fn holders(path: &Path) -> Vec<u32> {
    let Ok(found) = std::fs::metadata(path) else {
        return Vec::new();
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut holders: Vec<u32> = locks
        .lines()
        .filter_map(leases::holder)
        .filter(|(inode, _)| *inode == found.ino())
        .map(|(_, pid)| pid)
        .collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}
