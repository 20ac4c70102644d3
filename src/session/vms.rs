//! The VMs that this process runs, each booted once and shared by its sessions.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::state::now;
use crate::acp::{Failure, Phase};
use crate::config::VmPlan;
use crate::store::{Store, VmRow};
use crate::vm::{self, Mount, Vm, VmSpec};

pub struct Vms {
    store: Store,
    executable: PathBuf,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Those that sleep until somebody needs them.
    asleep: Mutex<HashSet<String>>,
}

/// One VM's place; its lock is held while the VM boots or stops.
type Slot = tokio::sync::Mutex<Option<Running>>;

#[derive(Clone)]
pub struct Running {
    pub vm: Arc<dyn Vm>,
    /// Held by whoever needs the VM: agents in it, and those that start one.
    pub usage: Arc<Usage>,
    pub driver: String,
    /// Without the placeholders and mounts that the driver adds.
    pub spec: VmSpec,
}

/// The use of a VM, which nobody needs where only its own place holds this.
#[derive(Debug)]
pub struct Usage {
    last: Mutex<Instant>,
}

/// What became of a VM that was to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Yes,
    /// Somebody needs it.
    InUse,
    /// Not in this process.
    NotRunning,
}

impl Usage {
    fn new() -> Arc<Usage> {
        let last = Mutex::new(Instant::now());
        Arc::new(Usage { last })
    }

