//! Opening the file: who may read it, whether it is ours and whole, pragmas.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{BUSY_SECONDS, StoreError};
use super::progress;
use super::schema::{self, Stamp};

/// KiB of page cache; measured: more does not help appends, and it is resident.
const WRITER_CACHE_KIB: u32 = 2048;
const READER_CACHE_KIB: u32 = 512;

/// A net below the writer's own checkpoints, in pages, should they not succeed.
const AUTO_CHECKPOINT_PAGES: u32 = 16_384;

/// A WAL that grew past this is cut back once it has been copied.
const WAL_KEPT_BYTES: u32 = 32 << 20;

/// The one connection that writes. Creates, checks and migrates the file.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    create_folder(path)?;
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let access = flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE);
    let mut connection =
        Connection::open_with_flags(path, access).map_err(|source| cannot_open(path, source))?;
    // By path: opening and closing the file ourselves would drop the locks that
    // other connections of this process hold on it.
    restrict(path)?;
    // Closing copies the log into the file, which is not to happen to a damaged one.
    keep_log_on_close(&connection, true).map_err(sqlite)?;
    wait_for_locks(&mut connection).map_err(sqlite)?;
    // First: to SQLite, a schema with something newer in it is a damaged one.
    if let Some(found) = schema::version(&connection).map_err(sqlite)? {
        refuse_newer(path, found)?;
    }
    let stamp = schema::stamp(&connection).map_err(sqlite)?;
    refuse_foreign(path, &stamp)?;
    refuse_newer(path, stamp.version)?;
    if stamp.is_new() {
        // Only possible before there is a table, and before WAL: what deleting
        // frees can then be given back to the disk a few pages at a time.
        connection
            .execute_batch("PRAGMA auto_vacuum = INCREMENTAL")
            .map_err(sqlite)?;
    }
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = ON; PRAGMA cache_size = -{WRITER_CACHE_KIB};
             PRAGMA wal_autocheckpoint = {AUTO_CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
        ))
        .map_err(sqlite)?;
    if stamp.version < schema::VERSION {
        if progress::is_large(path) {
            // So that its growth tells how far the migration is.
            connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(sqlite)?;
            progress::tell(path, stamp.version, || schema::migrate(&mut connection))
        } else {
            schema::migrate(&mut connection)
        }
        .map_err(sqlite)?;
    }
    schema::probe(&connection).map_err(|source| match source {
        // A file that says it is ours but lacks our tables.
        rusqlite::Error::SqlInputError { msg: detail, .. } => StoreError::Damaged {
            path: path.to_path_buf(),
            detail,
        },
        source => sqlite(source),
    })?;
    keep_log_on_close(&connection, false).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
}

/// A connection that only reads. The writer must have opened the file before.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let sqlite = |source| StoreError::from_sqlite(path, source);
    let mut connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))
        .map_err(sqlite)?;
    wait_for_locks(&mut connection).map_err(sqlite)?;
    connection
        .execute_batch(&format!("PRAGMA cache_size = -{READER_CACHE_KIB};"))
        .map_err(sqlite)?;
    Ok(connection)
}

/// Waits for other processes' locks with short naps: SQLite's own handler soon
/// naps 100 ms at a time and starves beside a process that writes steadily.
pub(super) fn wait_for_locks(connection: &mut Connection) -> rusqlite::Result<()> {
    const NAP: Duration = Duration::from_micros(500);
    const FIRST_NAP: Duration = Duration::from_micros(50);
    const FIRST_NAPS: i32 = 20;
    let naps = i32::try_from(Duration::from_secs(BUSY_SECONDS).as_micros() / NAP.as_micros())
        .unwrap_or(i32::MAX);
    connection.busy_handler(Some(move |count| {
        std::thread::sleep(if count < FIRST_NAPS { FIRST_NAP } else { NAP });
        count < naps
    }))
}

/// No mutex inside SQLite: a connection belongs to one thread at a time.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| StoreError::Io {
            what: format!(
                "cannot create the folder {} for the database",
                folder.display()
            ),
            source,
        })
}

/// A transcript holds what the user and the agent said: nobody else reads it.
fn restrict(path: &Path) -> Result<(), StoreError> {
    for file in [
        path.to_path_buf(),
        beside(path, "-wal"),
        beside(path, "-shm"),
    ] {
        let Ok(metadata) = std::fs::metadata(&file) else {
            continue;
        };
        if metadata.mode() & 0o077 != 0 {
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(|source| {
                StoreError::Io {
                    what: format!(
                        "cannot make {} private to its owner (chmod 600)",
                        file.display()
                    ),
                    source,
                }
            })?;
        }
    }
    Ok(())
}

/// The path of a file that SQLite keeps beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn cannot_open(path: &Path, source: rusqlite::Error) -> StoreError {
    if path.is_dir() {
        return StoreError::Io {
            what: format!(
                "cannot open the database {}: name a file with --db, not a folder",
                path.display()
            ),
            source: std::io::ErrorKind::IsADirectory.into(),
        };
    }
    StoreError::from_sqlite(path, source)
}

fn refuse_newer(path: &Path, found: i64) -> Result<(), StoreError> {
    if found <= schema::VERSION {
        return Ok(());
    }
    Err(StoreError::Newer {
        path: path.to_path_buf(),
        found,
        known: schema::VERSION,
    })
}

/// An SQLite file of another program is not taken over.
fn refuse_foreign(path: &Path, stamp: &Stamp) -> Result<(), StoreError> {
    if stamp.is_new() || (stamp.application == schema::APPLICATION_ID && stamp.version > 0) {
        return Ok(());
    }
    let detail = format!(
        "an SQLite file of another program: application id {:#x}, {} tables and indexes",
        stamp.application, stamp.tables
    );
    Err(StoreError::Damaged {
        path: path.to_path_buf(),
        detail,
    })
}
