//! `acpbox vms delete`: a stopped VM's disk and its entry.

use super::{find, holders};
use crate::cli::args::VmsDeleteArguments;
use crate::cli::confirm::confirm;
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::store::{Store, VmRow};
use crate::vm::disk;
use anyhow::Context as _;

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
    let is_removed = disk::remove_unused(&row.state_dir)
        .with_context(|| format!("cannot delete {}", row.state_dir.display()))?;
    if !is_removed {
        refuse_running(&row)?;
        anyhow::bail!("VM `{}` is in use; stop it first", row.name);
    }
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
