//! Which files the agent may reach through the editor: those below the
//! session's roots once every symlink is resolved, and none that the host would
//! later run.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::policy::Place;
use crate::config::VmPlan;

/// A session's folders, each pinned by a descriptor when the session began, so
/// that a folder swapped later is not followed.
#[derive(Debug, Default)]
pub struct Roots {
    roots: Vec<(PathBuf, OwnedFd)>,
    protected: Vec<PathBuf>,
    /// The working folder, canonical.
    cwd: PathBuf,
    /// The workspace that holds it.
    workspace: PathBuf,
}

/// How often a path is resolved anew after a race. A guess: a guest that
/// renames in a loop wins some rounds, and then its own access fails.
const RACES: usize = 1000;

/// What the agent wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Roots {
    /// Pins folders. Those that cannot be opened are left out. `protected` are
    /// names below a root, such as `.git/hooks`, that must not be written.
    pub fn pin(folders: impl IntoIterator<Item = PathBuf>, protected: Vec<PathBuf>) -> Roots {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let roots = folders
            .into_iter()
            .filter_map(|folder| {
                let opened = rustix::fs::open(&folder, flags, Mode::empty()).ok()?;
                Some((folder, opened))
            })
            .collect();
        Roots {
            roots,
            protected,
            ..Roots::default()
        }
    }

    /// The folders of a session in the VM of a plan, as the plan names them and as
    /// the client does.
    pub fn of(plan: &VmPlan, cwd: &Path, additional_directories: &[PathBuf]) -> Roots {
        let mut folders = vec![plan.cwd.clone(), cwd.to_owned()];
        folders.extend(plan.additional_directories.iter().cloned());
        folders.extend(additional_directories.iter().cloned());
        folders.dedup();
        let holds = |workspace: &&PathBuf| plan.cwd.starts_with(workspace);
        let workspace = plan.spec.workspaces.iter().find(holds);
        Roots::pin(folders, plan.spec.protected.clone())
            .at(plan.cwd.clone(), workspace.unwrap_or(&plan.cwd).clone())
    }

    /// Where the session works, for those who ask; both canonical.
    pub fn at(self, cwd: PathBuf, workspace: PathBuf) -> Roots {
        Roots {
            cwd,
            workspace,
            ..self
        }
    }

    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Where a file or folder really is, or would be if it were made; `None`
    /// outside the session's folders.
    pub fn place(&self, path: &Path) -> Option<Place> {
        if path.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let (root, below) = self.roots.iter().find_map(|(root, pinned)| {
            let below = path.strip_prefix(root).ok()?;
            Some((pinned, below))
        })?;
        let below = match open_beneath(root, not_empty(below)) {
            Ok(opened) => real_path(root, &opened).ok()?,
            // A symlink to nothing may come to lead elsewhere.
            Err(Errno::NOENT)
                if rustix::fs::statat(root, below, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .is_err() =>
            {
                existing_parent(root, below.parent()?)
                    .ok()?
                    .join(below.file_name()?)
            }
            Err(_) => return None,
        };
        let absolute = own_path(root).ok()?.join(&below);
        Some(Place { absolute, below })
    }

    /// Whether `path` may be accessed; else why not, naming the path and the fix.
    pub fn check(&self, path: &str, access: Access) -> Result<(), String> {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(format!("`path` must be absolute: {}", path.display()));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(format!("`path` must not contain `..`: {}", path.display()));
        }
        let found = self.roots.iter().find_map(|(root, pinned)| {
            let below = path.strip_prefix(root).ok()?;
            Some((pinned, below))
        });
        let Some((pinned, below)) = found else {
            return Err(format!(
                "{} is outside the session's folders; add its folder to `additionalDirectories`",
                path.display()
            ));
        };
        let real =
            resolve(pinned, below, access).map_err(|why| format!("{}: {why}", path.display()))?;
        if access == Access::Write {
            self.check_protected(path, below)?;
            self.check_protected(path, &real)?;
        }
        Ok(())
    }

    fn check_protected(&self, path: &Path, below: &Path) -> Result<(), String> {
        match self.protected.iter().find(|name| below.starts_with(name)) {
            Some(name) => Err(format!(
                "{} is protected: the host may run or trust `{}`",
                path.display(),
                name.display()
            )),
            None => Ok(()),
        }
    }
}

