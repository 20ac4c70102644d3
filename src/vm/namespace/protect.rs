//! Which names of the workspaces are read-only in the guest.
//!
//! A name is protected by a read-only mount on itself. A folder above it
//! inside the workspace gets a writable mount on itself, because a mount point
//! cannot be renamed: else the guest would move the whole folder aside and put
//! its own in place. Nothing is ever followed out of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::git::{self, Repository};
use super::placeholder::is_hollow;
use super::sentinel::Watched;
use super::workspace::Shares;
use crate::vm::BootError;

#[derive(Debug, Default)]
pub(super) struct Protection {
    /// Host paths to mount on themselves, parents first; `true` is writable.
    mounts: BTreeMap<PathBuf, bool>,
    /// Names to be made before the mounts and removed afterwards.
    pub(super) hollow: BTreeSet<Hollow>,
    /// Names that no mount can hold.
    pub(super) watched: BTreeSet<Watched>,
    pub(super) warnings: Vec<String>,
}

/// A name that is absent, or empty and so perhaps another guest's placeholder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hollow {
    pub(super) path: PathBuf,
    /// An empty file, for git's own, or a `.gitignore` that ignores itself; else an
    /// empty folder. Git sees none of them in a work tree.
    pub(super) is_file: bool,
}

impl Protection {
    /// Host paths with whether they stay writable, parents first. Whatever
    /// lies below a read-only one is left out: it is read-only already.
    pub(super) fn mounts(&self) -> Vec<(&Path, bool)> {
        let mut result: Vec<(&Path, bool)> = Vec::new();
        let mut closed: Option<&Path> = None;
        // In a BTreeMap of paths a folder comes right before what is below it.
        for (path, writable) in &self.mounts {
            if closed.is_some_and(|closed| path.starts_with(closed)) {
                continue;
            }
            closed = (!writable).then_some(path.as_path());
            result.push((path, *writable));
        }
        result
    }

    /// Makes an existing path read-only.
    pub(super) fn close(&mut self, path: PathBuf) {
        self.mounts.insert(path, false);
    }

    fn pin(&mut self, path: PathBuf) {
        self.mounts.entry(path).or_insert(true);
    }

    /// Protects `name` below the canonical folder `root`.
    fn guard(&mut self, root: &Path, name: &Path, inside_git: bool) {
        let mut current = root.to_owned();
        let mut parts = name.components().peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let path = current.join(part);
            let kind = match fs::symlink_metadata(&path) {
                Ok(data) => data.file_type(),
                Err(_) if is_last => {
                    let is_file =
                        (inside_git && !path.ends_with("hooks")) || path.ends_with(".gitignore");
                    self.hollow.insert(Hollow { path, is_file });
                    return;
                }
                // Made before what it is to hold: sets are in order.
                Err(_) if self.hollow.iter().any(|hollow| hollow.path == path) => {
                    current = path;
                    continue;
                }
                // Nothing there to hold the name.
                Err(_) => return,
            };
            current = if kind.is_symlink() {
                self.watch_link(&path);
                match fs::canonicalize(&path) {
                    Ok(target) if target.starts_with(root) && target != root => target,
                    _ => return,
                }
            } else {
                path
            };
            if is_last || current.is_file() {
                if is_hollow(&current) {
                    let is_file = current.is_file();
                    self.hollow.insert(Hollow {
                        path: current.clone(),
                        is_file,
                    });
                }
                self.close(current);
                return;
            }
            self.pin(current.clone());
        }
    }

    /// A link cannot be mounted over; its target is another matter.
    fn watch_link(&mut self, path: &Path) {
        self.warnings.push(format!(
            "{} is a symbolic link: what it names is read-only as far as it lies in the workspace, \
             but the link itself can only be put back after the guest has replaced it; put the \
             real thing in its place to protect it fully",
            path.display()
        ));
        self.watched.insert(Watched {
            path: path.to_owned(),
            link: fs::read_link(path).ok(),
        });
    }

    /// Git takes hooks and configuration from the folder that this file names.
    /// Its mere presence changes git, so that no placeholder can hold the name.
    fn guard_redirection(&mut self, git: &Path) {
        let path = git.join("commondir");
        if fs::symlink_metadata(&path).is_err() {
            self.watched.insert(Watched { path, link: None });
            return;
        }
        self.warnings.push(format!(
            "{} exists, so that git takes hooks and configuration from another folder, which is \
             not protected; remove it unless you know why it is there",
            path.display()
        ));
        self.guard(git, Path::new("commondir"), true);
    }

    /// Protects names inside a repository folder, in its submodules too.
    fn guard_repository(&mut self, common: &Path, names: &[PathBuf]) {
        let parts = git::parts(common);
        if parts.too_many {
            self.warnings.push(format!(
                "{} has more submodules or worktrees than acpbox protects",
                common.display()
            ));
        }
        self.guard_redirection(common);
        for module in &parts.modules {
            self.guard_redirection(&common.join(module));
        }
        for name in names {
            self.guard(common, name, true);
            for module in &parts.modules {
                self.guard(common, &module.join(name), true);
            }
        }
        for file in &parts.worktree_files {
            self.guard(common, file, true);
        }
    }
}

