//! A VM's folder on the host: what persists, and who uses it.
//!
//! Several acpbox processes may run a VM of the same name at once, each its
//! own guest on the same folder. A shared lock counts them; whoever finds
//! itself alone tidies up what a killed one left.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{USER, USER_NAME, placeholder};
use crate::vm::{BootError, Network, VmSpec};

pub(super) struct State {
    folder: PathBuf,
    /// Held shared while the guest runs.
    _lock: File,
}

impl State {
    pub(super) fn open(spec: &VmSpec) -> Result<State, BootError> {
        private_folder(&spec.state_dir)?;
        let folder = fs::canonicalize(&spec.state_dir)
            .map_err(|source| failed("open", &spec.state_dir, source))?;
        let path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| failed("open", &path, source))?;
        let state = State {
            folder,
            _lock: lock,
        };
        if flock(&state._lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            placeholder::remove_recorded(&state.records());
            state.empty_temp();
        }
        flock(&state._lock, FlockOperation::LockShared)
            .map_err(|error| failed("lock", &path, error.into()))?;
        for folder in [state.home(), state.temp(), state.records(), state.etc()] {
            private_folder(&folder)?;
        }
        state.write_etc(spec)?;
        Ok(state)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Becomes `/home/agent`.
    pub(super) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Becomes `/tmp`: on disk, since builds can fill a memory file system, and
    /// emptied when the VM boots anew, as a machine's is.
    pub(super) fn temp(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Which placeholders a run has made.
    pub(super) fn records(&self) -> PathBuf {
        self.folder.join("placeholders")
    }

    /// The guest's own few files of `/etc`.
    pub(super) fn etc(&self) -> PathBuf {
        self.folder.join("etc")
    }

    fn empty_temp(&self) {
        let temp = self.temp();
        let old = self.folder.join("tmp.old");
        if fs::rename(&temp, &old).is_ok() || old.exists() {
            // On a thread, so that a large one does not delay the boot.
            let remove = move || {
                let _ = fs::remove_dir_all(old);
            };
            let _ = std::thread::Builder::new()
                .name("empty-tmp".to_owned())
                .spawn(remove);
        }
    }

    fn write_etc(&self, spec: &VmSpec) -> Result<(), BootError> {
        let host_name = host_name(&spec.name);
        let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {host_name}\n");
        if spec.network == Network::Full
            && let Ok(of_the_host) = fs::read_to_string("/etc/hosts")
        {
            hosts.push_str(&of_the_host);
        }
        let shell = ["/bin/bash", "/bin/sh"]
            .into_iter()
            .find(|shell| Path::new(shell).exists())
            .unwrap_or("/bin/sh");
        let passwd = format!(
            "root:x:0:0:root:/root:/bin/sh\n\
             {USER_NAME}:x:{USER}:{USER}:agent:{}:{shell}\n\
             nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
            crate::vm::GUEST_HOME
        );
        let group = format!("root:x:0:\n{USER_NAME}:x:{USER}:\nnogroup:x:65534:\n");
        for (name, content) in [
            ("hosts", hosts),
            ("hostname", format!("{host_name}\n")),
            ("passwd", passwd),
            ("group", group),
        ] {
            let path = self.etc().join(name);
            if fs::read_to_string(&path).is_ok_and(|known| known == content) {
                continue;
            }
            // Renamed into place: another acpbox may be binding the old one.
            let fresh = self.etc().join(format!("{name}.{}", std::process::id()));
            fs::write(&fresh, content)
                .and_then(|()| fs::rename(&fresh, &path))
                .map_err(|source| failed("write", &path, source))?;
        }
        Ok(())
    }
}

/// A VM's name as a host name: letters, digits and hyphens, at most 63.
pub(super) fn host_name(name: &str) -> String {
    let mapped: String = name
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() || char == '.' {
                char
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let trimmed = mapped.trim_matches(['-', '.']);
    if trimmed.is_empty() { "vm" } else { trimmed }.to_owned()
}

fn private_folder(path: &Path) -> Result<(), BootError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(source) => Err(failed("make", path, source)),
    }
}

fn failed(verb: &str, path: &Path, source: std::io::Error) -> BootError {
    BootError::Io {
        what: format!("cannot {verb} {} of the VM", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn any_vm_name_makes_a_host_name() {
        assert_eq!(host_name("paper"), "paper");
        assert_eq!(host_name("my proj/é_1"), "my-proj---1");
        assert_eq!(host_name("///"), "vm");
        assert_eq!(host_name(&"x".repeat(200)).len(), 63);
    }
}