/// Where `below` really is under the pinned folder, without leaving it. For a
/// write the last part may be missing.
fn resolve(pinned: &OwnedFd, below: &Path, access: Access) -> Result<PathBuf, String> {
    let below = not_empty(below);
    match open_beneath(pinned, below) {
        Ok(opened) => {
            let stat = rustix::fs::fstat(&opened).map_err(|error| error.to_string())?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => real_path(pinned, &opened),
                FileType::Directory => Err("it is a folder".into()),
                _ => Err("it is no regular file".into()),
            }
        }
        Err(Errno::NOENT) if access == Access::Write => {
            let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
                return Err("it has no name".into());
            };
            // A dangling symlink would lead the editor elsewhere.
            if rustix::fs::statat(pinned, below, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err("it is a symlink to nothing".into());
            }
            existing_parent(pinned, parent).map(|parent| parent.join(name))
        }
        Err(Errno::XDEV | Errno::LOOP) => {
            Err("a symlink leads out of the session's folders".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The nearest parent that exists must lie beneath; editors make the rest.
fn existing_parent(pinned: &OwnedFd, parent: &Path) -> Result<PathBuf, String> {
    for ancestor in parent.ancestors() {
        match open_beneath(pinned, not_empty(ancestor)) {
            Ok(opened) => {
                let rest = parent.strip_prefix(ancestor).unwrap_or(Path::new(""));
                return Ok(real_path(pinned, &opened)?.join(rest));
            }
            Err(Errno::NOENT) => {}
            Err(Errno::XDEV | Errno::LOOP) => {
                return Err("a symlink leads out of the session's folders".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("the session's folder is gone".into())
}

fn open_beneath(pinned: &OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    // The kernel gives up on `..` in a symlink when anything on the system is
    // renamed or mounted meanwhile, and asks to try again.
    for _ in 0..RACES {
        let opened = rustix::fs::openat2(
            pinned,
            below,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        if !matches!(opened, Err(Errno::AGAIN)) {
            return opened;
        }
    }
    Err(Errno::AGAIN)
}

/// The opened file's path below the pinned folder, as the kernel knows it.
fn real_path(pinned: &OwnedFd, opened: &OwnedFd) -> Result<PathBuf, String> {
    let (root, real) = (own_path(pinned)?, own_path(opened)?);
    real.strip_prefix(&root)
        .map(Path::to_path_buf)
        .map_err(|_| "it was moved out of the session's folders".into())
}

fn own_path(descriptor: &OwnedFd) -> Result<PathBuf, String> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
        .map_err(|error| error.to_string())
}

fn not_empty(below: &Path) -> &Path {
    match below.as_os_str().is_empty() {
        true => Path::new("."),
        false => below,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_below_the_roots_are_reached() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "canary").unwrap();
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("ws");
        std::fs::create_dir_all(root.join("src")).unwrap();
        std::fs::create_dir_all(root.join(".git/hooks")).unwrap();
        std::fs::create_dir(base.path().join("ws-evil")).unwrap();
        std::fs::write(base.path().join("ws-evil/f"), "x").unwrap();
        std::fs::write(root.join("src/main.rs"), "x").unwrap();
        std::fs::hard_link(root.join("src/main.rs"), root.join("twin")).unwrap();
        std::fs::write(root.join("plain"), "x").unwrap();
        symlink("src/main.rs", root.join("inside")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        symlink(outside.path().join("new"), root.join("dangling")).unwrap();
        symlink(".git/hooks", root.join("sly")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let roots = Roots::pin([root.clone()], vec![".git/hooks".into()]);
        let path = |below: &str| root.join(below).display().to_string();
        let check = |below: &str, access, expected: Option<&str>| {
            let checked = roots.check(&path(below), access);
            match (expected, checked) {
                (None, checked) => assert_eq!(checked, Ok(()), "{below}"),
                (Some(words), Err(why)) => assert!(why.contains(words), "{below}: {why}"),
                (Some(_), Ok(())) => panic!("{below} was reached"),
            }
        };
        check("src/main.rs", Access::Read, None);
        check("src//main.rs", Access::Read, None);
        check("inside", Access::Read, None);
        check("plain", Access::Write, None);
        check("new.txt", Access::Write, None);
        check("new/folder/new.txt", Access::Write, None);
        // The guest can write it anyway, and cannot make links across mounts.
        check("twin", Access::Write, None);
        check("missing", Access::Read, Some("No such file"));
        check("out/secret", Access::Read, Some("symlink"));
        check("out/new", Access::Write, Some("symlink"));
        check("dangling", Access::Write, Some("symlink"));
        check("../ws-evil/f", Access::Read, Some(".."));
        check("fifo", Access::Read, Some("no regular file"));
        check("src", Access::Read, Some("folder"));
        check("", Access::Read, Some("folder"));
        check(".git/hooks/pre-commit", Access::Write, Some("protected"));
        check("sly/pre-commit", Access::Write, Some("protected"));
        check("%2e%2e/x", Access::Read, Some("No such file"));
        let evil = base.path().join("ws-evil/f").display().to_string();
        assert!(
            roots
                .check(&evil, Access::Read)
                .unwrap_err()
                .contains("outside")
        );
        for magic in [
            "/proc/self/exe",
            "/proc/self/environ",
            "/etc/passwd",
            "relative",
        ] {
            assert!(roots.check(magic, Access::Read).is_err(), "{magic}");
        }
    }

    #[test]
    fn a_folder_swapped_for_a_symlink_leads_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("f"), "canary").unwrap();
        let base = tempfile::tempdir().unwrap();
        let root = base.path().to_path_buf();
        std::fs::create_dir(root.join("a")).unwrap();
        std::fs::write(root.join("a/f"), "x").unwrap();
        let roots = Roots::pin([root.clone()], Vec::new());
        let path = root.join("a/f").display().to_string();
        roots.check(&path, Access::Read).unwrap();
        std::fs::rename(root.join("a"), root.join("b")).unwrap();
        symlink(outside.path(), root.join("a")).unwrap();
        assert!(roots.check(&path, Access::Read).is_err());
    }
}
