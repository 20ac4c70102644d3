//! Which folder a session works in, and which folders are never shared.

use std::path::{Path, PathBuf};

/// System folders that are not shared, nor anything in them.
const SYSTEM: &[&str] = &[
    "/usr", "/etc", "/proc", "/sys", "/dev", "/boot", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
];

/// Folders that are not shared themselves, though folders in them are.
const SHARED_BY_ALL: &[&str] = &[
    "/",
    "/home",
    "/mnt",
    "/media",
    "/opt",
    "/run",
    "/run/user",
    "/run/media",
    "/srv",
    "/tmp",
    "/var",
    "/var/lib",
    "/var/tmp",
];

/// Folders of a home that hold credentials: not shared, nor anything in them.
const SECRET: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".password-store",
];

/// Folders of a home that hold much else: not shared themselves.
const BROAD: &[&str] = &[
    ".config",
    ".local",
    ".local/bin",
    ".local/lib",
    ".local/share",
    ".local/state",
    ".cache",
    "bin",
];

/// The folder that a session in `cwd` shares: the git top level above it, or
/// `cwd` itself. Both canonical. `forbid` says why a folder cannot be shared.
///
/// A git top level that cannot be shared (a home folder kept in git, say) is
/// passed over in favour of `cwd`; the error is for `cwd`.
pub(super) fn workspace(
    cwd: &Path,
    forbid: impl Fn(&Path) -> Option<String>,
) -> Result<PathBuf, String> {
    if let Some(top) = git_top_level(cwd)
        && forbid(&top).is_none()
    {
        return Ok(top);
    }
    match forbid(cwd) {
        None => Ok(cwd.to_path_buf()),
        Some(problem) => Err(problem),
    }
}

/// Why a folder is not shared unless a named VM says so; `None` when it may be.
pub(super) fn forbid(folder: &Path, home: &Path) -> Option<String> {
    let canonical_home = home.canonicalize();
    let home = canonical_home.as_deref().unwrap_or(home);
    let inside = |root: &&str| folder.starts_with(root);
    if SHARED_BY_ALL.iter().any(|path| folder == Path::new(path)) || SYSTEM.iter().any(inside) {
        return Some("a system folder is not shared with a VM".to_owned());
    }
    if home.starts_with(folder) {
        return Some("it is or holds your home folder, with your keys and settings".to_owned());
    }
    if SECRET
        .iter()
        .any(|name| folder.starts_with(home.join(name)))
    {
        return Some("it holds credentials".to_owned());
    }
    if BROAD.iter().any(|name| folder == home.join(name)) {
        return Some("it holds settings and programs of your home folder".to_owned());
    }
    None
}

/// The nearest folder at or above `folder` with a `.git`.
///
/// A submodule's own `.git` is a file that points into the folder above; there
/// the search goes on, since git in the submodule needs that folder.
fn git_top_level(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .find(|folder| {
            let git = folder.join(".git");
            match std::fs::symlink_metadata(&git) {
                Ok(found) if found.is_dir() => true,
                Ok(found) if found.is_file() => !is_submodule(folder, &git),
                _ => false,
            }
        })
        .map(Path::to_path_buf)
}

fn is_submodule(folder: &Path, git_file: &Path) -> bool {
    // Such a file is one short line; what is longer is not git's.
    if std::fs::metadata(git_file).is_ok_and(|found| found.len() > 8192) {
        return false;
    }
    let text = std::fs::read_to_string(git_file).unwrap_or_default();
    let Some(target) = text.strip_prefix("gitdir:") else {
        return false;
    };
    let Ok(target) = folder.join(target.trim()).canonicalize() else {
        return false;
    };
    let mut above = folder.ancestors().skip(1);
    above.any(|above| target.starts_with(above.join(".git/modules")))
}
