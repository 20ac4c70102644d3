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
    let mut holders = leases::holders_of(found.ino());
    holders.sort_unstable();
    holders.dedup();
    holders
}
