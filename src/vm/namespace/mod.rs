//! Driver `namespace`: a user-namespace guest started with bubblewrap.
//!
//! One `bwrap` per VM, with acpbox itself as process 1 of the guest. Reading
//! order: [`state`] is what persists, [`workspace`] what is shared (with
//! [`git`]), [`protect`] what is read-only in it ([`placeholder`] where it is
//! absent, [`sentinel`] where no mount can hold it), [`root`] and [`etc`]
//! everything else the guest sees, [`sandbox`] the command line that says it all.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::cgroup::{self, Cgroups};
use super::executable::Executable;
use super::keeper::{self, Attendant, Launch};
use super::{BootError, Check, Driver, Vm, VmSpec};
use placeholder::Placeholders;
use sentinel::Sentinels;
use state::State;

mod arguments;
mod bubblewrap;
mod etc;
mod git;
mod loader;
mod placeholder;
mod probe;
mod protect;
mod root;
mod sandbox;
mod sentinel;
mod state;
mod workspace;

pub(super) const NAME: &str = "namespace";

/// The guest's user and group, whoever runs acpbox.
const USER: u32 = 1000;
const USER_NAME: &str = "agent";

pub(super) struct Namespace {
    executable: Arc<Executable>,
}

impl Namespace {
    pub(super) fn new(executable: PathBuf) -> Namespace {
        Namespace {
            executable: Arc::new(Executable::open(executable)),
        }
    }
}

impl Driver for Namespace {
    fn name(&self) -> &'static str {
        NAME
    }

    fn boot(&self, spec: VmSpec) -> BoxFuture<'_, Result<Arc<dyn Vm>, BootError>> {
        let executable = self.executable.clone();
        async move {
            keeper::start(spec.name.clone(), move || prepare(executable, &spec))
                .await
                .map_err(probe::explain)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Vec<Check>> {
        async {
            tokio::task::spawn_blocking(probe::probe)
                .await
                .unwrap_or_default()
        }
        .boxed()
    }
}

fn prepare(executable: Arc<Executable>, spec: &VmSpec) -> Result<Launch, BootError> {
    let bubblewrap = bubblewrap::find()?;
    let state = State::open(spec)?;
    let shares = workspace::shares(spec, state.folder())?;
    let mut protection = protect::plan(&shares, &spec.protected)?;
    let placeholders = Placeholders::make(&mut protection, state.records())?;
    let cgroups = Cgroups::make(&spec.name, &spec.limits);

    let mut warnings = shares.warnings.clone();
    warnings.append(&mut protection.warnings);
    let (sentinels, mut unwatched) = Sentinels::new(std::mem::take(&mut protection.watched));
    warnings.append(&mut unwatched);
    // Everything made so far is undone by the attendant from here on.
    let mut attendant = Occupant {
        cgroups,
        placeholders,
        sentinels,
        memory: spec.limits.memory,
        limits_processes: spec.limits.processes.is_some(),
        _state: state,
    };
    let command = sandbox::command(&sandbox::Plan {
        bubblewrap: &bubblewrap,
        executable: &executable,
        spec,
        state: &attendant._state,
        shares: &shares,
        protection: &protection,
        cgroups: &attendant.cgroups,
    });
    match command {
        Ok(command) => Ok(Launch {
            command,
            home: PathBuf::from(crate::vm::GUEST_HOME),
            executable,
            warnings,
            killable: true,
            attendant: Box::new(attendant),
        }),
        Err(error) => {
            attendant.ended();
            Err(error)
        }
    }
}

/// What a running guest occupies on the host.
struct Occupant {
    cgroups: Cgroups,
    placeholders: Placeholders,
    sentinels: Sentinels,
    memory: Option<u64>,
    limits_processes: bool,
    /// Last, so that its lock is released after everything is cleaned up.
    _state: State,
}

impl Attendant for Occupant {
    fn started(&mut self, pid: u32) -> Vec<String> {
        let joined = self.cgroups.contain(pid);
        let mut warnings = Vec::new();
        if self.memory.is_some() && !(joined && self.cgroups.holds_memory()) {
            warnings.push(cgroup::missing_limit("memory"));
        }
        let counted = joined && self.cgroups.holds_processes();
        if self.limits_processes && !counted && !sandbox::counts_processes_itself() {
            warnings.push(cgroup::missing_limit("processes"));
        }
        warnings
    }

    fn notifier(&self) -> Option<BorrowedFd<'_>> {
        self.sentinels.notifier()
    }

    fn notified(&mut self) -> Option<String> {
        self.sentinels.check()
    }

    fn ended(&mut self) -> Option<String> {
        let refused = self.sentinels.check();
        let killed = self.cgroups.killed_for_memory();
        self.cgroups.remove();
        self.placeholders.remove();
        if refused.is_some() {
            return refused;
        }
        let limit = self.memory.filter(|_| killed > 0)?;
        Some(format!(
            "{killed} of its processes were killed at its memory limit of {limit} bytes; \
             raise `memory`"
        ))
    }
}
