//! Answers that are remembered until they are revoked.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use super::database::Database;
use super::error::{Fault, StoreError};
use super::paths::StoredPath;
use super::rows::PermissionRow;

const COLUMNS: &str = "id, agent, workspace, kind, scope, subject, decision, created, session";

impl Store {
    /// Keeps an answer, in place of an earlier one for the same thing; `id` is
    /// given here and returned.
    pub async fn remember_permission(&self, row: &PermissionRow) -> Result<i64, StoreError> {
        let row = row.clone();
        self.write(move |database| remember(database, &row)).await
    }

    /// The remembered answer for the same agent, workspace, kind, scope and
    /// subject as this row's. Reads at once, on this thread: one row by its index.
    pub fn permission_for(
        &self,
        like: &PermissionRow,
    ) -> Result<Option<PermissionRow>, StoreError> {
        self.readers.read_here(|connection| find(connection, like))
    }

    /// All remembered answers, oldest first.
    pub async fn permissions(&self) -> Result<Vec<PermissionRow>, StoreError> {
        self.readers.read(list).await
    }

    /// Forgets the answer of this id, or all. Returns how many there were.
    pub async fn revoke_permissions(&self, id: Option<i64>) -> Result<usize, StoreError> {
        self.write(move |database| revoke(database, id)).await
    }
}

/// Keeps an answer, in place of an earlier one for the same thing. Returns its
/// id, which no other answer ever gets; a new answer is a new one.
fn remember(database: &mut Database, row: &PermissionRow) -> Result<i64, Fault> {
    let workspace = StoredPath(&row.workspace);
    database
        .statement(
            "DELETE FROM permissions
             WHERE agent = ?1 AND workspace = ?2 AND kind = ?3 AND scope = ?4 AND subject = ?5",
        )?
        .execute(params![
            row.agent,
            workspace,
            row.kind,
            row.scope,
            row.subject
        ])?;
    database
        .statement(
            "INSERT INTO permissions(agent, workspace, kind, scope, subject, decision, created, session)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row.agent,
            workspace,
            row.kind,
            row.scope,
            row.subject,
            row.decision,
            row.created,
            row.session
        ])?;
    Ok(database.connection.last_insert_rowid())
}

/// The answer for just what this row is about.
fn find(connection: &Connection, like: &PermissionRow) -> Result<Option<PermissionRow>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM permissions
         WHERE agent = ?1 AND workspace = ?2 AND kind = ?3 AND scope = ?4 AND subject = ?5"
    ))?;
    let workspace = StoredPath(&like.workspace);
    let values = params![like.agent, workspace, like.kind, like.scope, like.subject];
    Ok(statement.query_row(values, read).optional()?)
}

/// All of them, oldest first.
fn list(connection: &Connection) -> Result<Vec<PermissionRow>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM permissions ORDER BY id"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Forgets one, or all. Returns how many.
fn revoke(database: &mut Database, id: Option<i64>) -> Result<usize, Fault> {
    Ok(database
        .statement("DELETE FROM permissions WHERE ?1 IS NULL OR id = ?1")?
        .execute([id])?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<PermissionRow> {
    Ok(PermissionRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        workspace: StoredPath::read(row, 2)?,
        kind: row.get(3)?,
        scope: row.get(4)?,
        subject: row.get(5)?,
        decision: row.get(6)?,
        created: row.get(7)?,
        session: row.get(8)?,
    })
}
