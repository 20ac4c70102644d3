//! The VMs that this process runs, each booted once and shared by its sessions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::now;
use crate::acp::{Failure, Phase};
use crate::config::VmPlan;
use crate::store::{Store, VmRow};
use crate::vm::{self, Mount, Vm, VmSpec};

pub struct Vms {
    store: Store,
    executable: PathBuf,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// One VM's place; its lock is held while the VM boots or stops.
type Slot = tokio::sync::Mutex<Option<Running>>;

#[derive(Clone)]
pub struct Running {
    pub vm: Arc<dyn Vm>,
    pub driver: String,
    /// Without the placeholders and mounts that the driver adds.
    pub spec: VmSpec,
}

impl Vms {
    /// `executable` is acpbox itself, which the guests run.
    pub fn new(store: Store, executable: PathBuf) -> Vms {
        Vms {
            store,
            executable,
            slots: Mutex::default(),
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
                None => return Ok(running.clone()),
                // Live sessions hold it, and so do those that are being started.
                Some(lacking) if Arc::strong_count(&running.vm) > 1 => {
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

    /// Stops a VM. `false` if it does not run in this process.
    pub async fn stop(&self, name: &str) -> bool {
        let Some(slot) = self.slots().get(name).map(Arc::clone) else {
            return false;
        };
        let Some(running) = slot.lock().await.take() else {
            return false;
        };
        running.vm.shutdown().await;
        self.note_stop(name).await;
        true
    }

    /// Stops all, as the process ends.
    pub async fn stop_all(&self) {
        let names: Vec<String> = self.slots().keys().cloned().collect();
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
