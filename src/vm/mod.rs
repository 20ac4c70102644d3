//! Named isolated guests and the processes inside them.
//!
//! A [`Driver`] boots a [`Vm`] from a [`VmSpec`]; the VM starts processes and
//! hands back their pipes. Nothing here knows ACP, sessions or configuration
//! files. The VM is the kill boundary: no process started through it outlives
//! it, however acpbox ends.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

mod cgroup;
pub mod disk;
mod executable;
pub mod guest;
mod host;
mod keeper;
mod namespace;

/// Where an isolated guest has its persistent home.
pub const GUEST_HOME: &str = "/home/agent";

/// The names that [`driver`] knows.
pub const DRIVERS: [&str; 2] = [namespace::NAME, host::NAME];

/// The driver of that name, or `None` if there is none.
///
/// `executable` is an acpbox binary, started as `acpbox guest` inside each VM;
/// [`own_executable`] in the binary itself. It is opened now, so that a later
/// replacement on disk does not matter; that it cannot be opened is told at boot.
pub fn driver(name: &str, executable: PathBuf) -> Option<Arc<dyn Driver>> {
    match name {
        namespace::NAME => Some(Arc::new(namespace::Namespace::new(executable))),
        host::NAME => Some(Arc::new(host::Host::new(executable))),
        _ => None,
    }
}

/// Where a process in a VM of this driver finds the acpbox binary.
pub fn executable_in_guest(driver: &str, executable: &std::path::Path) -> PathBuf {
    if driver == namespace::NAME {
        PathBuf::from("/run/acpbox/acpbox")
    } else {
        executable
            .canonicalize()
            .unwrap_or_else(|_| executable.to_path_buf())
    }
}

/// The running program, even when it was replaced on disk.
pub fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// What provides VMs. One folder per driver; see [`driver`].
pub trait Driver: Send + Sync {
    /// The name by which configuration asks for this driver, such as `namespace`.
    fn name(&self) -> &'static str;

    /// Boots a VM. Returns once the guest answered its first request.
    fn boot(&self, spec: VmSpec) -> BoxFuture<'_, Result<Arc<dyn Vm>, BootError>>;

    /// What this driver needs from the host and whether it is there, for `acpbox doctor`.
    fn probe(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// A running guest. Dropping the last handle ends it.
pub trait Vm: Send + Sync {
    /// Starts one process in the guest and returns its pipes.
    /// A caller that stops waiting leaves no process behind.
    fn spawn(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<Process, SpawnError>>;

    /// Ends every process of the guest, then the guest. Idempotent; returns
    /// when nothing of it is alive.
    fn shutdown(&self) -> BoxFuture<'_, ()>;

    /// `None` while the guest runs, then why it ended, in words for a person.
    fn ended(&self) -> watch::Receiver<Option<String>>;

    /// What the guest could not be given (limits without cgroups, …), in words for a person.
    fn warnings(&self) -> Vec<String>;

    /// The persistent home inside the guest, for `HOME`. The same as
    /// `state_dir/home` on the host.
    fn home(&self) -> PathBuf {
        PathBuf::from(GUEST_HOME)
    }
}

/// Everything that is fixed when a VM boots.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// The VM's name, unique on this machine; also its host name.
    pub name: String,
    /// Folder on the host for what persists: `home/` becomes `/home/agent`.
    pub state_dir: PathBuf,
    /// Folders shared read-write at their own absolute path.
    pub workspaces: Vec<PathBuf>,
    /// Further folders or files of the host.
    pub mounts: Vec<Mount>,
    pub root: Root,
    pub network: Network,
    pub limits: Limits,
    /// Names below a workspace that the host may later run or trust; read-only
    /// in the guest, also when absent. Relative paths such as `.git/hooks`.
    pub protected: Vec<PathBuf>,
}

/// A folder or file of the host, visible in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub host: PathBuf,
    pub guest: PathBuf,
    pub writable: bool,
}

/// The guest's root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The host's `/usr` and what it needs of `/etc`, read-only.
    Host,
    /// A root file system folder of the user's, read-only.
    Folder(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's network.
    Full,
    /// Only a loopback interface of the guest's own.
    None,
}

/// Upper bounds for a whole VM; `None` leaves the host's bound in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Open file descriptors, per process.
    pub open_files: Option<u64>,
}

/// One process to start in a guest.
#[derive(Debug, Clone, Default)]
pub struct ProcessSpec {
    /// A program: a name looked up on `env`'s `PATH`, else a guest path
    /// (relative ones start at `cwd`).
    pub command: String,
    pub args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The absolute working folder in the guest.
    pub cwd: PathBuf,
    /// Files written in the guest before the program starts (parents are made),
    /// as absolute path and content.
    pub files: Vec<(PathBuf, String)>,
    pub io: Io,
}

/// How a process is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Io {
    /// Three pipes.
    #[default]
    Pipes,
    /// No input, and output and errors in one pipe (`stdout`).
    Merged,
    /// A new pseudo-terminal of the guest's own; `stdout` carries its master
    /// side, to be read and written, and `stdin` and `stderr` are absent.
    /// Reading it gives `EIO` instead of an end once the process has ended.
    Terminal { rows: u16, columns: u16 },
}

/// A process in a guest. Dropping it does not end the process.
#[derive(Debug)]
pub struct Process {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
    /// `None` while it runs. A guest that ends reports [`Exit::Lost`].
    pub exit: watch::Receiver<Option<Exit>>,
    pub control: Arc<dyn ProcessControl>,
}

/// Signals to a process in a guest.
pub trait ProcessControl: Send + Sync + std::fmt::Debug {
    /// Asks the process group to end (SIGTERM). No effect once it has.
    fn terminate(&self);
    /// Ends the process and every descendant in its process group (SIGKILL).
    fn kill(&self);
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// A signal's number.
    Signal(i32),
    /// The guest ended under it, or contact was lost; the reason in words.
    Lost(String),
}

/// One line of `acpbox doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub what: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Good(String),
    /// Works, with less; what is missing and how to mend it.
    Degraded(String),
    /// Does not work; how to mend it.
    Bad(String),
}

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{what}; {mend}")]
    Host { what: String, mend: String },
    #[error("the guest of VM `{name}` did not start: {detail}")]
    Guest { name: String, detail: String },
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("`{command}` was not found in the VM (PATH is {path})")]
    NotFound { command: String, path: String },
    #[error("`{command}` could not be started in the VM: {detail}")]
    Failed { command: String, detail: String },
    #[error("the VM has ended: {0}")]
    Ended(String),
}
