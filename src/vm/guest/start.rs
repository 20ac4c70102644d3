//! Starts one process: files, pipes or terminal, session, exec.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::signals;
use crate::vm::Io;

/// What a pipe holds, best effort: fewer wake-ups when an agent streams.
const PIPE_BYTES: usize = 256 << 10;

/// A process that runs, and our ends of its pipes in protocol order.
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(super) enum Refusal {
    NotFound,
    Failed(String),
}

/// One request to start a process; fields as in `ProcessSpec`.
pub(super) struct Order<'a> {
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: &'a Path,
    pub(super) files: &'a [(PathBuf, String)],
    pub(super) io: Io,
    /// Let the kernel kill the process when this one dies (driver `host`; in a
    /// pid namespace it does so anyway).
    pub(super) die_with_us: bool,
}

pub(super) fn start(order: &Order<'_>) -> Result<Started, Refusal> {
    let fail = |detail: String| Refusal::Failed(detail);
    for (path, content) in order.files {
        write(path, content)
            .map_err(|error| fail(format!("cannot write {}: {error}", path.display())))?;
    }
    if !order.cwd.is_absolute() || !order.cwd.is_dir() {
        return Err(fail(format!(
            "its working folder {} is not a folder in the VM; mount it or choose another",
            order.cwd.display()
        )));
    }
    let program = look_up(order.command, order.cwd, order.env.get("PATH"))?;
    let (ends, descriptors) = match order.io {
        Io::Pipes => pipes(),
        Io::Merged => merged(),
        Io::Terminal { rows, columns } => terminal(rows, columns),
    }
    .map_err(|error| fail(format!("cannot make its pipes: {error}")))?;

    let mut command = Command::new(&program);
    command
        .args(order.args)
        .env_clear()
        .envs(order.env)
        .current_dir(order.cwd);
    let [stdin, stdout, stderr] = ends;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let with_terminal = matches!(order.io, Io::Terminal { .. });
    let die_with_us = order.die_with_us;
    // SAFETY: the closure makes async-signal-safe system calls only and touches
    // no memory that another thread could have locked; this process has one thread.
    unsafe {
        command.pre_exec(move || {
            signals::restore_in_child();
            rustix::process::setsid()?;
            if with_terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            if die_with_us {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            }
            Ok(())
        });
    }
    let child = command
        .spawn()
        .map_err(|error| fail(why(&program, &error)))?;
    let pid = Pid::from_raw(child.id() as i32)
        .ok_or_else(|| fail("the kernel gave no process id".to_owned()))?;
    Ok(Started { pid, descriptors })
}

/// Writes a file anew and makes its parents. A FIFO or device at `path` is
/// refused rather than waited for: this process serves the whole guest.
fn write(path: &Path, content: &str) -> std::io::Result<()> {
    if !path.is_absolute() {
        return Err(std::io::Error::other("the path is not absolute"));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    file.set_len(0)?;
    file.write_all(content.as_bytes())
}

fn look_up(command: &str, cwd: &Path, path: Option<&String>) -> Result<PathBuf, Refusal> {
    let candidates: Vec<PathBuf> = if command.contains('/') {
        vec![cwd.join(command)]
    } else if command.is_empty() {
        Vec::new()
    } else {
        std::env::split_paths(path.map_or("", String::as_str))
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(command))
            .collect()
    };
    let mut seen_without_permission = None;
    for candidate in candidates {
        match candidate.metadata() {
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(_) => seen_without_permission = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match seen_without_permission {
        Some(found) => Refusal::Failed(format!("{} is not an executable file", found.display())),
        None => Refusal::NotFound,
    })
}

/// The child's three ends.
type Ends = [Stdio; 3];

fn pipes() -> std::io::Result<(Ends, Vec<OwnedFd>)> {
    let (child_in, our_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_out, child_out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_err, child_err) = pipe_with(PipeFlags::CLOEXEC)?;
    let _ = rustix::pipe::fcntl_setpipe_size(&our_out, PIPE_BYTES);
    Ok((
        [child_in.into(), child_out.into(), child_err.into()],
        vec![our_in, our_out, our_err],
    ))
}

fn merged() -> std::io::Result<(Ends, Vec<OwnedFd>)> {
    let (ours, child_out) = pipe_with(PipeFlags::CLOEXEC)?;
    let child_err = child_out.try_clone()?;
    Ok((
        [Stdio::null(), child_out.into(), child_err.into()],
        vec![ours],
    ))
}

fn terminal(rows: u16, columns: u16) -> std::io::Result<(Ends, Vec<OwnedFd>)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(master.as_fd(), flags)?;
    rustix::termios::tcsetwinsize(
        &slave,
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    let ends = [
        slave.try_clone()?.into(),
        slave.try_clone()?.into(),
        slave.into(),
    ];
    Ok((ends, vec![master]))
}

fn why(program: &Path, error: &std::io::Error) -> String {
    let program = program.display();
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOENT) => {
            format!("{program} exists, but the interpreter or loader it names does not")
        }
        Some(rustix::io::Errno::AGAIN) => {
            format!(
                "{error}: the VM's limit of processes is reached; end some or raise `processes`"
            )
        }
        Some(rustix::io::Errno::TOOBIG) => {
            format!("{error}: its arguments and environment are too long for the kernel")
        }
        _ => format!("{program}: {error}"),
    }
}
