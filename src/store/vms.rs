//! The VMs that exist, and the named values of the settings table.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, params};

use super::database::Database;
use super::error::Fault;
use super::paths::StoredPath;
use super::rows::VmRow;

pub(super) fn upsert(database: &mut Database, vm: &VmRow) -> Result<(), Fault> {
    database
        .statement(
            "INSERT INTO vms(name, driver, state_dir, created, booted, holder) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(name) DO UPDATE SET driver = excluded.driver, state_dir = excluded.state_dir,
                created = excluded.created, booted = excluded.booted, holder = excluded.holder",
        )?
        .execute(params![vm.name, vm.driver, StoredPath(&vm.state_dir), vm.created, vm.booted, vm.holder])?;
    database
        .statement("DELETE FROM vm_workspaces WHERE vm = ?1")?
        .execute([&vm.name])?;
    let mut insert =
        database.statement("INSERT INTO vm_workspaces(vm, position, path) VALUES (?1, ?2, ?3)")?;
    for (position, path) in (0_i64..).zip(&vm.workspaces) {
        insert.execute(params![vm.name, position, StoredPath(path)])?;
    }
    Ok(())
}

/// All of them, by name.
pub(super) fn list(connection: &Connection) -> Result<Vec<VmRow>, Fault> {
    // One statement, so that a VM and its workspaces are of one moment.
    let mut statement = connection.prepare_cached(
        "SELECT name, driver, state_dir, created, booted, holder, path
         FROM vms LEFT JOIN vm_workspaces ON vm = name ORDER BY name, position",
    )?;
    let mut rows = statement.query([])?;
    let mut vms: Vec<VmRow> = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if vms.last().is_none_or(|vm| vm.name != name) {
            vms.push(VmRow {
                name,
                driver: row.get(1)?,
                workspaces: Vec::new(),
                state_dir: StoredPath::read(row, 2)?,
                created: row.get(3)?,
                booted: row.get(4)?,
                holder: row.get(5)?,
            });
        }
        let path: Option<PathBuf> = match row.get_ref(6)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(StoredPath::read(row, 6)?),
        };
        if let Some(vm) = vms.last_mut() {
            vm.workspaces.extend(path);
        }
    }
    Ok(vms)
}

pub(super) fn delete(database: &mut Database, name: &str) -> Result<bool, Fault> {
    Ok(database
        .statement("DELETE FROM vms WHERE name = ?1")?
        .execute([name])?
        > 0)
}

pub(super) fn setting(connection: &Connection, key: &str) -> Result<Option<String>, Fault> {
    let mut statement = connection.prepare_cached("SELECT value FROM settings WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

pub(super) fn set_setting(database: &mut Database, key: &str, value: &str) -> Result<(), Fault> {
    database
        .statement(
            "INSERT INTO settings(key, value) VALUES (?1, ?2)
             ON CONFLICT(key) DO UPDATE SET value = excluded.value",
        )?
        .execute([key, value])?;
    Ok(())
}
