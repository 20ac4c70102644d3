//! What an agent leaves in a VM for one session: its own files below the home,
//! found by its id of the session in their names, and the folder of acpbox's
//! instructions below the temp folder.
//!
//! Both were written by the guest, and a process of it may still be running: no
//! link is followed, and every folder is opened below the one before it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::instructions::session_folder;

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files and links; folders are not counted.
    pub files: u64,
    /// What is still there and why, for a person; at most 20.
    pub kept: Vec<String>,
}

/// Where an agent keeps what belongs to one session, below its home.
struct Known {
    agent: &'static str,
    /// Folders, and how many levels below each a name may have the id in it.
    folders: &'static [(&'static str, usize)],
    /// Files with something of all sessions: a folder, and how their names begin.
    shared: &'static [(&'static str, &'static str)],
}

/// As the versions of [`super::catalog`] do; those of gemini, goose and qwen are
/// what is known of them, and were never tried.
const KNOWN: &[Known] = &[
    Known {
        agent: "claude",
        folders: &[
            (".claude/projects", 2),
            (".claude/debug", 1),
            (".claude/file-history", 1),
            (".claude/session-env", 1),
            (".claude/tasks", 1),
            (".claude/todos", 1),
        ],
        shared: &[],
    },
    Known {
        agent: "codex",
        folders: &[
            (".codex/sessions", 4),
            (".codex/archived_sessions", 4),
            (".codex/shell_snapshots", 1),
        ],
        // The threads' titles and first prompts.
        shared: &[(".codex", "state_"), (".codex", "logs_")],
    },
    Known {
        agent: "example",
        folders: &[(".local/state/acpbox-example", 1)],
        shared: &[],
    },
    Known {
        agent: "gemini",
        folders: &[],
        // Its chats have only the beginning of an id in their names.
        shared: &[(".gemini", "tmp")],
    },
    Known {
        agent: "goose",
        folders: &[(".local/share/goose/sessions", 1)],
        shared: &[(".local/share/goose/sessions", "sessions.db")],
    },
    Known {
        agent: "opencode",
        folders: &[(".local/share/opencode/storage", 3)],
        // Its own `opencode session delete` leaves traces in both.
        shared: &[
            (".local/share/opencode", "opencode.db"),
            (".local/share/opencode", "log"),
        ],
    },
    Known {
        agent: "pi",
        folders: &[(".pi/agent/sessions", 2)],
        shared: &[],
    },
    Known {
        agent: "qwen",
        folders: &[(".qwen/projects", 4)],
        shared: &[],
    },
];

/// Shorter ids could be a part of other names.
const ID_BYTES: usize = 8;

/// Names looked at, levels gone down and time spent for one session: a guest
/// can fill its home with anything.
const NAMES: usize = 50_000;
const LEVELS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

const KEPT: usize = 20;

/// Removes what a VM with this state folder has of a session. `agent` is its
/// name in the catalogue, `agent_session` the agent's own id.
///
/// Agents are looked for under all names: one that the configuration adds may
/// start a program that is known. Blocks, for some seconds at most.
pub fn remove(
    state_dir: &Path,
    session: &str,
    agent: &str,
    agent_session: Option<&str>,
) -> Removed {
    let mut search = Search {
        removed: Removed::default(),
        names: NAMES,
        deadline: Instant::now() + PATIENCE,
    };
    if let Some(temp) = search.open_trusted(&state_dir.join("tmp")) {
        let folder = session_folder(session);
        let place = Path::new("/tmp");
        let name = folder.file_name().unwrap_or_default();
        let above = folder.parent().and_then(|it| it.strip_prefix(place).ok());
        if let Some(above) = above
            && let Some(above) = search.open(temp.as_fd(), above.as_os_str(), place)
        {
            search.remove(above.as_fd(), name, &folder, LEVELS);
        }
    }
    let (Some(home), Some(id)) = (search.open_trusted(&state_dir.join("home")), agent_session)
    else {
        return search.removed;
    };
    if is_telling(id) {
        for (folder, levels) in KNOWN.iter().flat_map(|known| known.folders) {
            let place = Path::new("~").join(folder);
            if let Some(folder) = search.open(home.as_fd(), OsStr::new(folder), Path::new("~")) {
                search.look(folder, id, &place, *levels);
            }
        }
    } else {
        search.keep(format!(
            "the agent's own files: its id of the session, {id:?}, is no name to find them by"
        ));
    }
    let known = KNOWN.iter().filter(|known| known.agent == agent);
    for (folder, prefix) in known.flat_map(|known| known.shared) {
        let Some(opened) = search.open(home.as_fd(), OsStr::new(folder), Path::new("~")) else {
            continue;
        };
        // Not what SQLite keeps beside a database: that goes with it.
        let is_shared = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with(prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")
        };
        for name in search.names(&opened).into_iter().filter(is_shared) {
            search.keep(format!(
                "~/{folder}/{}: {agent} has all its sessions in it; it goes with the VM's disk",
                name.to_string_lossy()
            ));
        }
    }
    search.removed
}

