//! `acpbox vms list`.

use std::path::Path;

use serde::Serialize;

use crate::acp::extension::VmState;
use crate::cli::args::JsonArguments;
use crate::cli::context::Context;
use crate::cli::exit::{self, Code};
use crate::cli::output::{self, Output};
use crate::cli::table;
use crate::server::sessions::timestamp;
use crate::store::{Store, VmRow};

/// A VM as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VmInfo<'a> {
    name: &'a str,
    driver: &'a str,
    state: VmState,
    workspaces: &'a [std::path::PathBuf],
    /// The acpbox processes in which it runs.
    holders: Vec<u32>,
    /// What persists of it.
    state_dir: &'a Path,
    /// ISO 8601.
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    booted_at: Option<String>,
}

pub(super) async fn run(
    context: &Context,
    store: &Store,
    arguments: &JsonArguments,
) -> anyhow::Result<Code> {
    let rows = store.vms().await?;
    let infos: Vec<VmInfo> = rows.iter().map(info).collect();
    let mut output = Output::new();
    if arguments.json {
        output.json(&infos)?;
        output.flush()?;
        return Ok(exit::DONE);
    }
    if infos.is_empty() {
        output::say("there are no VMs yet; the first session in a folder makes one");
    } else {
        let cells = infos.iter().zip(&rows).map(|(info, row)| {
            let workspaces: Vec<_> = info
                .workspaces
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            vec![
                info.name.to_owned(),
                state(info),
                info.driver.to_owned(),
                row.booted.map(table::age).unwrap_or_default(),
                workspaces.join(", "),
            ]
        });
        let header = ["name", "state", "driver", "booted", "workspaces"];
        table::print(&mut output, &header, 4, cells)?;
    }
    output.flush()?;
    let unused: Vec<&str> = context
        .config
        .vm_names()
        .filter(|name| rows.iter().all(|row| row.name != *name))
        .collect();
    if !unused.is_empty() {
        output::say(&format!(
            "configured and not used yet: {}",
            unused.join(", ")
        ));
    }
    Ok(exit::DONE)
}

fn info(row: &VmRow) -> VmInfo<'_> {
    let holders = super::holders(row);
    VmInfo {
        name: &row.name,
        driver: &row.driver,
        state: if holders.is_empty() {
            VmState::Stopped
        } else {
            VmState::Running
        },
        workspaces: &row.workspaces,
        holders,
        state_dir: &row.state_dir,
        created_at: timestamp(row.created),
        booted_at: row.booted.map(timestamp),
    }
}

fn state(info: &VmInfo<'_>) -> String {
    if info.holders.is_empty() {
        return "stopped".to_owned();
    }
    let holders: Vec<String> = info.holders.iter().map(u32::to_string).collect();
    format!("running in {}", holders.join(", "))
}
