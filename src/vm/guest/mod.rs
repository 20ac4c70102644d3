//! What `acpbox guest` runs: the first process of a guest.
//!
//! In a namespace it is process 1; on the host (driver `host`) it is the
//! subreaper of everything it starts. Either way it starts processes when the
//! keeper asks for them over the control socket, hands their pipes back, reaps
//! every child and ends, and with it every process of the guest, the moment
//! the control socket closes. It is one thread without a runtime, so that it
//! is ready within a millisecond.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};

mod landlock;
pub(crate) mod protocol;
mod signals;
mod start;
mod supervise;

pub(crate) use landlock::scopes_are_supported;
use protocol::GuestConfig;

/// The subcommand by which acpbox starts itself as a guest's first process.
pub const SUBCOMMAND: &str = "guest";

/// Whether these program arguments ask for [`run`]. `main` checks it before
/// anything else, since a guest has neither configuration nor runtime.
pub fn is_guest(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.nth(1).is_some_and(|first| first == SUBCOMMAND)
}

/// Runs as a guest's first process until the control socket, which is standard
/// input, closes. The only argument is a `GuestConfig` as JSON.
pub fn run() -> ExitCode {
    match enter() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Standard error is the keeper's pipe: it becomes part of the boot error.
            let _ = rustix::io::write(
                rustix::stdio::stderr(),
                format!("acpbox guest: {reason}\n").as_bytes(),
            );
            ExitCode::FAILURE
        }
    }
}

fn enter() -> Result<(), String> {
    let config: GuestConfig = std::env::args()
        .nth(2)
        .and_then(|argument| serde_json::from_str(&argument).ok())
        .ok_or("this subcommand is for acpbox itself; use `acpbox run` or `acpbox stdio`")?;
    rustix::net::sockopt::socket_type(rustix::stdio::stdin())
        .map_err(|_| "standard input is not the control socket of an acpbox")?;
    // Before anything is started: nothing in the guest may trace this process
    // or take its socket.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("cannot become untraceable: {error}"))?;
    let _ = rustix::thread::set_name(c"acpbox-guest");
    let control = take_control().map_err(|error| format!("control socket: {error}"))?;
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let _ = rustix::process::setsid();
    let children = signals::prepare().map_err(|error| format!("signals: {error}"))?;
    if !config.isolated {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|error| format!("cannot become the reaper: {error}"))?;
    }
    if config.scoped {
        // The probe said that it works; a kernel that refuses now is not a
        // reason to have no guest at all.
        let _ = landlock::restrict();
    }
    bound(Resource::Nofile, config.open_files);
    bound(Resource::Nproc, config.processes);
    supervise::supervise(control, children, config.isolated);
    Ok(())
}

/// Moves the control socket away from standard input and closes every other
/// descriptor that this process inherited, so that no child can have one.
fn take_control() -> std::io::Result<OwnedFd> {
    const CONTROL: i32 = 3;
    let stdin = rustix::stdio::stdin();
    let copy = rustix::io::fcntl_dupfd_cloexec(stdin, CONTROL + 1)?;
    // SAFETY: closes descriptors from CONTROL on, none of which is owned by a
    // value of this process but `copy`, which is left out of the range's use
    // by closing around it.
    unsafe {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&copy) as libc::c_uint;
        libc::syscall(libc::SYS_close_range, CONTROL as libc::c_uint, raw - 1, 0);
        libc::syscall(libc::SYS_close_range, raw + 1, libc::c_uint::MAX, 0);
        if libc::dup3(raw as i32, CONTROL, libc::O_CLOEXEC) < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    drop(copy);
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    // SAFETY: dup3 above made CONTROL, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(CONTROL) })
}

fn bound(resource: Resource, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let hard = rustix::process::getrlimit(resource).maximum;
    let value = Some(hard.map_or(limit, |hard| hard.min(limit)));
    let _ = rustix::process::setrlimit(
        resource,
        Rlimit {
            current: value,
            maximum: value,
        },
    );
}

/// This process's id as a process group or reaper.
fn own_pid() -> Pid {
    rustix::process::getpid()
}
