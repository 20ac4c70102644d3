//! Finding bubblewrap and knowing what it can.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::vm::BootError;

/// How to get it, for errors and `acpbox doctor`.
pub(super) const MEND: &str = "install bubblewrap, for example with `apt-get install bubblewrap`, \
                               `dnf install bubblewrap` or `pacman -S bubblewrap`";

/// The first version with `--disable-userns`.
pub(super) const NEEDED: (u32, u32) = (0, 8);

/// Fixed places before the PATH: a workspace's own `bwrap` must not be run.
const PLACES: [&str; 4] = [
    "/usr/bin/bwrap",
    "/bin/bwrap",
    "/usr/local/bin/bwrap",
    "/run/current-system/sw/bin/bwrap",
];

pub(super) fn find() -> Result<PathBuf, BootError> {
    PLACES
        .into_iter()
        .map(PathBuf::from)
        .find(|place| place.is_file())
        .or_else(|| which::which("bwrap").ok())
        .ok_or_else(|| BootError::Host {
            what: "bubblewrap (`bwrap`), which starts VMs of driver `namespace`, is not installed"
                .to_owned(),
            mend: MEND.to_owned(),
        })
}

/// Major and minor version; `None` when it does not say.
pub(super) fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
