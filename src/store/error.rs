//! What can go wrong with a database, each with what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path}: {source}", path = .path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the database {path} was written by a newer acpbox (schema {found}, this one knows {known}); update acpbox or name another file with --db", path = .path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("the database {path} is damaged ({detail}); it was left as it is: end what uses it and move it away, or name another file with --db; `sqlite3 {path} .recover` shows what can be read of it", path = .path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("the disk that holds the database {path} is full ({detail}); what was stored before is intact: free some space and go on, or name a file on another disk with --db", path = .path.display())]
    Full { path: PathBuf, detail: String },
    #[error("the database {path} stayed locked by another process for {} s; end that process (`fuser {path}` names it), wait if it is an acpbox that brings the file up to date, or name another file with --db", BUSY_SECONDS, path = .path.display())]
    Busy { path: PathBuf },
    #[error("no session {id} in the database {path}; `acpbox sessions list` shows those that exist", path = .path.display())]
    UnknownSession { path: PathBuf, id: String },
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error("the database's writer has stopped")]
    Stopped,
}

/// How long a lock held by another process is waited for.
pub(super) const BUSY_SECONDS: u64 = 10;

impl StoreError {
    /// Sorts what SQLite reports into what a person can do about it.
    pub(super) fn from_sqlite(path: &Path, source: rusqlite::Error) -> StoreError {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::DiskFull) => StoreError::Full {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::DatabaseBusy) => StoreError::Busy { path },
            // The index of the log could not grow: SQLite does not say why, but makes
            // sure of its pages to find out whether there is space.
            _ if source.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) => {
                StoreError::Full {
                    path,
                    detail: source.to_string(),
                }
            }
            _ => match source {
                // A column of another type or of bytes that are not UTF-8: no
                // statement of ours wrote it.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => StoreError::Damaged {
                    path,
                    detail: source.to_string(),
                },
                source => StoreError::Sqlite { path, source },
            },
        }
    }
}

/// Why one piece of work inside the database failed, before the path is known.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    UnknownSession(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl Fault {
    /// Whether the job itself is to blame, so that the rest of its group may
    /// succeed without it; otherwise the disk, a lock or the file is.
    pub(super) fn blames_the_job(&self) -> bool {
        match self {
            Fault::UnknownSession(_) => true,
            Fault::Sqlite(rusqlite::Error::IntegralValueOutOfRange(..)) => true,
            Fault::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
            ),
        }
    }

    /// The same fault for one more member of a group.
    pub(super) fn again(&self) -> Fault {
        match self {
            Fault::UnknownSession(id) => Fault::UnknownSession(id.clone()),
            Fault::Sqlite(rusqlite::Error::SqliteFailure(error, message)) => {
                Fault::Sqlite(rusqlite::Error::SqliteFailure(*error, message.clone()))
            }
            Fault::Sqlite(other) => Fault::Sqlite(rusqlite::Error::SqliteFailure(
                ffi::Error::new(
                    other
                        .sqlite_extended_error_code()
                        .unwrap_or(ffi::SQLITE_ERROR),
                ),
                Some(other.to_string()),
            )),
        }
    }

    pub(super) fn into_error(self, path: &Path) -> StoreError {
        match self {
            Fault::Sqlite(error) => StoreError::from_sqlite(path, error),
            Fault::UnknownSession(id) => StoreError::UnknownSession {
                path: path.to_path_buf(),
                id,
            },
        }
    }
}
