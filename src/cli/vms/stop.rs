//! `acpbox vms stop`: ends a guest that lives in another process.
//!
//! There is no way to ask that process yet. What every guest has is a first
//! process on the host (`bwrap`), a child of the acpbox that booted it, whose
//! end is the end of everything in the guest: that one is killed. Its acpbox
//! lives on and tells its sessions that the VM ended.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{find, holders};
use crate::cli::args::VmsStopArguments;
use crate::cli::exit::{self, Code};
use crate::cli::output;
use crate::store::Store;

/// How long the end of a killed guest may take.
const PATIENCE: Duration = Duration::from_secs(10);

const TICK: Duration = Duration::from_millis(20);

pub(super) async fn run(store: &Store, arguments: &VmsStopArguments) -> anyhow::Result<Code> {
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
    // As the driver mounts it.
    let home = row.state_dir.canonicalize()?.join("home");
    let mut guests = Vec::new();
    for holder in &running_in {
        guests.extend(first_processes(*holder, &home));
    }
    for guest in &guests {
        pidfd_send_signal(guest, Signal::KILL)?;
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
fn first_processes(holder: u32, home: &Path) -> Vec<OwnedFd> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        // Held before it is looked at, so that it is still the same one when it is killed.
        let held = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        (parent(pid) == Some(holder) && mounts(pid, home)).then_some(held)
    })
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
