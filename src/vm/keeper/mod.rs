//! The host's side of a guest: one thread per VM that starts it, talks to it
//! and outlives it.
//!
//! The thread matters: the kernel's parent-death signal, which ends the guest
//! when acpbox dies, belongs to the *thread* that started it. Drivers say what
//! to start ([`Launch`]); everything else is the same for all of them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::oneshot;

use super::executable::Executable;
use super::{BootError, Exit, Vm};
use handle::Handle;
use link::{Event, Link};

mod handle;
mod link;
mod process;
mod shared;

/// How long a guest may take to answer for the first time. It takes about ten
/// milliseconds; this is for a machine that swaps.
const BOOT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a guest may take to end after it was asked, more than its own
/// grace period, before it is killed from outside.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What a driver wants to have started as a guest.
pub(super) struct Launch {
    /// Becomes `acpbox guest`. Its standard streams are the keeper's.
    pub(super) command: Command,
    /// The persistent home as the guest sees it.
    pub(super) home: PathBuf,
    /// The binary that the command runs or passes on; held until it runs.
    pub(super) executable: Arc<Executable>,
    /// What the guest could not be given.
    pub(super) warnings: Vec<String>,
    /// Whether the guest may be killed from outside when it does not end by
    /// itself. Not so for a subreaper, whose death would free its children.
    pub(super) killable: bool,
    /// Held while the guest runs, told when it has ended.
    pub(super) attendant: Box<dyn Attendant>,
}

/// What a driver keeps for a running guest.
pub(super) trait Attendant: Send {
    /// The guest was started as host process `pid` and answered. Returns
    /// further warnings.
    fn started(&mut self, pid: u32) -> Vec<String>;

    /// A descriptor that becomes readable when [`Attendant::notified`] is due.
    fn notifier(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns why the guest must end at once, if it must.
    fn notified(&mut self) -> Option<String> {
        None
    }

    /// Nothing of the guest is alive any more: clean up. Returns what a person
    /// should know about its end beside the exit status.
    fn ended(&mut self) -> Option<String>;
}

/// Starts a guest on a thread of its own. `prepare` runs there too, since it
/// reads and writes files.
pub(super) async fn start(
    name: String,
    prepare: impl FnOnce() -> Result<Launch, BootError> + Send + 'static,
) -> Result<Arc<dyn Vm>, BootError> {
    let (answer, answered) = oneshot::channel();
    let thread_name = format!("vm-{name}");
    let lost = BootError::Guest {
        name: name.clone(),
        detail: "its keeper thread ended".to_owned(),
    };
    std::thread::Builder::new()
        .name(thread_name)
        .spawn(move || keep(name, prepare, answer))
        .map_err(|source| BootError::Io {
            what: "cannot start a thread for the VM".to_owned(),
            source,
        })?;
    answered.await.unwrap_or(Err(lost))
}

type Answer = Result<Arc<dyn Vm>, BootError>;

/// The life of a guest, from its preparation to its end.
fn keep(
    name: String,
    prepare: impl FnOnce() -> Result<Launch, BootError>,
    answer: oneshot::Sender<Answer>,
) {
    let launch = match prepare() {
        Ok(launch) => launch,
        Err(error) => {
            let _ = answer.send(Err(error));
            return;
        }
    };
    let Launch {
        command,
        home,
        executable,
        mut warnings,
        killable,
        mut attendant,
    } = launch;
    let (mut child, mut link) = match open(&name, command) {
        Ok(opened) => opened,
        Err(error) => {
            attendant.ended();
            let _ = answer.send(Err(error));
            return;
        }
    };
    drop(executable);
    if let Err(detail) = await_ready(&mut link) {
        link.close();
        let status = reap(&mut child, Duration::from_millis(200), true);
        let detail = describe(&detail, &status, &link.complaints());
        attendant.ended();
        let _ = answer.send(Err(BootError::Guest { name, detail }));
        return;
    }
    warnings.extend(attendant.started(child.id()));
    let shared = link.shared();
    let vm: Arc<dyn Vm> = Arc::new(Handle::new(shared.clone(), home, warnings));
    // A boot that nobody waits for any more drops the handle, which ends the guest.
    let _ = answer.send(Ok(vm));

    let lost = attend(&mut link, &mut child, killable, attendant.as_mut());
    link.close();
    let status = reap(&mut child, END_PATIENCE, killable);
    let mut reason = if shared.is_closing() {
        "it was stopped".to_owned()
    } else {
        describe(&lost, &status, &link.complaints())
    };
    if let Some(more) = attendant.ended() {
        reason.push_str("; ");
        reason.push_str(&more);
    }
    // Its locks go before anyone is told, who may boot the VM again at once.
    drop(attendant);
    shared.end(&reason, &Exit::Lost(reason.clone()));
}

fn open(name: &str, mut command: Command) -> Result<(Child, Link), BootError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source: std::io::Error| BootError::Io { what, source }
    };
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| io("cannot make the VM's control socket")(error.into()))?;
    command
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .map_err(io(&format!("cannot start `{program}`")))?;
    // The guest's end must not stay open here, or its death would go unseen.
    drop(command);
    let errors: OwnedFd = child
        .stderr
        .take()
        .expect("standard error was asked to be piped")
        .into();
    match Link::new(name, ours, errors) {
        Ok(link) => Ok((child, link)),
        Err(source) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(io("cannot watch the VM's control socket")(source))
        }
    }
}

fn await_ready(link: &mut Link) -> Result<(), String> {
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        match link.step(Some(deadline), None) {
            Event::Ready => return Ok(()),
            Event::Progress | Event::Notified => {}
            Event::Closed(reason) => return Err(reason),
            Event::Late => {
                return Err(format!(
                    "no answer within {} s; is the machine overloaded?",
                    BOOT_PATIENCE.as_secs()
                ));
            }
        }
    }
}

/// Serves until the guest's socket closes; returns why it did.
fn attend(
    link: &mut Link,
    child: &mut Child,
    killable: bool,
    attendant: &mut dyn Attendant,
) -> String {
    let shared = link.shared();
    let mut deadline = None;
    loop {
        if deadline.is_none() && shared.is_closing() {
            deadline = Some(Instant::now() + END_PATIENCE);
        }
        match link.step(deadline, attendant.notifier()) {
            Event::Ready | Event::Progress => {}
            Event::Notified => {
                if let Some(reason) = attendant.notified() {
                    return reason;
                }
            }
            Event::Closed(reason) => return reason,
            Event::Late if killable => {
                let _ = child.kill();
                deadline = Some(Instant::now() + END_PATIENCE);
            }
            // Its socket is closed next, which no subreaper can overlook.
            Event::Late => return "it did not end in time".to_owned(),
        }
    }
}

/// Waits for the guest's process, killing it when that takes too long.
fn reap(child: &mut Child, patience: Duration, killable: bool) -> Option<std::process::ExitStatus> {
    let exited = rustix::process::Pid::from_raw(child.id() as i32)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
        .is_some_and(|pidfd| link::readable_within(&pidfd, patience));
    if !exited && killable {
        let _ = child.kill();
    }
    child.wait().ok()
}

fn describe(reason: &str, status: &Option<std::process::ExitStatus>, complaints: &str) -> String {
    let mut text = reason.to_owned();
    if let Some(status) = status {
        text.push_str(&format!(" ({status})"));
    }
    if !complaints.is_empty() {
        text.push_str(": ");
        text.push_str(complaints);
    }
    text
}