    /// Somebody came or went.
    pub fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vms {
    /// `executable` is acpbox itself, which the guests run.
    pub fn new(store: Store, executable: PathBuf) -> Vms {
        Vms {
            store,
            executable,
            slots: Mutex::default(),
            asleep: Mutex::default(),
        }
    }

    /// Where a guest of this driver finds acpbox itself.
    pub fn executable_in_guest(&self, driver: &str) -> PathBuf {
        vm::executable_in_guest(driver, &self.executable)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        Arc::clone(self.slots().entry(name.to_owned()).or_default())
    }

    /// The running VM of a plan, booted if need be. Only one that nobody uses is
    /// booted anew for other mounts.
    pub async fn get(&self, plan: &VmPlan, mounts: Vec<Mount>) -> Result<Running, Failure> {
        let slot = self.slot(&plan.spec.name);
        let mut slot = slot.lock().await;
        if let Some(running) = slot.as_ref()
            && running.vm.ended().borrow().is_none()
        {
            match running.lacks(plan, &mounts) {
                None => {
                    running.usage.touch();
                    return Ok(running.clone());
                }
                // Live sessions hold it, and so do those that are being started.
                Some(lacking) if Arc::strong_count(&running.usage) > 1 => {
                    let what =
                        format!("VM `{}` runs without {}", plan.spec.name, lacking.display());
                    return Err(Failure::invalid_params(what).hint(
                        "its mounts are fixed when it boots: close its sessions, or add the folder to the VM's workspaces in the configuration",
                    ));
                }
                Some(_) => running.vm.shutdown().await,
            }
        }
        let running = self.boot(plan, mounts).await?;
        self.asleep().remove(&plan.spec.name);
        *slot = Some(running.clone());
        Ok(running)
    }

    async fn boot(&self, plan: &VmPlan, mounts: Vec<Mount>) -> Result<Running, Failure> {
        let Some(driver) = vm::driver(&plan.driver, self.executable.clone()) else {
            let what = format!(
                "VM `{}`: there is no driver `{}`",
                plan.spec.name, plan.driver
            );
            let hint = format!("drivers are: {}", vm::DRIVERS.join(", "));
            return Err(Failure::internal(Phase::Boot, what).hint(hint));
        };
        let mut spec = plan.spec.clone();
        for mount in mounts {
            if !spec.mounts.contains(&mount) {
                spec.mounts.push(mount);
            }
        }
        let booted = driver.boot(spec.clone()).await;
        let vm = booted.map_err(|error| {
            Failure::internal(
                Phase::Boot,
                format!("VM `{}` did not boot: {error}", spec.name),
            )
            .hint("`acpbox doctor` checks what the driver needs")
        })?;
        for warning in vm.warnings() {
            // No isolation is said loudly. A limit that does not hold is in every
            // answer's `_meta` and in `doctor`: some editors take a line on stderr for an error.
            if plan.driver == "host" {
                tracing::warn!(vm = spec.name, "{warning}");
            } else {
                tracing::info!(vm = spec.name, "{warning}");
            }
        }
        let known = self
            .store
            .vms()
            .await?
            .into_iter()
            .find(|row| row.name == spec.name);
        self.store
            .upsert_vm(&VmRow {
                name: spec.name.clone(),
                driver: plan.driver.clone(),
                workspaces: spec.workspaces.clone(),
                state_dir: spec.state_dir.clone(),
                created: known.map_or_else(now, |row| row.created),
                booted: Some(now()),
                holder: std::process::id(),
            })
            .await?;
        Ok(Running {
            vm,
            usage: Usage::new(),
            driver: plan.driver.clone(),
            spec,
        })
    }

    /// A VM that runs in this process.
    pub async fn running(&self, name: &str) -> Option<Running> {
        let slot = self.slots().get(name).map(Arc::clone)?;
        let slot = slot.lock().await;
        slot.clone()
            .filter(|running| running.vm.ended().borrow().is_none())
    }

    /// Stops a VM until somebody needs it; one that is in use only by `force`.
    pub async fn sleep(&self, name: &str, force: bool) -> Stopped {
        let stopped = self.end(name, force).await;
        if stopped == Stopped::Yes {
            self.asleep().insert(name.to_owned());
        }
        stopped
    }

    /// Stops a VM, whoever uses it. `false` if it does not run in this process.
    pub async fn stop(&self, name: &str) -> bool {
        let stopped = self.end(name, true).await;
        self.asleep().remove(name);
        stopped == Stopped::Yes
    }

    async fn end(&self, name: &str, force: bool) -> Stopped {
        let Some(slot) = self.slots().get(name).map(Arc::clone) else {
            return Stopped::NotRunning;
        };
        // Held to the end, so that nobody boots it while it still stops.
        let mut slot = slot.lock().await;
        match slot.as_ref() {
            None => return Stopped::NotRunning,
            Some(running) if !force && Arc::strong_count(&running.usage) > 1 => {
                return Stopped::InUse;
            }
            Some(running) => running.vm.shutdown().await,
        }
        *slot = None;
        self.note_stop(name).await;
        Stopped::Yes
    }

    /// A VM that is deleted does not sleep.
    pub fn forget(&self, name: &str) {
        self.asleep().remove(name);
    }

    /// Whether this process put the VM to sleep, and nobody needed it since.
    pub fn is_asleep(&self, name: &str) -> bool {
        self.asleep().contains(name)
    }

    fn asleep(&self) -> MutexGuard<'_, HashSet<String>> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VMs that were booted in this process; some have ended since.
    pub fn names(&self) -> Vec<String> {
        self.slots().keys().cloned().collect()
    }

    /// When somebody last came to a running VM or left it.
    pub async fn last_use(&self, name: &str) -> Option<Instant> {
        Some(self.running(name).await?.usage.last())
    }

    /// Stops all, as the process ends.
    pub async fn stop_all(&self) {
        let names = self.names();
        futures::future::join_all(names.iter().map(|name| self.stop(name))).await;
    }

    async fn note_stop(&self, name: &str) {
        let noted = async {
            let rows = self.store.vms().await?;
            // Another process may have booted the same VM meanwhile.
            let ours = |row: &VmRow| row.name == name && row.holder == std::process::id();
            if let Some(row) = rows.into_iter().find(ours) {
                self.store.upsert_vm(&VmRow { holder: 0, ..row }).await?;
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, name, "the VM's stop could not be noted");
        }
    }
}

impl Running {
    /// What the plan needs and the VM was booted without.
    fn lacks(&self, plan: &VmPlan, mounts: &[Mount]) -> Option<PathBuf> {
        let has = |path: &Path| {
            self.spec
                .workspaces
                .iter()
                .any(|shared| path.starts_with(shared))
        };
        let workspace = plan.spec.workspaces.iter().find(|path| !has(path));
        let mount = mounts
            .iter()
            .find(|mount| !self.spec.mounts.contains(mount));
        workspace
            .cloned()
            .or_else(|| mount.map(|mount| mount.host.clone()))
    }
}
