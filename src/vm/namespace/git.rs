//! Where a workspace's repository is, and what in it the host would run.

use std::fs;
use std::path::{Path, PathBuf};

/// How many submodules and worktrees of one repository are looked after, and
/// how deep submodule names may nest.
const MOST_PARTS: usize = 64;
const DEEPEST_MODULE: usize = 6;

/// The repository that a workspace belongs to.
#[derive(Debug)]
pub(super) enum Repository {
    None,
    /// `.git` is a folder of the workspace (or a link that stays inside it).
    Inside {
        git: PathBuf,
    },
    /// `.git` is a file that names a folder elsewhere: a linked worktree, or
    /// a submodule. `common` is canonical and holds hooks and configuration.
    Linked {
        file: PathBuf,
        common: PathBuf,
    },
    /// `.git` names a folder that does not name this workspace back. Whoever
    /// wrote the file (an agent, once) could have named anything, so it is not
    /// shared. In words.
    Unproven(String),
}

/// Finds the repository of a canonical folder.
pub(super) fn find(workspace: &Path) -> Repository {
    let entry = workspace.join(".git");
    let Ok(kind) = fs::symlink_metadata(&entry).map(|data| data.file_type()) else {
        return Repository::None;
    };
    if kind.is_dir() {
        return Repository::Inside { git: entry };
    }
    if kind.is_symlink() {
        return match fs::canonicalize(&entry) {
            Ok(git) if git.starts_with(workspace) && git.is_dir() => Repository::Inside { git },
            _ => Repository::Unproven(format!(
                "{} is a symbolic link out of the workspace; its repository is not shared",
                entry.display()
            )),
        };
    }
    linked(workspace, &entry).unwrap_or_else(|| {
        Repository::Unproven(format!(
            "{} names a repository that does not name this workspace back; it is not shared. \
             `git worktree repair` mends a moved worktree",
            entry.display()
        ))
    })
}

fn linked(workspace: &Path, entry: &Path) -> Option<Repository> {
    let text = fs::read_to_string(entry).ok()?;
    let target = text.strip_prefix("gitdir:")?.trim();
    let git = fs::canonicalize(workspace.join(target)).ok()?;
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(common) => {
            let back = fs::read_to_string(git.join("gitdir")).ok()?;
            let back = fs::canonicalize(git.join(back.trim())).ok()?;
            let common = fs::canonicalize(git.join(common.trim())).ok()?;
            let ours = back == entry && git.parent()? == common.join("worktrees");
            ours.then_some(common)?
        }
        Err(_) => {
            let back = work_tree(&fs::read_to_string(git.join("config")).ok()?)?;
            let back = fs::canonicalize(git.join(back)).ok()?;
            (back == workspace).then_some(git)?
        }
    };
    is_repository(&common).then_some(Repository::Linked {
        file: entry.to_owned(),
        common,
    })
}

/// The `core.worktree` of a submodule's configuration.
fn work_tree(config: &str) -> Option<String> {
    config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim().eq_ignore_ascii_case("worktree")).then(|| value.trim().to_owned())
    })
}

fn is_repository(git: &Path) -> bool {
    git.join("HEAD").is_file() && git.join("objects").is_dir() && git.join("refs").is_dir()
}

/// What beside the named files has the same power inside a repository folder:
/// the same names in its submodules, and the files by which a worktree finds
/// its repository. Relative to `common`.
pub(super) struct Parts {
    /// Folders of submodules, to be guarded like `common` itself.
    pub(super) modules: Vec<PathBuf>,
    /// Existing files of linked worktrees.
    pub(super) worktree_files: Vec<PathBuf>,
    /// There were more than are looked after.
    pub(super) too_many: bool,
}

pub(super) fn parts(common: &Path) -> Parts {
    let mut parts = Parts {
        modules: Vec::new(),
        worktree_files: Vec::new(),
        too_many: false,
    };
    collect_modules(common, Path::new("modules"), 0, &mut parts);
    let worktrees = Path::new("worktrees");
    for (count, name) in folders(&common.join(worktrees)).into_iter().enumerate() {
        if count == MOST_PARTS {
            parts.too_many = true;
            break;
        }
        for file in ["commondir", "gitdir", "config.worktree"] {
            let path = worktrees.join(&name).join(file);
            if common.join(&path).is_file() {
                parts.worktree_files.push(path);
            }
        }
    }
    parts
}

/// A submodule's name may hold slashes, so that its folder can be deeper; and
/// a submodule may have modules of its own.
fn collect_modules(common: &Path, below: &Path, depth: usize, parts: &mut Parts) {
    if depth > DEEPEST_MODULE {
        parts.too_many = true;
        return;
    }
    for name in folders(&common.join(below)) {
        let path = below.join(name);
        if !is_repository(&common.join(&path)) {
            collect_modules(common, &path, depth + 1, parts);
        } else if parts.modules.len() == MOST_PARTS {
            parts.too_many = true;
        } else {
            collect_modules(common, &path.join("modules"), depth + 1, parts);
            parts.modules.push(path);
        }
    }
}

/// The names of real folders (no links) in a folder, sorted.
fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut names: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| PathBuf::from(entry.file_name()))
        .collect();
    names.sort();
    names
}
