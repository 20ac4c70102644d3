//! VMs through the library, with the real binary as guest.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acpbox::vm::{
    Driver, Exit, Io, Limits, Network, Process, ProcessSpec, Root, SpawnError, Vm, VmSpec, driver,
};

mod death;
mod isolation;
mod limits;
mod processes;
mod protection;
mod speed;

/// Nothing here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A folder with a workspace and the state of some VMs.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("workspace")).unwrap();
        Lab { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn workspace(&self) -> PathBuf {
        self.path().join("workspace")
    }

    /// A VM of that name with the workspace and nothing else.
    fn spec(&self, name: &str) -> VmSpec {
        VmSpec {
            name: name.to_owned(),
            state_dir: self.path().join("vms").join(name),
            workspaces: vec![self.workspace()],
            mounts: Vec::new(),
            root: Root::Host,
            network: Network::Full,
            limits: Limits::default(),
            protected: Vec::new(),
        }
    }

    async fn boot(&self, name: &str) -> Guest {
        self.boot_with(self.spec(name)).await
    }

    async fn boot_with(&self, spec: VmSpec) -> Guest {
        self.boot_by("namespace", spec).await
    }

    async fn boot_by(&self, driver: &str, spec: VmSpec) -> Guest {
        let vm = named(driver).boot(spec).await.unwrap();
        Guest {
            vm,
            workspace: self.workspace(),
        }
    }
}

fn named(name: &str) -> Arc<dyn Driver> {
    driver(name, PathBuf::from(env!("CARGO_BIN_EXE_acpbox"))).unwrap()
}

struct Guest {
    vm: Arc<dyn Vm>,
    workspace: PathBuf,
}

impl Guest {
    fn shell(&self, script: &str) -> ProcessSpec {
        ProcessSpec {
            command: "bash".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
            cwd: self.workspace.clone(),
            files: Vec::new(),
            io: Io::Merged,
        }
    }

    async fn spawn(&self, spec: ProcessSpec) -> Result<Process, SpawnError> {
        tokio::time::timeout(PATIENCE, self.vm.spawn(spec))
            .await
            .expect("a process starts or is refused in time")
    }

    /// Runs a script; returns its output, trimmed, and its exit.
    async fn run(&self, script: &str) -> (String, Exit) {
        let process = self.spawn(self.shell(script)).await.unwrap();
        finish(process).await
    }

    /// The output of a script that must succeed.
    async fn succeed(&self, script: &str) -> String {
        let (output, exit) = self.run(script).await;
        assert_eq!(exit, Exit::Code(0), "{script}: {output}");
        output
    }

    /// The output of a script that must fail.
    async fn fail(&self, script: &str) -> String {
        let (output, exit) = self.run(script).await;
        assert!(
            matches!(exit, Exit::Code(code) if code != 0),
            "{script} should have failed: {exit:?} {output}"
        );
        output
    }

    async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.vm.shutdown())
            .await
            .expect("a VM stops in time");
    }
}

async fn finish(process: Process) -> (String, Exit) {
    let output = read_all(process.stdout).await;
    (output, ended(process.exit).await)
}

async fn ended(mut exit: tokio::sync::watch::Receiver<Option<Exit>>) -> Exit {
    let exit = tokio::time::timeout(PATIENCE, exit.wait_for(Option::is_some))
        .await
        .expect("a process ends in time");
    exit.unwrap().clone().unwrap()
}

/// Everything until the end, which a terminal tells by an error.
async fn read_all(pipe: OwnedFd) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let _ = File::from(pipe).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).trim().to_owned()
    });
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("a pipe ends in time")
        .unwrap()
}

/// The host processes with `marker` among their arguments.
fn alive(marker: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let found = line
                .split(|byte| *byte == 0)
                .any(|argument| argument == marker.as_bytes());
            found.then_some(pid)
        })
        .collect()
}

/// Waits until a condition holds; returns how long it took.
fn eventually(what: &str, limit: Duration, condition: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// A number of seconds that no other test sleeps for, as an argument of `sleep`.
fn unique_sleep() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("7654.{:07}{count:03}", std::process::id())
}
