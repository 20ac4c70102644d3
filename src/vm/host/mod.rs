//! Driver `host`: no isolation at all, for tests and for systems without one.
//!
//! Processes run as the user, with the user's files and network. They still
//! end with the VM: a supervisor (`acpbox guest`, as subreaper) kills every
//! descendant when acpbox goes away. It is in a session of its own, so that
//! what kills acpbox's process group does not kill the supervisor first.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::executable::Executable;
use super::guest::{SUBCOMMAND, protocol::GuestConfig};
use super::keeper::{self, Attendant, Launch};
use super::{BootError, Check, Driver, Network, Outcome, Root, Vm, VmSpec};

pub(super) const NAME: &str = "host";

pub(super) struct Host {
    executable: Arc<Executable>,
}

impl Host {
    pub(super) fn new(executable: PathBuf) -> Host {
        Host {
            executable: Arc::new(Executable::open(executable)),
        }
    }
}

impl Driver for Host {
    fn name(&self) -> &'static str {
        NAME
    }

    fn boot(&self, spec: VmSpec) -> BoxFuture<'_, Result<Arc<dyn Vm>, BootError>> {
        let executable = self.executable.clone();
        keeper::start(spec.name.clone(), move || prepare(executable, &spec)).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Vec<Check>> {
        async {
            vec![Check {
                what: "isolation".to_owned(),
                outcome: Outcome::Degraded(
                    "driver `host` isolates nothing; use driver `namespace` where it works"
                        .to_owned(),
                ),
            }]
        }
        .boxed()
    }
}

fn prepare(executable: Arc<Executable>, spec: &VmSpec) -> Result<Launch, BootError> {
    let home = spec.state_dir.join("home");
    let home = std::fs::create_dir_all(&home)
        .and_then(|()| std::fs::canonicalize(&home))
        .map_err(|source| BootError::Io {
            what: format!("cannot make {}", home.display()),
            source,
        })?;
    let config = GuestConfig {
        isolated: false,
        scoped: false,
        open_files: spec.limits.open_files,
        // The kernel would count all of the user's processes.
        processes: None,
    };
    let config = serde_json::to_string(&config).map_err(|error| BootError::Io {
        what: "cannot describe the guest".to_owned(),
        source: error.into(),
    })?;
    let mut command = executable.command()?;
    command
        .arg0("acpbox")
        .arg(SUBCOMMAND)
        .arg(config)
        .env_clear();
    Ok(Launch {
        command,
        home,
        executable,
        warnings: missing(spec),
        killable: false,
        attendant: Box::new(Nothing),
    })
}

/// What the specification asks for and no isolation means.
fn missing(spec: &VmSpec) -> Vec<String> {
    let mut warnings = vec![format!(
        "VM `{}` runs with driver `host`: its processes can read and change everything that you can",
        spec.name
    )];
    let mut ignored = Vec::new();
    if spec.network == Network::None {
        ignored.push("network = \"none\"");
    }
    if spec.root != Root::Host {
        ignored.push("root");
    }
    if !spec.mounts.is_empty() {
        ignored.push("mounts");
    }
    if spec.limits.memory.is_some() {
        ignored.push("memory");
    }
    if spec.limits.processes.is_some() {
        ignored.push("processes");
    }
    if !spec.protected.is_empty() {
        ignored.push("protected");
    }
    if !ignored.is_empty() {
        warnings.push(format!(
            "driver `host` cannot honour {}; use driver `namespace`",
            ignored.join(", ")
        ));
    }
    warnings
}

struct Nothing;

impl Attendant for Nothing {
    fn started(&mut self, _pid: u32) -> Vec<String> {
        Vec::new()
    }

    fn ended(&mut self) -> Option<String> {
        None
    }
}
