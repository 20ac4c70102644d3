//! `acpbox vms delete`: a stopped VM's disk and its entry.

use std::fs::File;

use anyhow::Context as _;
use rustix::fs::FlockOperation;

use super::{find, holders, lock_file};
use crate::cli::args::VmsDeleteArguments;
use crate::cli::confirm::confirm;
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::store::{Store, VmRow};
use crate::vm::disk;

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
    disk::remove(&row.state_dir)
        .with_context(|| format!("cannot delete {}", row.state_dir.display()))?;
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
