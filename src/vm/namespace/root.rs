//! The guest's root file system: system folders, and what is its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::arguments::Arguments;
use super::state::State;
use crate::vm::GUEST_HOME;

/// Links or folders that distributions have beside `/usr`.
const BESIDE_USR: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Where some distributions keep all programs: readable by everyone by design.
const STORES: [&str; 3] = ["/nix/store", "/gnu/store", "/run/current-system"];

/// The host's programs, read-only.
pub(super) fn host(arguments: &mut Arguments) {
    arguments.read_only(Path::new("/usr"), Path::new("/usr"));
    for path in BESIDE_USR.map(Path::new) {
        match fs::read_link(path) {
            Ok(target) => arguments.symlink(&target, path),
            Err(_) if path.is_dir() => arguments.read_only(path, path),
            Err(_) => {}
        }
    }
    arguments.folder(Path::new("/var"));
    arguments.symlink(Path::new("../tmp"), Path::new("/var/tmp"));
}

/// Further folders of programs, to be bound after `/run` is made.
pub(super) fn stores(arguments: &mut Arguments) {
    for store in STORES.map(Path::new) {
        if let Ok(real) = fs::canonicalize(store) {
            arguments.read_only(&real, store);
        }
    }
}

/// A root file system folder of the user's, read-only. Its top is rebuilt
/// entry by entry, so that `needed` guest paths can be made where it has none.
pub(super) fn folder(arguments: &mut Arguments, root: &Path, needed: &[PathBuf]) {
    const OWN: [&str; 6] = ["/proc", "/dev", "/tmp", "/run", "/sys", "/home"];
    for (host, guest) in entries(root, Path::new("/")) {
        if !OWN.iter().any(|own| guest == Path::new(own)) {
            place(arguments, &host, &guest, needed);
        }
    }
}

/// Kernel settings that the host's root may change without any capability.
const SETTINGS: [&str; 8] = [
    "/proc/acpi",
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The guest's own: kernel file systems, memory, home, names.
pub(super) fn own(arguments: &mut Arguments, state: &State) {
    arguments.add(["--proc", "/proc", "--dev", "/dev"]);
    if rustix::process::geteuid().is_root() {
        // The guest's user is the host's root under another name, who owns
        // these files. One of them names a program that the host's kernel runs.
        for path in SETTINGS.map(Path::new) {
            if path.exists() {
                arguments.read_only(path, path);
            }
        }
    }
    arguments.writable(&state.temp(), Path::new("/tmp"));
    arguments.add(["--perms", "0755", "--tmpfs", "/run"]);
    arguments.writable(&state.home(), Path::new(GUEST_HOME));
}

fn place(arguments: &mut Arguments, host: &Path, guest: &Path, needed: &[PathBuf]) {
    if let Ok(target) = fs::read_link(host) {
        arguments.symlink(&target, guest);
        return;
    }
    let has_gap = needed.iter().any(|path| {
        path.strip_prefix(guest)
            .is_ok_and(|below| !below.as_os_str().is_empty() && !host.join(below).exists())
    });
    if has_gap && host.is_dir() {
        arguments.folder(guest);
        for (host, guest) in entries(host, guest) {
            place(arguments, &host, &guest, needed);
        }
    } else {
        arguments.read_only(host, guest);
    }
}

/// What is in a folder, with its guest path.
fn entries(host: &Path, guest: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = fs::read_dir(host) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| (entry.path(), guest.join(entry.file_name())))
        .collect();
    found.sort();
    found
}
