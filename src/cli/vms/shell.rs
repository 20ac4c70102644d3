//! `acpbox vms shell`: a look into a VM.

use std::path::{Path, PathBuf};

use super::console::{self, Console};
use super::{find, holders};
use crate::agent::catalog::EXAMPLE;
use crate::cli::args::VmsShellArguments;
use crate::cli::context::{self, Context};
use crate::cli::exit::{self, Code, Usage};
use crate::cli::output;
use crate::config::Config;
use crate::session::Host;
use crate::session::vms::Running;
use crate::store::{Store, StoreError, VmRow};
use crate::vm::{Exit, ProcessSpec, SpawnError};

const SHELL: &str = "/bin/bash";

/// What shells exit with when there is no such command.
const NOT_FOUND: Code = Code(127);

pub(super) fn run(context: Context, arguments: &VmsShellArguments) -> anyhow::Result<Code> {
    let runtime = context::runtime()?;
    let code = runtime.block_on(async {
        let here = std::env::current_dir()?;
        let server = context.server()?;
        let host = &server.host;
        let outcome = enter(host, &here, arguments).await;
        host.shutdown().await;
        outcome
    });
    // A read of standard input cannot be called off.
    runtime.shutdown_background();
    code
}

async fn enter(host: &Host, here: &Path, arguments: &VmsShellArguments) -> anyhow::Result<Code> {
    let row = wanted(&host.config, &host.store, here, arguments.name.as_deref()).await?;
    if let Some(holder) = holders(&row).first() {
        output::say(&format!(
            "VM `{}` runs in process {holder}; this is a second guest on the same disk, which \
             does not see the processes of the first",
            row.name
        ));
    }
    host.wake(&row).await?;
    let Some(running) = host.vms.running(&row.name).await else {
        anyhow::bail!("VM `{}` ended as soon as it had booted", row.name);
    };
    let console = Console::detect();
    let spec = process(host, &running, here, &arguments.command, &console)?;
    let name = spec.command.clone();
    let process = match running.vm.spawn(spec).await {
        Ok(process) => process,
        Err(error @ SpawnError::NotFound { .. }) => {
            output::say(&error.to_string());
            return Ok(NOT_FOUND);
        }
        Err(error) => return Err(error.into()),
    };
    match console::attach(console, process).await? {
        Exit::Code(code) => Ok(Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX))),
        Exit::Signal(signal) => Ok(Code(u8::try_from(128 + signal).unwrap_or(u8::MAX))),
        Exit::Lost(reason) => {
            output::say(&format!("`{name}` was lost: {reason}"));
            Ok(exit::AGENT)
        }
    }
}

/// A VM that exists, one that is configured, or the one of this folder.
async fn wanted(
    config: &Config,
    store: &Store,
    here: &Path,
    name: Option<&str>,
) -> anyhow::Result<VmRow> {
    let Some(name) = name else {
        let plan = config.vm_for(None, here, &[])?;
        return Ok(known(store, &plan.spec.name).await?.unwrap_or(VmRow {
            workspaces: plan.spec.workspaces,
            ..unused(&plan.spec.name, &plan.driver, plan.spec.state_dir)
        }));
    };
    if config.vm_names().any(|declared| declared == name) {
        let settings = config.vm_settings(name);
        if settings.workspaces.is_empty() {
            return Err(Usage(format!(
                "VM `{name}` has no workspaces; name some under [vms.{name}]"
            ))
            .into());
        }
        // What is configured counts, not what it was booted with before.
        return Ok(VmRow {
            workspaces: settings.workspaces.clone(),
            ..unused(name, &settings.driver, config.paths.vms_dir.join(name))
        });
    }
    find(store, name).await
}

async fn known(store: &Store, name: &str) -> Result<Option<VmRow>, StoreError> {
    let rows = store.vms().await?;
    Ok(rows.into_iter().find(|row| row.name == name))
}

fn unused(name: &str, driver: &str, state_dir: PathBuf) -> VmRow {
    VmRow {
        name: name.to_owned(),
        driver: driver.to_owned(),
        workspaces: Vec::new(),
        state_dir,
        created: 0,
        booted: None,
        holder: 0,
    }
}

/// The command with the environment that agents get, but for a terminal's own.
fn process(
    host: &Host,
    running: &Running,
    here: &Path,
    command: &[String],
    console: &Console,
) -> anyhow::Result<ProcessSpec> {
    let workspaces = &running.spec.workspaces;
    let plan = host
        .config
        .vm_for(Some(&running.spec.name), &workspaces[0], &workspaces[1..])?;
    // It runs wherever acpbox does, and has no variables of its own.
    let example = host.catalog.get(EXAMPLE)?;
    let located = host.locate(example, &plan)?;
    let mut env = example.environment(&host.environment, &located, &plan.guest);
    let is_terminal = matches!(console, Console::Terminal { .. });
    if let Some(term) = host.environment.variable("TERM").filter(|_| is_terminal) {
        env.insert("TERM".to_owned(), term.to_owned());
    }
    let here = here.canonicalize().unwrap_or_else(|_| here.to_path_buf());
    let is_shared = workspaces.iter().any(|folder| here.starts_with(folder));
    let (program, args) = match command {
        [] => (SHELL.to_owned(), Vec::new()),
        [program, args @ ..] => (program.clone(), args.to_vec()),
    };
    Ok(ProcessSpec {
        command: program,
        args,
        env,
        cwd: if is_shared {
            here
        } else {
            workspaces[0].clone()
        },
        files: Vec::new(),
        io: console.io(),
    })
}
