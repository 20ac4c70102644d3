//! `acpbox vms stop`: ends a guest that lives in another process.
//!
//! There is no way to ask that process yet. What every guest has is a first
//! process on the host (`bwrap`), a child of the acpbox that booted it, whose
//! end is the end of everything in the guest: that one is killed, once the rest
//! was asked to end. Its acpbox lives on and tells its sessions that the VM ended.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{busy, find, holders};
use crate::cli::args::VmsStopArguments;
use crate::cli::context::Context;
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::session::Registry;
use crate::store::Store;

/// How long the end of a killed guest may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what runs in it may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(20);

pub(super) async fn run(
    context: &Context,
    store: &Store,
    arguments: &VmsStopArguments,
) -> anyhow::Result<Code> {
    let row = find(store, &arguments.name).await?;
    let running_in = holders(&row);
    if running_in.is_empty() {
        output::say(&format!("VM `{}` does not run", row.name));
        return Ok(exit::DONE);
    }
    if row.driver != "namespace" {
        anyhow::bail!(
            "VM `{}` (driver {}) runs in process {}, which cannot be told to stop it; end that \
             process, as with `kill {}`",
            row.name,
            row.driver,
            running_in[0],
            running_in[0]
        );
    }
    let registry = Registry::new(&context.config.paths.state_dir);
    if !arguments.force
        && let Some(session) = busy::session_in_turn(store, &registry, &row.name).await?
    {
        anyhow::bail!(
            "a turn runs in VM `{}`, in session {session}; wait for its end, or stop the VM \
             anyway with --force",
            row.name
        );
    }
    // As the driver mounts it.
    let home = row.state_dir.canonicalize()?.join("home");
    let mut guests = Vec::new();
    for holder in &running_in {
        guests.extend(first_processes(*holder, &home));
    }
    let asked = guests.iter().map(|(pid, _)| end_gently(*pid));
    futures::future::join_all(asked).await;
    for (_, guest) in &guests {
        match pidfd_send_signal(guest, Signal::KILL) {
            // Its acpbox may have ended with its agent.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !holders(&row).is_empty() && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    let left = holders(&row);
    if let Some(holder) = left.first() {
        anyhow::bail!(
            "VM `{}` still runs in process {holder}; its sessions may have woken it again. End \
             that process, as with `kill {holder}`",
            row.name
        );
    }
    output::say(&format!("VM `{}` was stopped; its disk is kept", row.name));
    Ok(exit::DONE)
}

/// The children of an acpbox process that are guests with this home.
fn first_processes(holder: u32, home: &Path) -> Vec<(u32, OwnedFd)> {
    let found = processes().into_iter().filter_map(|pid| {
        // Held before it is looked at, so that it is still the same one when it is killed.
        let held = hold(pid)?;
        (parent(pid) == Some(holder) && mounts(pid, home)).then_some((pid, held))
    });
    found.collect()
}

/// Asks what runs in a guest to end, and waits a little until it has.
async fn end_gently(first: u32) {
    // bubblewrap starts `acpbox guest`, which is the parent of all else in there.
    let inside = || {
        let family: Vec<(u32, u32)> = (processes().into_iter())
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let below = |of: &[u32]| -> Vec<u32> {
            let is_child = |(_, parent): &&(u32, u32)| of.contains(parent);
            family
                .iter()
                .filter(is_child)
                .map(|(pid, _)| *pid)
                .collect()
        };
        let mut all = Vec::new();
        let mut generation = below(&below(&[first]));
        while !generation.is_empty() {
            all.extend_from_slice(&generation);
            generation = below(&generation);
        }
        all
    };
    for process in inside().into_iter().filter_map(hold) {
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    while !inside().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
}

fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in brackets: state, parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Whether a process was started to mount this folder.
fn mounts(pid: u32, home: &Path) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| OsStr::from_bytes(argument) == home)
}
