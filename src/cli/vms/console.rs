//! This process's standard streams, joined to those of a process in a VM.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, Winsize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::vm::{Exit, Io, Process};

/// How long what a process wrote last may take to come out after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What acpbox itself was given.
pub(super) enum Console {
    Terminal { size: Winsize },
    Pipes,
}

impl Console {
    pub(super) fn detect() -> Console {
        let (input, output) = (io::stdin(), io::stdout());
        let size = rustix::termios::tcgetwinsize(&output);
        match size {
            Ok(size) if input.is_terminal() && output.is_terminal() => Console::Terminal { size },
            _ => Console::Pipes,
        }
    }

    pub(super) fn io(&self) -> Io {
        match self {
            Console::Terminal { size } => Io::Terminal {
                rows: size.ws_row,
                columns: size.ws_col,
            },
            Console::Pipes => Io::Pipes,
        }
    }
}

/// Passes everything on until the process has ended. SIGTERM and SIGHUP, and
/// Ctrl-C where no terminal of the guest's takes it, end the process.
pub(super) async fn attach(console: Console, process: Process) -> io::Result<Exit> {
    let is_terminal = matches!(console, Console::Terminal { .. });
    let _raw = is_terminal.then(Raw::enter).transpose()?;
    let master = process.stdout.try_clone()?;
    // Each end of a stream says so; room for all of them.
    let (done, mut ends) = mpsc::channel(2);
    let input = match process.stdin {
        Some(stdin) => stdin,
        None => process.stdout.try_clone()?,
    };
    copy_aside(File::from(stdin_of_ours()?), File::from(input), None);
    copy_aside(File::from(process.stdout), io::stdout(), Some(done.clone()));
    if let Some(stderr) = process.stderr {
        copy_aside(File::from(stderr), io::stderr(), Some(done.clone()));
    }
    drop(done);

    let mut resized = signal(SignalKind::window_change())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut exit = process.exit;
    let exit = loop {
        tokio::select! {
            ended = exit.wait_for(Option::is_some) => {
                let lost = || Exit::Lost("contact with the VM was lost".to_owned());
                break ended.ok().and_then(|exit| exit.clone()).unwrap_or_else(lost);
            }
            _ = resized.recv() => resize(&master),
            _ = terminate.recv() => process.control.kill(),
            _ = hangup.recv() => process.control.kill(),
            _ = interrupt.recv() => process.control.terminate(),
        }
    };
    // Something that was left behind may hold its end open: not waited for long.
    let _ = tokio::time::timeout(LAST_WORDS, async { while ends.recv().await.is_some() {} }).await;
    Ok(exit)
}

fn stdin_of_ours() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// The guest's terminal follows the size of ours. Pipes have none.
fn resize(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// Copies on a thread of its own until either side ends. The thread of an input
/// that says nothing more ends with acpbox.
fn copy_aside(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    done: Option<mpsc::Sender<()>>,
) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if to
                .write_all(&bytes[..count])
                .and_then(|()| to.flush())
                .is_err()
            {
                break;
            }
        }
        drop(done);
    });
}

/// Keys go to the guest as they are, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Raw> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
