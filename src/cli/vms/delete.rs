//! `acpbox vms delete`: a stopped VM's disk and its entry.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::FlockOperation;

use super::{find, holders, lock_file};
use crate::cli::args::VmsDeleteArguments;
use crate::cli::confirm::confirm;
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::store::{Store, VmRow};

pub(super) async fn run(store: &Store, arguments: &VmsDeleteArguments) -> anyhow::Result<Code> {
    let row = find(store, &arguments.name).await?;
    refuse_running(&row)?;
    let question = format!(
        "Delete VM `{}` with its disk {}? Workspaces and transcripts stay.",
        row.name,
        row.state_dir.display()
    );
    if !confirm(&question, arguments.yes)? {
        output::say("nothing was deleted");
        return Ok(exit::CANCELLED);
    }
    // Nobody boots it while its disk goes.
    let _lock = lock(&row)?;
    remove(&row.state_dir).with_context(|| format!("cannot delete {}", row.state_dir.display()))?;
    store.delete_vm(&row.name).await?;
    output::say(&format!("deleted VM `{}`", row.name));
    Ok(exit::DONE)
}

fn refuse_running(row: &VmRow) -> anyhow::Result<()> {
    if let Some(holder) = holders(row).first() {
        anyhow::bail!(
            "VM `{}` runs in process {holder}; stop it first with `acpbox vms stop {}`",
            row.name,
            row.name
        );
    }
    Ok(())
}

/// `None` where there is nothing to lock.
fn lock(row: &VmRow) -> anyhow::Result<Option<File>> {
    let Ok(file) = File::options().write(true).open(lock_file(row)) else {
        return Ok(None);
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => {
            refuse_running(row)?;
            anyhow::bail!("VM `{}` is in use; stop it first", row.name)
        }
    }
}

/// Removes a folder; tools leave read-only ones in it (Go's module cache), whose
/// files cannot be removed as they are.
fn remove(folder: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes every folder below writable. Links are not followed.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_forbid_it_are_removed_too() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs::create_dir_all(disk.join("cache/module")).unwrap();
        fs::write(disk.join("cache/module/file"), "x").unwrap();
        fs::set_permissions(disk.join("cache/module"), Permissions::from_mode(0o500)).unwrap();
        remove(&disk).unwrap();
        assert!(!disk.exists());
        remove(&disk).unwrap();
    }
}
