//! Paths in columns: text where they are UTF-8, bytes where they are not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::Row;
use rusqlite::types::{ToSql, ToSqlOutput, Type, ValueRef};

pub(super) struct StoredPath<'a>(pub(super) &'a Path);

impl ToSql for StoredPath<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes = self.0.as_os_str().as_bytes();
        let value = if self.0.to_str().is_some() {
            ValueRef::Text(bytes)
        } else {
            ValueRef::Blob(bytes)
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

impl StoredPath<'_> {
    pub(super) fn read(row: &Row<'_>, column: usize) -> rusqlite::Result<PathBuf> {
        match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Ok(PathBuf::from(OsStr::from_bytes(bytes)))
            }
            _ => Err(rusqlite::Error::InvalidColumnType(
                column,
                "path".into(),
                Type::Null,
            )),
        }
    }
}