/// Plans the protection of `names` in every workspace.
///
/// # Errors
/// A name is absolute or leaves the workspace by `..`.
pub(super) fn plan(shares: &Shares, names: &[PathBuf]) -> Result<Protection, BootError> {
    let mut protection = Protection::default();
    let mut of_git = Vec::new();
    let mut others = Vec::new();
    for name in names {
        let plain = name
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || name.as_os_str().is_empty() {
            return Err(BootError::Host {
                what: format!("the protected name {} is not usable", name.display()),
                mend: "give a path relative to the workspace, without `..`".to_owned(),
            });
        }
        match name.strip_prefix(".git") {
            Ok(rest) if !rest.as_os_str().is_empty() => of_git.push(rest.to_owned()),
            _ => others.push(name),
        }
    }
    for workspace in &shares.workspaces {
        for name in &others {
            protection.guard(&workspace.path, name, false);
        }
        if of_git.is_empty() {
            continue;
        }
        match &workspace.repository {
            Repository::None => {}
            Repository::Inside { git } => {
                let entry = workspace.path.join(".git");
                if entry.is_symlink() {
                    protection.watch_link(&entry);
                }
                // Every folder from the workspace to the repository stays put.
                let below = git.strip_prefix(&workspace.path).unwrap_or(git);
                let mut current = workspace.path.clone();
                for part in below {
                    current.push(part);
                    protection.pin(current.clone());
                }
                protection.guard_repository(git, &of_git);
            }
            Repository::Linked { file, common } => {
                protection.close(file.clone());
                protection.guard_repository(common, &of_git);
            }
            Repository::Unproven(_) => protection.guard(&workspace.path, Path::new(".git"), false),
        }
    }
    Ok(protection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_below_a_closed_folder_is_opened_again() {
        let mut protection = Protection::default();
        protection.pin("/w/.git".into());
        protection.close("/w/.git/hooks".into());
        protection.close("/w/a".into());
        protection.pin("/w/a/b".into());
        protection.close("/w/a/b/c".into());
        protection.close("/w/a-b".into());
        // Closed before: a pin does not open it.
        protection.pin("/w/a-b".into());
        let mounts = protection.mounts();
        let expected = [
            ("/w/.git", true),
            ("/w/.git/hooks", false),
            ("/w/a", false),
            ("/w/a-b", false),
        ];
        assert_eq!(mounts, expected.map(|(path, open)| (Path::new(path), open)));
    }

    #[test]
    fn names_that_leave_the_workspace_are_refused() {
        let shares = Shares {
            workspaces: Vec::new(),
            mounts: Vec::new(),
            warnings: Vec::new(),
        };
        for name in ["/etc/passwd", "../x", "a/../b", ""] {
            assert!(plan(&shares, &[PathBuf::from(name)]).is_err(), "{name}");
        }
        assert!(plan(&shares, &[PathBuf::from(".git/hooks")]).is_ok());
    }
}
