//! A VM's folder on the host: what persists, and who uses it.
//!
//! Several acpbox processes may run a VM of the same name at once, each its
//! own guest on the same folder. A shared lock counts them; whoever finds
//! itself alone tidies up what a killed one left.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::placeholder;
use crate::vm::{BootError, VmSpec, disk};

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
        let path = disk::lock_file(&folder);
        // Whoever deletes the VM removes the folder and its lock, maybe just now.
        let state = loop {
            private_folder(&folder)?;
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|source| failed("open", &path, source))?;
            let state = State {
                folder: folder.clone(),
                _lock: lock,
            };
            if flock(&state._lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && state.is_there(&path)
            {
                placeholder::remove_recorded(&state.records());
                state.empty_temp();
            }
            flock(&state._lock, FlockOperation::LockShared)
                .map_err(|error| failed("lock", &path, error.into()))?;
            if state.is_there(&path) {
                break state;
            }
        };
        for folder in [state.home(), state.temp(), state.records()] {
            private_folder(&folder)?;
        }
        Ok(state)
    }

    /// Whether the lock is still the one that others find.
    fn is_there(&self, path: &Path) -> bool {
        let there = fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let held = self._lock.metadata().map(|held| (held.dev(), held.ino()));
        matches!((there, held), (Ok(there), Ok(held)) if there == held)
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
