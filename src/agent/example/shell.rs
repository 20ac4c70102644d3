//! A command as a child process of our own, when the client has no terminals.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::session::Cancel;
use super::turn::Stop;
use super::wire::lock;

/// Output kept, in bytes; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 64 << 10;
/// How often a running command is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long to wait for output after the command has ended: a process that it
/// left behind may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(300);

/// What a command said and how it ended.
pub(super) struct Finished {
    /// Standard output and error as they came, at most 64 KiB.
    pub(super) output: String,
    /// `exit code 0`, `signal 9`.
    pub(super) status: String,
    pub(super) success: bool,
}

/// Runs `sh -c command`. The outer error is the end of the turn, which also
/// ends the command; the inner one a command that could not be started.
pub(super) fn run(
    command: &str,
    cwd: &Path,
    cancel: &Cancel,
) -> Result<io::Result<Finished>, Stop> {
    let (mut child, output) = match start(command, cwd) {
        Ok(started) => started,
        Err(error) => return Ok(Err(error)),
    };
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (sender, receiver) = sync_channel(1);
    let reader_kept = Arc::clone(&kept);
    thread::spawn(move || {
        read_output(output, &reader_kept);
        let _ = sender.try_send(());
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        if let Err(stop) = cancel.sleep(TICK) {
            kill_group(&mut child);
            return Err(stop);
        }
    };
    let _ = receiver.recv_timeout(DRAIN);
    let output = std::mem::take(&mut *lock(&kept));
    let status_text = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    Ok(Ok(Finished {
        output: String::from_utf8_lossy(&output).into_owned(),
        status: status_text,
        success: status.success(),
    }))
}

fn start(command: &str, cwd: &Path) -> io::Result<(Child, PipeReader)> {
    let (output, writer) = io::pipe()?;
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

fn read_output(mut output: PipeReader, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let mut kept = lock(kept);
        let room = OUTPUT_LIMIT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn kill_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // Gone already is as good as killed.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}
