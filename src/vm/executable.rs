//! The acpbox binary that becomes `acpbox guest`, held open.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use super::BootError;

#[derive(Debug)]
pub(super) struct Executable {
    path: PathBuf,
    opened: std::io::Result<OwnedFd>,
}

impl Executable {
    pub(super) fn open(path: PathBuf) -> Executable {
        let opened = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(Into::into);
        Executable { path, opened }
    }

    /// The open binary (`O_PATH`, closed on exec).
    pub(super) fn descriptor(&self) -> Result<&OwnedFd, BootError> {
        self.opened.as_ref().map_err(|error| BootError::Host {
            what: format!(
                "cannot open acpbox itself at {}: {error}",
                self.path.display()
            ),
            mend: "check that it is installed and readable, then start it again".to_owned(),
        })
    }

    /// A command that runs the binary. The executable must outlive its start.
    pub(super) fn command(&self) -> Result<Command, BootError> {
        let descriptor = self.descriptor()?.as_raw_fd();
        Ok(Command::new(format!("/proc/self/fd/{descriptor}")))
    }
}
