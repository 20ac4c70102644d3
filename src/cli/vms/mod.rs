//! `acpbox vms`: the VMs that exist. One runs inside the acpbox process that
//! booted it, and that one's lock on the VM's folder tells who that is.

mod list;
mod stop;
mod busy;
mod delete;
mod shell;
mod console;

use std::path::PathBuf;

use super::args::{Global, VmsCommand};
use super::context::{self, Context};
use super::exit::{Code, Usage};
use super::locks;
use crate::config::nearest;
use crate::store::{Store, VmRow};
use crate::vm::disk;

pub(super) fn run(global: &Global, command: &VmsCommand) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    if let VmsCommand::Shell(arguments) = command {
        return shell::run(context, arguments);
    }
    context::runtime()?.block_on(async {
        let store = context.store()?;
        let code = match command {
            VmsCommand::List(arguments) => list::run(&context, &store, arguments).await?,
            VmsCommand::Stop(arguments) => stop::run(&context, &store, arguments).await?,
            VmsCommand::Delete(arguments) => delete::run(&store, arguments).await?,
            VmsCommand::Shell(_) => unreachable!("it has a runtime of its own"),
        };
        store.close().await?;
        Ok(code)
    })
}

/// The VM of this name.
async fn find(store: &Store, name: &str) -> anyhow::Result<VmRow> {
    let rows = store.vms().await?;
    let near = nearest(name, rows.iter().map(|row| row.name.as_str())).map(str::to_owned);
    match rows.into_iter().find(|row| row.name == name) {
        Some(row) => Ok(row),
        None => Err(Usage(format!(
            "there is no VM `{name}`; {}`acpbox vms list` names those there are",
            near.map(|near| format!("did you mean `{near}`? "))
                .unwrap_or_default()
        ))
        .into()),
    }
}

/// The file that every process with a guest of this VM holds a lock on.
fn lock_file(row: &VmRow) -> PathBuf {
    disk::lock_file(&row.state_dir)
}

/// The acpbox processes in which the VM runs.
fn holders(row: &VmRow) -> Vec<u32> {
    let holders = locks::holders(&lock_file(row));
    if holders.is_empty() && row.driver == "host" && is_acpbox(row.holder) {
        // That driver has nothing to share, and no lock.
        return vec![row.holder];
    }
    holders
}

/// Whether a process is still acpbox: ids are given out again.
fn is_acpbox(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    pid != 0 && name.is_ok_and(|name| name.trim() == "acpbox")
}
