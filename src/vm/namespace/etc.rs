//! The guest's `/etc`: its own few files, and what programs need of the host's.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::arguments::Arguments;
use super::{USER, USER_NAME};
use crate::vm::{BootError, GUEST_HOME, Network, VmSpec};

/// What programs need of the host's `/etc`. Nothing here holds secrets, and
/// what not every user of the host may read is left out on top (the guest may
/// run as the host's root). `/etc/ssl/private` and the like are why folders
/// are named narrowly.
const OF_THE_HOST: [&str; 36] = [
    "alternatives",
    "bash.bashrc",
    "bashrc",
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
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "protocols",
    "redhat-release",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Files up to this many bytes are copied, since a mount takes longer; they
/// change with upgrades only.
const COPIED: u64 = 256 << 10;

/// The whole `/etc` of a guest on the host's programs.
pub(super) fn host(arguments: &mut Arguments, spec: &VmSpec) -> Result<(), BootError> {
    for name in OF_THE_HOST {
        let path = Path::new("/etc").join(name);
        if everyone_may_read(&path) {
            show(arguments, &path);
        }
    }
    for (name, content) in own_files(spec) {
        arguments
            .file(&content, &Path::new("/etc").join(name))
            .map_err(|source| cannot_make(name, source))?;
    }
    resolver(arguments, spec);
    Ok(())
}

/// The guest's own files over those that a root folder has.
pub(super) fn folder(
    arguments: &mut Arguments,
    spec: &VmSpec,
    root: &Path,
) -> Result<(), BootError> {
    let has = |name: &str| {
        let path = root.join("etc").join(name);
        path.is_file() && !path.is_symlink()
    };
    for (name, content) in own_files(spec) {
        if has(name) {
            arguments
                .file_over(&content, &Path::new("/etc").join(name))
                .map_err(|source| cannot_make(name, source))?;
        }
    }
    if has("resolv.conf") {
        resolver(arguments, spec);
    }
    Ok(())
}

/// A VM's name as a host name: letters, digits and hyphens, at most 63.
pub(super) fn host_name(name: &str) -> String {
    let allowed = |char: char| char.is_ascii_alphanumeric() || char == '.';
    let mapped: String = name
        .chars()
        .map(|char| if allowed(char) { char } else { '-' })
        .take(63)
        .collect();
    let trimmed = mapped.trim_matches(['-', '.']);
    if trimmed.is_empty() { "vm" } else { trimmed }.to_owned()
}

fn own_files(spec: &VmSpec) -> [(&'static str, String); 4] {
    let host_name = host_name(&spec.name);
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {host_name}\n");
    if spec.network == Network::Full
        && let Ok(of_the_host) = fs::read_to_string("/etc/hosts")
    {
        hosts.push_str(&of_the_host);
    }
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|shell| Path::new(shell).exists())
        .unwrap_or("/bin/sh");
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\n\
         {USER_NAME}:x:{USER}:{USER}:agent:{GUEST_HOME}:{shell}\n\
         nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    );
    let group = format!("root:x:0:\n{USER_NAME}:x:{USER}:\nnogroup:x:65534:\n");
    [
        ("hosts", hosts),
        ("hostname", format!("{host_name}\n")),
        ("passwd", passwd),
        ("group", group),
    ]
}

/// Bound, so that a change in place is seen; it is often a link into `/run`.
fn resolver(arguments: &mut Arguments, spec: &VmSpec) {
    let path = Path::new("/etc/resolv.conf");
    if spec.network == Network::Full
        && let Ok(real) = fs::canonicalize(path)
    {
        arguments.read_only(&real, path);
    }
}

fn everyone_may_read(path: &Path) -> bool {
    let wanted = |data: &fs::Metadata| if data.is_dir() { 0o005 } else { 0o004 };
    fs::metadata(path).is_ok_and(|data| data.mode() & wanted(&data) == wanted(&data))
}

/// Keeps a link that leads into `/usr` a link (the name of a time zone is read
/// from it), copies what is small, and binds anything else.
fn show(arguments: &mut Arguments, path: &Path) {
    let Ok(real) = fs::canonicalize(path) else {
        return;
    };
    if let Ok(target) = fs::read_link(path)
        && real.starts_with("/usr")
    {
        arguments.symlink(&target, path);
        return;
    }
    match (fs::metadata(&real), File::open(&real)) {
        (Ok(data), Ok(file)) if data.is_file() && data.len() <= COPIED => {
            arguments.copy(file, path);
        }
        _ => arguments.read_only(&real, path),
    }
}

fn cannot_make(name: &str, source: std::io::Error) -> BootError {
    BootError::Io {
        what: format!("cannot make the guest's /etc/{name}"),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn any_vm_name_makes_a_host_name() {
        assert_eq!(host_name("paper"), "paper");
        assert_eq!(host_name("my proj/é_1"), "my-proj---1");
        assert_eq!(host_name("///"), "vm");
        assert_eq!(host_name(&"x".repeat(200)).len(), 63);
    }
}
