//! A damaged database is set aside, whole, so that a new one can take its place.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::FlockOperation;

use super::error::StoreError;
use super::open::{self, beside};
use super::schema;

/// What stands between a database's name and the time at which it was set aside.
const MARK: &str = ".damaged-";

/// How long other processes that open the database are waited for; each takes
/// some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(2);

/// [`open::writer`] beside others that open, create or set aside the same file.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    let is_new = std::fs::metadata(path).map_or(true, |found| found.len() == 0);
    // SQLite knows a file and its log by their names: neither may change its
    // meaning between the opening of the one and of the other.
    let _door = Door::enter(path, is_new);
    open::writer(path)
}

/// [`writer`], which a damaged file does not stop: it is renamed with its log,
/// and a new one is begun. Returns where it went too. Errors that say nothing
/// about the file's content (locks, rights, a newer acpbox) stay errors, and so
/// does damage of a file that may be another program's: one that neither
/// `is_ours` by its place nor bears our stamp.
pub(super) fn writer_or_new(
    path: &Path,
    is_ours: bool,
) -> Result<(Connection, Option<PathBuf>), StoreError> {
    match writer(path) {
        Err(StoreError::Damaged { .. }) if is_ours || stamped(path).is_some() => {}
        opened => return opened.map(|connection| (connection, None)),
    }
    let door = Door::enter(path, true);
    // Another process may have been here before.
    let damage = match open::writer(path) {
        Err(damage @ StoreError::Damaged { .. }) => damage,
        opened => return opened.map(|connection| (connection, None)),
    };
    if door.is_none() {
        return Err(damage);
    }
    match set_aside(path)? {
        Some(to) => Ok((open::writer(path)?, Some(to))),
        None => Err(damage),
    }
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

/// Renames the file and its log. `None`, with nothing done, where another
/// process has it open: for that one it may still work. The door must be held
/// alone.
fn set_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let io = |source| StoreError::Io {
        what: format!("cannot set the damaged database {} aside", path.display()),
        source,
    };
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(io)?;
    // Whoever has it open in SQLite holds a lock on some of its bytes.
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(io(error.into())),
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
    Ok(Some(to))
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

/// The schema's version, if the first bytes say that the file is an SQLite database
/// of ours.
pub(super) fn stamped(path: &Path) -> Option<i64> {
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let is_ours = read.is_ok()
        && header.starts_with(b"SQLite format 3\0")
        && header[68..72] == schema::APPLICATION_ID.to_be_bytes();
    let version = u32::from_be_bytes([header[60], header[61], header[62], header[63]]);
    is_ours.then(|| version.into())
}

/// A lock on the database's folder, held while the database is opened: by many
/// who find it there, by one who creates or renames it.
struct Door(#[expect(dead_code, reason = "held")] File);

impl Door {
    /// `None` where there is no such lock (some network file systems), or where
    /// it is not to be had in time.
    fn enter(path: &Path, alone: bool) -> Option<Door> {
        open::create_folder(path).ok()?;
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
        let operation = match alone {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&folder, operation) {
                Ok(()) => return Some(Door(folder)),
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(NAP);
                }
                Err(_) => return None,
            }
        }
    }
}
