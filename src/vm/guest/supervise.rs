//! The guest's loop: requests in, notices out, children reaped.

use std::collections::HashMap;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group};

use super::own_pid;
use super::protocol::{Decoder, MAX_DESCRIPTORS, Notice, Request, encode};
use super::start::{Order, Refusal, Started, start};

/// How long processes may take to end after being asked, before they are
/// killed. Long enough to flush a file, short enough to go unnoticed.
const GRACE: Duration = Duration::from_millis(500);

/// How long the killing on the host may take: a child that cannot be killed
/// (setuid, uninterruptible) must not keep this process for ever.
const KILLING: Duration = Duration::from_secs(2);

/// Serves until the control socket closes or a shutdown is done, then ends
/// everything that is still alive.
pub(super) fn supervise(control: OwnedFd, children: OwnedFd, isolated: bool) {
    let mut guest = Guest {
        control: UnixStream::from(control),
        isolated,
        running: HashMap::new(),
        finished: HashMap::new(),
        deadline: None,
    };
    // An error is a closed or broken socket: the same end.
    let _ = guest.serve(&children);
    if !isolated {
        end_descendants(&children);
    }
}

struct Guest {
    control: UnixStream,
    isolated: bool,
    /// Process to the id by which the keeper knows it.
    running: HashMap<Pid, u64>,
    /// Ended processes whose process group still has members.
    finished: HashMap<u64, Pid>,
    /// Set once a shutdown was asked for.
    deadline: Option<Instant>,
}

impl Guest {
    fn serve(&mut self, children: &OwnedFd) -> std::io::Result<()> {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 << 10];
        self.send(&Notice::Ready, &[])?;
        loop {
            let patience = self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if patience.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let (asked, changed) = wait(self.control.as_fd(), children.as_fd(), patience)?;
            if changed {
                drain(children);
                if !self.reap()? && self.deadline.is_some() {
                    return Ok(());
                }
            }
            if asked {
                match self.control.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => decoder.push(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                while let Some(request) = decoder.next::<Request>()? {
                    self.answer(request)?;
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> std::io::Result<()> {
        match request {
            Request::Spawn {
                id,
                command,
                args,
                env,
                cwd,
                files,
                io,
            } => {
                let order = Order {
                    command: &command,
                    args: &args,
                    env: &env,
                    cwd: &cwd,
                    files: &files,
                    io,
                    die_with_us: !self.isolated,
                };
                match start(&order) {
                    Ok(Started { pid, descriptors }) => {
                        self.running.insert(pid, id);
                        let ours: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                        self.send(&Notice::Started { id }, &ours)
                    }
                    Err(Refusal::NotFound) => self.send(&Notice::NotFound { id }, &[]),
                    Err(Refusal::Failed(detail)) => self.send(&Notice::Refused { id, detail }, &[]),
                }
            }
            Request::Signal { id, kill } => {
                let running = self.running.iter().find(|(_, known)| **known == id);
                match (running, kill) {
                    (Some((&group, _)), _) => signal_group(group, kill),
                    // What is left of the group of a process that has ended.
                    (None, true) => {
                        if let Some(group) = self.finished.remove(&id) {
                            signal_group(group, true);
                        }
                    }
                    (None, false) => {}
                }
                Ok(())
            }
            Request::Shutdown => {
                self.deadline = Some(Instant::now() + GRACE);
                self.ask_everyone_to_end();
                if !self.reap()? {
                    self.deadline = Some(Instant::now());
                }
                Ok(())
            }
        }
    }

    /// Reaps what has ended and reports what the keeper knows of it. Returns
    /// whether a child is left.
    fn reap(&mut self) -> std::io::Result<bool> {
        let any_left = loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let Some(id) = self.running.remove(&pid) else {
                        continue;
                    };
                    self.finished.insert(id, pid);
                    self.send(
                        &Notice::Exited {
                            id,
                            code: status.exit_status(),
                            signal: status.terminating_signal(),
                        },
                        &[],
                    )?;
                }
                Ok(None) => break true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break false,
            }
        };
        // A group's number is free for reuse once its last member is gone.
        self.finished
            .retain(|_, group| rustix::process::test_kill_process_group(*group).is_ok());
        Ok(any_left)
    }

    fn ask_everyone_to_end(&self) {
        if self.isolated {
            // SAFETY: signals every process of this pid namespace but this
            // one, which `isolated` says is its process 1.
            unsafe { libc::kill(-1, libc::SIGTERM) };
        } else {
            for pid in descendants() {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    fn send(&self, notice: &Notice, descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let frame = encode(notice)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let mut sent = loop {
            let parts = [IoSlice::new(&frame)];
            match rustix::net::sendmsg(&self.control, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(count) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        while sent < frame.len() {
            match rustix::net::send(&self.control, &frame[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn signal_group(group: Pid, kill: bool) {
    let signal = if kill { Signal::KILL } else { Signal::TERM };
    let _ = kill_process_group(group, signal);
}

/// Waits until either descriptor is readable or `patience` is over.
fn wait(
    control: BorrowedFd<'_>,
    children: BorrowedFd<'_>,
    patience: Option<Duration>,
) -> std::io::Result<(bool, bool)> {
    let mut fds = [
        PollFd::from_borrowed_fd(control, PollFlags::IN),
        PollFd::from_borrowed_fd(children, PollFlags::IN),
    ];
    let timeout = patience.map(|left| Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: i64::from(left.subsec_nanos()),
    });
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}

/// Empties a signal descriptor; what it said is learnt from `wait`.
fn drain(children: &OwnedFd) {
    let mut record = [0; 128 * 8];
    while rustix::io::read(children, &mut record).is_ok_and(|count| count > 0) {}
}

/// Kills every descendant of this subreaper. Orphans come back to it as
/// children, so that rounds of killing children reach all of them.
fn end_descendants(children: &OwnedFd) {
    let deadline = Instant::now() + KILLING;
    while Instant::now() < deadline {
        for pid in descendants() {
            let _ = kill_process(pid, Signal::KILL);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        let _ = wait(
            children.as_fd(),
            children.as_fd(),
            Some(Duration::from_millis(5)),
        );
        drain(children);
    }
}

/// Every process below this one, parents before children.
fn descendants() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut next = vec![own_pid()];
    let parents = parents();
    while let Some(parent) = next.pop() {
        for (pid, _) in parents.iter().filter(|(_, known)| *known == parent) {
            found.push(*pid);
            next.push(*pid);
        }
    }
    found
}

/// Every process of this machine with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The command between parentheses may hold spaces and parentheses.
            let rest = stat.rsplit_once(") ")?.1;
            let parent: i32 = rest.split(' ').nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid)?, Pid::from_raw(parent)?))
        })
        .collect()
}
