//! Whether a folder, and all above it, is where only its owner decides what is there.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where others may rename what is there, they could put a socket of their own in the
/// place of one; where they may rename a folder above it, a folder of their own.
///
/// # Errors
/// Which folder it is about, and what to do.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    check_one(folder, folder)?;
    let real = folder.canonicalize().map_err(|error| error.to_string())?;
    // Also as it was named: a link in an open folder could be made to lead elsewhere.
    for above in folder.ancestors().chain(real.ancestors()) {
        if !above.as_os_str().is_empty() {
            check_one(above, folder)?;
        }
    }
    Ok(())
}

fn check_one(at: &Path, folder: &Path) -> Result<(), String> {
    let is_above = at != folder;
    let metadata = fs::metadata(at).map_err(|error| error.to_string())?;
    // Who owns a link in a sticky folder may replace it.
    let link = fs::symlink_metadata(at).map_err(|error| error.to_string())?;
    let name = at.display();
    for owner in [metadata.uid(), link.uid()] {
        if !is_trusted(owner) {
            return Err(match is_above {
                true => format!(
                    "{name} above it is another user's ({owner}), who could put another folder there; name another path"
                ),
                false => format!("its folder is another user's ({owner}); name another path"),
            });
        }
    }
    if may_others_rename(&metadata, is_above) {
        return Err(match is_above {
            true => format!(
                "others may write in {name} above it, and put another folder there; chmod go-w {name}, or name another path"
            ),
            false => {
                format!("others may write in its folder; chmod go-w {name}, or name another path")
            }
        });
    }
    Ok(())
}

/// This user and root. In a namespace that does not know root, nobody is root.
fn is_trusted(owner: u32) -> bool {
    let is_root = owner == 0 || (owner == overflow() && !knows_everybody());
    is_root || owner == rustix::process::getuid().as_raw()
}

/// Renaming what is not theirs, which a sticky folder does not let them.
fn may_others_rename(metadata: &Metadata, is_above: bool) -> bool {
    let mode = metadata.mode();
    if mode & libc::S_ISVTX != 0 {
        return false;
    }
    // A group of one's own, as many systems give every user with a umask of 002.
    let own = rustix::process::getuid().as_raw();
    let is_own_group = metadata.gid() == own && metadata.uid() == own;
    let others = match is_above && is_own_group {
        true => 0o002,
        false => 0o022,
    };
    mode & others != 0
}

/// Whom files belong to whose owner has no number here (user_namespaces(7)).
fn overflow() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65534)
}

/// Whether every user of the system has a number here.
fn knows_everybody() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    fields.nth(2).is_none_or(|count| count == "4294967295")
}
