//! The bubblewrap command line of a guest.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::arguments::Arguments;
use super::etc::{self, host_name};
use super::loader::{self, Loader};
use super::protect::Protection;
use super::state::State;
use super::workspace::Shares;
use super::{USER, root};
use crate::vm::cgroup::Cgroups;
use crate::vm::executable::Executable;
use crate::vm::guest::{SUBCOMMAND, protocol::GuestConfig, scopes_are_supported};
use crate::vm::{BootError, Mount, Network, Root, VmSpec};

/// Where the guest finds its first process.
const OWN_FOLDER: &str = "/run/acpbox";

/// Everything that the command line is made from.
pub(super) struct Plan<'a> {
    pub(super) bubblewrap: &'a Path,
    pub(super) executable: &'a Executable,
    pub(super) spec: &'a VmSpec,
    pub(super) state: &'a State,
    pub(super) shares: &'a Shares,
    pub(super) protection: &'a Protection,
    pub(super) cgroups: &'a Cgroups,
}

pub(super) fn command(plan: &Plan<'_>) -> Result<Command, BootError> {
    let spec = plan.spec;
    let executable = clone(plan.executable)?;
    let binary = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        executable.as_raw_fd()
    ));
    let mut arguments = Arguments::default();
    isolation(&mut arguments, spec);

    let mut foreign: Option<Loader> = None;
    match &spec.root {
        Root::Host => {
            root::host(&mut arguments);
            root::own(&mut arguments, plan.state);
            root::stores(&mut arguments);
            etc::host(&mut arguments, spec)?;
        }
        Root::Folder(folder) => {
            let folder = open_root(folder)?;
            foreign = loader::of(&binary).map_err(|source| BootError::Io {
                what: "cannot tell what acpbox needs to run in that root".to_owned(),
                source,
            })?;
            let needed: Vec<PathBuf> = (plan.shares.mounts.iter())
                .map(|mount| mount.guest.clone())
                .collect();
            root::folder(&mut arguments, &folder, &needed);
            root::own(&mut arguments, plan.state);
            etc::folder(&mut arguments, spec, &folder)?;
        }
    }
    for mount in &plan.shares.mounts {
        arguments.bind(&mount.host, &mount.guest, mount.writable);
    }
    protect(&mut arguments, plan.shares, plan.protection);

    let own = Path::new(OWN_FOLDER);
    arguments.read_only_descriptor(executable, &own.join("acpbox"));
    if let Some(loader) = &foreign {
        arguments.read_only(&loader.program, &own.join("lib/ld.so"));
        for (name, path) in &loader.libraries {
            arguments.read_only(path, &own.join("lib").join(name));
        }
    }
    arguments.add(["--remount-ro", "/", "--chdir", "/", "--"]);
    if foreign.is_some() {
        arguments.push(own.join("lib/ld.so"));
        arguments.add(["--library-path"]);
        arguments.push(own.join("lib"));
    }
    arguments.push(own.join("acpbox"));
    arguments.add([SUBCOMMAND, &guest_config(spec)?]);

    let mut command = Command::new(plan.bubblewrap);
    let (arguments, descriptors) = arguments.into_parts();
    command.args(arguments).env_clear();
    enter(&mut command, descriptors, plan.cgroups.doors());
    Ok(command)
}

/// Whether the guest's kernel counts a guest's processes by itself:
/// `RLIMIT_NPROC` is per user namespace since Linux 5.14, but never holds
/// for the host's root.
pub(super) fn counts_processes_itself() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release
        .release()
        .to_bytes()
        .split(|byte| !byte.is_ascii_digit())
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    !rustix::process::getuid().is_root() && version >= (5, 14)
}

/// The arguments by which every guest is isolated, also the one of the probe.
pub(super) fn isolation(arguments: &mut Arguments, spec: &VmSpec) {
    arguments.add([
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--disable-userns",
        "--as-pid-1",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        // Started by root, bubblewrap would keep them all.
        "--cap-drop",
        "ALL",
        "--uid",
        &USER.to_string(),
        "--gid",
        &USER.to_string(),
        "--hostname",
        &host_name(&spec.name),
    ]);
    if spec.network == Network::None {
        arguments.add(["--unshare-net"]);
    }
}

fn clone(executable: &Executable) -> Result<OwnedFd, BootError> {
    executable
        .descriptor()?
        .try_clone()
        .map_err(|source| BootError::Io {
            what: "cannot open acpbox itself once more".to_owned(),
            source,
        })
}

fn open_root(folder: &Path) -> Result<PathBuf, BootError> {
    let refuse = |what: String| BootError::Host {
        what,
        mend: "set `root` to \"host\" or to a folder with an unpacked root file system".to_owned(),
    };
    let real = std::fs::canonicalize(folder).map_err(|error| {
        refuse(format!(
            "the root {} cannot be opened: {error}",
            folder.display()
        ))
    })?;
    if real.join("usr").is_dir() || real.join("bin").is_dir() {
        Ok(real)
    } else {
        Err(refuse(format!(
            "the root {} has neither usr nor bin",
            real.display()
        )))
    }
}

/// Protected paths wherever the guest could write them: a mount may show a
/// workspace a second time.
fn protect(arguments: &mut Arguments, shares: &Shares, protection: &Protection) {
    let writable: Vec<&Mount> = (shares.mounts.iter())
        .filter(|mount| mount.writable)
        .collect();
    for (path, stays_writable) in protection.mounts() {
        let mut seen: Vec<PathBuf> = Vec::new();
        for mount in &writable {
            let Ok(below) = path.strip_prefix(&mount.host) else {
                continue;
            };
            // A mount of the path itself cannot be renamed, but can be closed.
            let is_mount = below.as_os_str().is_empty();
            let guest = if is_mount {
                mount.guest.clone()
            } else {
                mount.guest.join(below)
            };
            if (is_mount && stays_writable) || seen.contains(&guest) {
                continue;
            }
            arguments.bind(path, &guest, stays_writable);
            seen.push(guest);
        }
    }
}

fn guest_config(spec: &VmSpec) -> Result<String, BootError> {
    let config = GuestConfig {
        isolated: true,
        scoped: scopes_are_supported(),
        open_files: spec.limits.open_files,
        processes: spec.limits.processes.filter(|_| counts_processes_itself()),
    };
    serde_json::to_string(&config).map_err(|error| BootError::Io {
        what: "cannot describe the guest".to_owned(),
        source: error.into(),
    })
}

/// What happens between fork and exec: descriptors are passed on, and the
/// control groups are joined.
fn enter(command: &mut Command, descriptors: Vec<OwnedFd>, doors: Vec<OwnedFd>) {
    // Ctrl-C on acpbox's terminal is for acpbox, which cancels a turn; here it
    // would end the guest.
    command.process_group(0);
    // SAFETY: the closure makes async-signal-safe system calls only, on
    // descriptors that it owns.
    unsafe {
        command.pre_exec(move || {
            for descriptor in &descriptors {
                rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
            }
            for door in &doors {
                // A refusal shows afterwards, as a limit that does not hold.
                let _ = rustix::io::write(door, b"0");
            }
            Ok(())
        });
    }
}
