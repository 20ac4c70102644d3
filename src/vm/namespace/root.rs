//! The guest's root file system: system folders, `/etc`, and what is its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::sandbox::Arguments;
use super::state::State;
use crate::vm::{GUEST_HOME, VmSpec};

/// Links or folders that distributions have beside `/usr`.
const BESIDE_USR: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Where some distributions keep all programs: readable by everyone by design.
const STORES: [&str; 3] = ["/nix/store", "/gnu/store", "/run/current-system"];

/// What programs need of the host's `/etc`. Nothing here holds secrets, and
/// what not every user of the host may read is left out on top (the guest may
/// run as the host's root). `/etc/ssl/private` and the like are why folders
/// are named narrowly.
const ETC: [&str; 47] = [
    "alternatives",
    "bash.bashrc",
    "bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "default/locale",
    "fedora-release",
    "fonts",
    "gai.conf",
    "gitconfig",
    "host.conf",
    "inputrc",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "lsb-release",
    "magic",
    "manpath.config",
    "mime.types",
    "mke2fs.conf",
    "nsswitch.conf",
    "os-release",
    "papersize",
    "perl",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "profile.d",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];

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
    for name in ETC {
        let path = Path::new("/etc").join(name);
        if everyone_may_read(&path) {
            link_or_bind(arguments, &path);
        }
    }
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

/// The guest's own files of `/etc`. `has` says whether the root can hold one.
pub(super) fn etc(
    arguments: &mut Arguments,
    state: &State,
    spec: &VmSpec,
    has: impl Fn(&Path) -> bool,
) {
    for name in ["passwd", "group", "hosts", "hostname"] {
        let guest = Path::new("/etc").join(name);
        if has(&guest) {
            arguments.read_only(&state.etc().join(name), &guest);
        }
    }
    // Bound by content: it is often a link into the host's /run.
    let resolver = Path::new("/etc/resolv.conf");
    if spec.network == crate::vm::Network::Full
        && has(resolver)
        && let Ok(real) = fs::canonicalize(resolver)
    {
        arguments.read_only(&real, resolver);
    }
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

fn everyone_may_read(path: &Path) -> bool {
    let wanted = |data: &fs::Metadata| if data.is_dir() { 0o005 } else { 0o004 };
    fs::metadata(path).is_ok_and(|data| data.mode() & wanted(&data) == wanted(&data))
}

/// Keeps a link that leads into `/usr` a link (the name of a time zone is read
/// from it), and binds anything else.
fn link_or_bind(arguments: &mut Arguments, path: &Path) {
    let Ok(real) = fs::canonicalize(path) else {
        return;
    };
    match fs::read_link(path) {
        Ok(target) if real.starts_with("/usr") => arguments.symlink(&target, path),
        _ => arguments.read_only(&real, path),
    }
}