/// Whether a name with this id in it can only be of this session.
fn is_telling(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    id.len() >= ID_BYTES && id.bytes().all(is_plain) && id.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether the id stands in the name, and is not part of a longer one.
fn is_of(name: &OsStr, id: &str) -> bool {
    let name = name.as_bytes();
    let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    memchr::memmem::find_iter(name, id.as_bytes()).any(|start| {
        let before = start.checked_sub(1).and_then(|at| name.get(at));
        is_end(before) && is_end(name.get(start + id.len()))
    })
}

struct Search {
    removed: Removed,
    /// How many more may be looked at.
    names: usize,
    deadline: Instant,
}

impl Search {
    fn keep(&mut self, what: String) {
        if self.removed.kept.len() < KEPT && !self.removed.kept.contains(&what) {
            self.removed.kept.push(what);
        }
    }

    /// A folder that acpbox made and no guest can replace. `None` where there is none.
    fn open_trusted(&mut self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
        self.opened(opened, path)
    }

    /// A folder below another one, `place` being that one's name for a person.
    fn open(&mut self, folder: impl AsFd, below: &OsStr, place: &Path) -> Option<OwnedFd> {
        let opened = rustix::fs::openat2(
            folder,
            below,
            // With NOFOLLOW a link would look like what is no folder.
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH
                | ResolveFlags::NO_SYMLINKS
                | ResolveFlags::NO_MAGICLINKS
                | ResolveFlags::NO_XDEV,
        );
        self.opened(opened, &place.join(below))
    }

    fn opened(&mut self, opened: Result<OwnedFd, Errno>, path: &Path) -> Option<OwnedFd> {
        match opened {
            Ok(folder) => Some(folder),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(Errno::LOOP) => {
                self.keep(format!("{}: links are not followed", path.display()));
                None
            }
            Err(error) => {
                self.keep(format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// The names in a folder, as far as they may still be looked at.
    fn names(&mut self, folder: &OwnedFd) -> Vec<OsString> {
        let Ok(entries) = Dir::read_from(folder) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.names == 0 || Instant::now() > self.deadline {
                self.keep("there are more files in the home than are looked through".into());
                break;
            }
            self.names -= 1;
            names.push(OsStr::from_bytes(name).to_owned());
        }
        names
    }

    /// Removes what has the id in its name, down to so many levels.
    fn look(&mut self, folder: OwnedFd, id: &str, place: &Path, levels: usize) {
        for name in self.names(&folder) {
            let path = place.join(&name);
            if is_of(&name, id) {
                self.remove(folder.as_fd(), &name, &path, LEVELS);
            } else if levels > 1
                && is_folder(&folder, &name)
                && let Some(inner) = self.open(folder.as_fd(), &name, place)
            {
                self.look(inner, id, &path, levels - 1);
            }
        }
    }

    /// Removes a file, a link itself, or a folder with all that is in it.
    fn remove(&mut self, folder: impl AsFd, name: &OsStr, path: &Path, levels: usize) {
        let folder = folder.as_fd();
        let is_folder = is_folder(folder, name);
        if is_folder && levels > 0 {
            let place = path.parent().unwrap_or(Path::new(""));
            let Some(inner) = self.open(folder, name, place) else {
                return;
            };
            // The guest's own tools may have left it read-only.
            let _ = rustix::fs::fchmod(&inner, Mode::RWXU);
            for name in self.names(&inner) {
                self.remove(inner.as_fd(), &name, &path.join(&name), levels - 1);
            }
        }
        let flags = if is_folder {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match rustix::fs::unlinkat(folder, name, flags) {
            Ok(()) => self.removed.files += u64::from(!is_folder),
            Err(Errno::NOENT) => {}
            Err(error) => self.keep(format!("{}: {error}", path.display())),
        }
    }
}

fn is_folder(folder: impl AsFd, name: &OsStr) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    const ID: &str = "52b6f308-2322-40b6-878c-1b836d4b8b1c";

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Disk {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("home")).unwrap();
            fs::create_dir(folder.path().join("tmp")).unwrap();
            Disk(folder)
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        fn write(&self, below: &str) -> PathBuf {
            let path = self.path(below);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "canary").unwrap();
            path
        }

        fn remove(&self, agent: &str) -> Removed {
            remove(self.0.path(), "the-session", agent, Some(ID))
        }
    }

    #[test]
    fn what_has_the_id_in_its_name_goes_and_the_rest_stays() {
        let disk = Disk::new();
        let gone = [
            format!("home/.claude/projects/-work/{ID}.jsonl"),
            format!("home/.claude/projects/-work/{ID}/subagents/deep/a.jsonl"),
            format!("home/.claude/todos/{ID}-agent-{ID}.json"),
            format!("home/.codex/sessions/2026/11/22/rollout-2026-{ID}.jsonl"),
            format!("home/.pi/agent/sessions/--work--/2026_{ID}.jsonl"),
            "tmp/acpbox/the-session/instructions.md".to_owned(),
        ];
        let kept = [
            format!("home/.claude/projects/-work/{ID}0.jsonl"),
            format!("home/.claude/projects/-work/deeper/{ID}.jsonl"),
            format!("home/mine/{ID}.jsonl"),
            "home/.claude/projects/-work/other.jsonl".to_owned(),
            "tmp/acpbox/another/instructions.md".to_owned(),
        ];
        let gone = gone.map(|below| disk.write(&below));
        let kept = kept.map(|below| disk.write(&below));
        let locked = disk.path(&format!("home/.claude/projects/-work/{ID}/subagents"));
        fs::set_permissions(locked, fs::Permissions::from_mode(0o500)).unwrap();
        let removed = disk.remove("claude");
        assert_eq!((removed.files, removed.kept), (6, Vec::new()));
        for path in gone {
            assert!(!path.exists(), "{} is there", path.display());
        }
        for path in kept {
            assert!(path.exists(), "{} is gone", path.display());
        }
        assert!(!disk.path("tmp/acpbox/the-session").exists());
    }

    #[test]
    fn no_link_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        let aim = outside.path().join(format!("{ID}.jsonl"));
        fs::write(&aim, "canary").unwrap();
        let disk = Disk::new();
        // In place of a known folder, of one below it, and of what is to go.
        let link = |below: &str, to: &Path| {
            let path = disk.path(below);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, &path).unwrap();
            path
        };
        link("home/.codex", outside.path());
        link("home/.claude/todos", outside.path());
        link("home/.claude/projects/-work", outside.path());
        let file = link(&format!("home/.claude/debug/{ID}.txt"), &aim);
        let folder = link(&format!("home/.claude/tasks/{ID}"), outside.path());
        let inner = link(&format!("home/.claude/file-history/{ID}/x"), outside.path());
        link("tmp/acpbox", outside.path());
        fs::create_dir(outside.path().join("the-session")).unwrap();
        let removed = disk.remove("codex");
        assert_eq!(removed.files, 3, "the links themselves");
        assert!(aim.exists(), "a link was followed");
        assert!(outside.path().join("the-session").exists());
        for path in [file, folder, inner] {
            assert!(path.symlink_metadata().is_err(), "{}", path.display());
        }
        let kept = removed.kept.join("\n");
        for words in ["~/.codex", "~/.claude/todos", "/tmp/acpbox"] {
            assert!(kept.contains(words), "no {words} in {kept}");
        }
    }

    #[test]
    fn what_cannot_be_taken_apart_is_named() {
        let disk = Disk::new();
        disk.write("home/.codex/state_5.sqlite");
        disk.write("home/.codex/state_5.sqlite-wal");
        let removed = disk.remove("codex");
        assert_eq!(removed.kept.len(), 1, "{removed:?}");
        assert!(removed.kept[0].contains("~/.codex/state_5.sqlite"));
        assert_eq!(disk.remove("claude").kept, Vec::<String>::new());
        for id in [
            "short",
            "../../etc/passwd1",
            "only-letters-here",
            "a/b/c/d/e/f/1",
        ] {
            let removed = remove(disk.0.path(), "s", "claude", Some(id));
            assert_eq!(removed.files, 0, "{id}");
            assert!(removed.kept[0].contains("no name to find them by"), "{id}");
        }
    }
}
