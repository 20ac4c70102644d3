//! Names that are protected though absent: made empty on the host while a
//! guest runs, since a mount needs something to be mounted on.
//!
//! A placeholder wears the sticky bit, which tells it from a folder that the
//! user left empty. It is removed only while it is as it was made, so that nothing
//! is ever lost, and only when no other guest relies on it: every guest holds a
//! shared lock on each. (Removing a folder that is a mount point in another mount
//! namespace succeeds and takes that mount away.) What a killed acpbox leaves
//! behind is on record in the VM's folder.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::protect::{Hollow, Protection};
use crate::vm::BootError;

/// The sticky bit: without effect on a folder of one user.
const MARK: u32 = 0o1000;

/// What an absent `.gitignore` is made with, so that git does not see it.
const SELF_IGNORING: &[u8] = b".gitignore\n";

/// Whether nothing is there but what a placeholder is made with.
pub(super) fn is_hollow(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return is_as_made(path, &fs::read(path).unwrap_or_default());
    };
    entries.flatten().all(|entry| {
        let path = entry.path();
        is_ignore(&path) && fs::read(&path).is_ok_and(|content| is_as_made(&path, &content))
    })
}

fn is_ignore(path: &Path) -> bool {
    path.ends_with(".gitignore")
}

fn is_as_made(path: &Path, content: &[u8]) -> bool {
    content.is_empty() || (is_ignore(path) && content == SELF_IGNORING)
}

/// The placeholders of one guest.
pub(super) struct Placeholders {
    /// Locked shared, so that no other guest removes them.
    held: Vec<Held>,
    record: PathBuf,
}

struct Held {
    path: PathBuf,
    lock: File,
    /// Made by this or another guest, maybe a killed one, not by the user.
    is_placeholder: bool,
}

impl Placeholders {
    /// Makes what is absent, holds what is empty, and adds all of it to the
    /// protected paths.
    pub(super) fn make(
        protection: &mut Protection,
        records: PathBuf,
    ) -> Result<Placeholders, BootError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut placeholders = Placeholders {
            held: Vec::new(),
            record: records.join(format!("{}-{count}", std::process::id())),
        };
        let hollow = std::mem::take(&mut protection.hollow);
        // On record before it is made, so that a kill in between loses nothing.
        let absent = (hollow.iter())
            .map(|hollow| hollow.path.as_path())
            .filter(|path| fs::symlink_metadata(path).is_err());
        placeholders.write_record(absent)?;
        for Hollow { path, is_file } in hollow {
            match hold(&path, is_file) {
                Ok(held) => {
                    placeholders.held.push(held);
                    protection.close(path);
                }
                // Nor can the guest make it, which is the same user. (What is not
                // found is the folder that should hold it.)
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::PermissionDenied
                            | ErrorKind::ReadOnlyFilesystem
                            | ErrorKind::NotFound
                    ) => {}
                Err(source) => {
                    placeholders.remove();
                    return Err(BootError::Io {
                        what: format!("cannot protect {}", path.display()),
                        source,
                    });
                }
            }
        }
        Ok(placeholders)
    }

    /// Removes the placeholders that are still empty and that nobody else
    /// relies on; others stay on record for a later boot.
    pub(super) fn remove(&mut self) {
        // What lies in a folder goes before the folder.
        let left: Vec<PathBuf> = self
            .held
            .drain(..)
            .rev()
            .filter(|held| held.is_placeholder && !remove(&held.path, &held.lock))
            .map(|held| held.path)
            .collect();
        let _ = self.write_record(left.iter().map(PathBuf::as_path));
    }

    fn write_record<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> Result<(), BootError> {
        let mut bytes = Vec::new();
        for path in paths {
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        if bytes.is_empty() {
            let _ = fs::remove_file(&self.record);
            return Ok(());
        }
        fs::write(&self.record, bytes).map_err(|source| BootError::Io {
            what: format!("cannot write {}", self.record.display()),
            source,
        })
    }
}

/// Removes what earlier runs have left, by their records. The caller knows
/// that no acpbox runs this VM.
pub(super) fn remove_recorded(records: &Path) {
    let Ok(entries) = fs::read_dir(records) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(bytes) = fs::read(entry.path()) else {
            continue;
        };
        let all_gone = bytes
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .rev()
            .all(|path| open(&path).map_or(true, |lock| remove(&path, &lock)));
        if all_gone {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes a placeholder, or takes what is there, and locks it shared.
fn hold(path: &Path, is_file: bool) -> std::io::Result<Held> {
    // Whoever removes one has it locked exclusively, so that a few rounds suffice.
    for _ in 0..100 {
        let made = if is_file {
            let mut options = File::options();
            options.write(true).create_new(true).mode(MARK | 0o644);
            let content: &[u8] = if is_ignore(path) { SELF_IGNORING } else { b"" };
            (options.open(path)).and_then(|mut file| file.write_all(content))
        } else {
            fs::DirBuilder::new().mode(MARK | 0o755).create(path)
        };
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = match open(path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        flock(&lock, FlockOperation::LockShared)?;
        // Removed between our opening and our locking?
        if is_same(path, &lock) {
            return Ok(Held {
                path: path.to_owned(),
                is_placeholder: is_marked(&lock.metadata()?),
                lock,
            });
        }
    }
    Err(std::io::Error::other("it keeps disappearing"))
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn is_same(path: &Path, file: &File) -> bool {
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(held)) => identity(there) == identity(held),
        _ => false,
    }
}

fn is_marked(data: &fs::Metadata) -> bool {
    data.mode() & MARK != 0
}

/// Returns whether nothing is left to do: removed, gone, or put to use.
fn remove(path: &Path, lock: &File) -> bool {
    if flock(lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    if !is_same(path, lock) {
        return true;
    }
    match lock.metadata() {
        Ok(data) if !is_marked(&data) => {}
        Ok(data) if data.is_dir() => {
            // Not empty means that the host has put it to use.
            let _ = fs::remove_dir(path);
        }
        Ok(data)
            if data.len() <= SELF_IGNORING.len() as u64
                && fs::read(path).is_ok_and(|content| is_as_made(path, &content)) =>
        {
            let _ = fs::remove_file(path);
        }
        _ => {}
    }
    true
}
