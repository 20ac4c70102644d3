//! Bubblewrap's arguments, in order, with the descriptors that they name.

use std::ffi::{OsStr, OsString};
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::MemfdFlags;

#[derive(Debug, Default)]
pub(super) struct Arguments {
    list: Vec<OsString>,
    /// To be passed on to bubblewrap under their own numbers.
    descriptors: Vec<OwnedFd>,
}

impl Arguments {
    pub(super) fn add<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) {
        self.list.extend(arguments.into_iter().map(OsString::from));
    }

    pub(super) fn push(&mut self, argument: impl AsRef<OsStr>) {
        self.list.push(argument.as_ref().to_owned());
    }

    pub(super) fn bind(&mut self, host: &Path, guest: &Path, writable: bool) {
        self.add([if writable { "--bind" } else { "--ro-bind" }]);
        self.push(host);
        self.push(guest);
    }

    pub(super) fn read_only(&mut self, host: &Path, guest: &Path) {
        self.bind(host, guest, false);
    }

    pub(super) fn writable(&mut self, host: &Path, guest: &Path) {
        self.bind(host, guest, true);
    }

    pub(super) fn symlink(&mut self, target: &Path, guest: &Path) {
        self.add(["--symlink"]);
        self.push(target);
        self.push(guest);
    }

    pub(super) fn folder(&mut self, guest: &Path) {
        self.add(["--dir"]);
        self.push(guest);
    }

    /// Binds what a descriptor has open.
    pub(super) fn read_only_descriptor(&mut self, descriptor: OwnedFd, guest: &Path) {
        self.with_descriptor("--ro-bind-fd", descriptor, guest);
    }

    /// A copy of an open file in the guest's root. Much faster than a mount.
    pub(super) fn copy(&mut self, file: impl Into<OwnedFd>, guest: &Path) {
        self.add(["--perms", "0444"]);
        self.with_descriptor("--file", file.into(), guest);
    }

    /// A file of that content in the guest's root.
    pub(super) fn file(&mut self, content: &str, guest: &Path) -> std::io::Result<()> {
        self.copy(memory_file(content)?, guest);
        Ok(())
    }

    /// A file of that content mounted over an existing one.
    pub(super) fn file_over(&mut self, content: &str, guest: &Path) -> std::io::Result<()> {
        self.add(["--perms", "0444"]);
        self.with_descriptor("--ro-bind-data", memory_file(content)?, guest);
        Ok(())
    }

    /// The arguments, and the descriptors that bubblewrap must inherit.
    pub(super) fn into_parts(self) -> (Vec<OsString>, Vec<OwnedFd>) {
        (self.list, self.descriptors)
    }

    fn with_descriptor(&mut self, option: &str, descriptor: OwnedFd, guest: &Path) {
        self.add([option, &descriptor.as_raw_fd().to_string()]);
        self.push(guest);
        self.descriptors.push(descriptor);
    }
}

fn memory_file(content: &str) -> std::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("acpbox", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}
