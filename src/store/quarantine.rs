//! A damaged database is set aside, whole, so that a new one can take its place.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::FlockOperation;

use super::error::StoreError;
use super::open::{self, beside};
use super::schema;

/// What stands between a database's name and the time at which it was set aside.
const MARK: &str = ".damaged-";

/// How often another process that has the file open is waited for, and for how
/// long each time: it may have just found the same damage.
const TRIES: u32 = 100;
const NAP: Duration = Duration::from_millis(10);

/// [`open::writer`], which a damaged file does not stop: it is renamed with its
/// log, and a new one is begun. Returns where it went too. Errors that say
/// nothing about the file's content (locks, rights, a newer acpbox) stay errors,
/// and so does damage of a file that may be another program's: one that neither
/// `is_ours` by its place nor bears our stamp.
pub(super) fn writer(
    path: &Path,
    is_ours: bool,
) -> Result<(Connection, Option<PathBuf>), StoreError> {
    let mut moved = None;
    for _ in 0..TRIES {
        match open::writer(path) {
            Err(StoreError::Damaged { .. }) if is_ours || is_stamped(path) => {}
            opened => return opened.map(|connection| (connection, moved)),
        }
        match set_aside(path)? {
            Outcome::Moved(to) => moved = Some(to),
            Outcome::Changed | Outcome::InUse => std::thread::sleep(NAP),
        }
    }
    // Who had it open before keeps it: for them it may work.
    open::writer(path).map(|connection| (connection, moved))
}

/// The databases that were set aside beside this one, oldest first.
pub(super) fn earlier(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let prefix = format!("{}{MARK}", name.to_string_lossy());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&prefix) && !name.ends_with("-wal")
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

enum Outcome {
    Moved(PathBuf),
    /// Another process was faster: the name is another file's by now.
    Changed,
    /// Another process has it open.
    InUse,
}

fn set_aside(path: &Path) -> Result<Outcome, StoreError> {
    let io = |source| StoreError::Io {
        what: format!("cannot set the damaged database {} aside", path.display()),
        source,
    };
    let Ok(file) = File::options().read(true).write(true).open(path) else {
        return Ok(Outcome::Changed);
    };
    // Whoever has it open in SQLite holds a lock on some of its bytes.
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => return Ok(Outcome::InUse),
        Err(error) => return Err(io(error.into())),
    }
    let named = rustix::fs::stat(path).ok();
    let held = rustix::fs::fstat(&file).map_err(|error| io(error.into()))?;
    if named.is_none_or(|named| (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)) {
        return Ok(Outcome::Changed);
    }
    let to = free_name(path);
    // The log first: a new database would take one that is left for its own.
    match std::fs::rename(beside(path, "-wal"), beside(&to, "-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    // An index of the log, which SQLite makes anew.
    let _ = std::fs::remove_file(beside(path, "-shm"));
    std::fs::rename(path, &to).map_err(io)?;
    Ok(Outcome::Moved(to))
}

fn free_name(path: &Path) -> PathBuf {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let first = beside(path, &format!("{MARK}{time}"));
    let further = (2..).map(|number| beside(&first, &format!("-{number}")));
    let is_free = |name: &PathBuf| !name.exists() && !beside(name, "-wal").exists();
    std::iter::once(first.clone())
        .chain(further)
        .find(is_free)
        .unwrap_or(first)
}

/// Whether the first bytes say that the file is an SQLite database of ours.
fn is_stamped(path: &Path) -> bool {
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok()
        && header.starts_with(b"SQLite format 3\0")
        && header[68..72] == schema::APPLICATION_ID.to_be_bytes()
}
