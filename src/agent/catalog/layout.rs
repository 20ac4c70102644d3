//! Which folder a program's installation is, told from its path.

use std::path::{Path, PathBuf};

/// What the namespace guest shows of the host anyway.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Whether a path is part of the system that a guest shares with the host.
pub(super) fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// The folders that a program at `path` needs beside its own file: its
/// installation, as narrow as it can be told. Empty for a single file.
pub(super) fn installation(path: &Path) -> Vec<PathBuf> {
    if is_system(path) {
        return Vec::new();
    }
    let mut folders = Vec::new();
    if let Some(modules) = node_modules(path) {
        folders.extend(npm_prefix(&modules).map(|prefix| prefix.join("bin")));
        folders.push(modules);
    }
    let prefix = path.parent().and_then(Path::parent);
    if let Some(prefix) = prefix
        && prefix.join("pyvenv.cfg").is_file()
    {
        folders.push(prefix.to_path_buf());
        folders.extend(base_python(&prefix.join("pyvenv.cfg")));
    }
    if let Some(prefix) = prefix {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A node that was unpacked somewhere brings npm and npx with it.
        if name == "node" && prefix.join("lib/node_modules").is_dir() {
            folders.extend([prefix.join("bin"), prefix.join("lib/node_modules")]);
        }
        if name.starts_with("python") && !prefix.join("pyvenv.cfg").exists() {
            folders.extend(python_libraries(prefix));
        }
    }
    folders.extend(package_store(path));
    folders
}

/// Version managers put a program of their own in the place of every command;
/// it would look for the real one in a home that the guest does not have.
/// Returns the manager's name.
pub(super) fn version_manager(real: &Path, script: Option<&str>) -> Option<&'static str> {
    let managers = ["asdf", "mise", "nodenv", "pyenv", "rbenv", "volta"];
    let name = real.file_name()?.to_str()?;
    if name == "volta-shim" {
        return Some("volta");
    }
    if let Some(manager) = managers.into_iter().find(|manager| *manager == name) {
        return Some(manager);
    }
    let script = script?;
    managers.into_iter().find(|manager| {
        // `exec asdf exec …`, `exec "/home/me/.pyenv/libexec/pyenv" exec …`
        script
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("exec "))
            .any(|line| {
                let mut words = line
                    .split_whitespace()
                    .skip(1)
                    .map(|word| word.trim_matches('"'));
                words
                    .next()
                    .is_some_and(|word| word == *manager || word.ends_with(&format!("/{manager}")))
            })
    })
}

/// The outermost `node_modules` that a path lies in: packages find each other there.
fn node_modules(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<_> = path.ancestors().skip(1).collect();
    above.reverse();
    (above.into_iter())
        .find(|folder| {
            folder
                .file_name()
                .is_some_and(|name| name == "node_modules")
        })
        .map(Path::to_path_buf)
}

/// `PREFIX` of `PREFIX/lib/node_modules`, where npm links commands in `PREFIX/bin`.
/// Never shared itself: it may be `~/.local`.
fn npm_prefix(modules: &Path) -> Option<&Path> {
    let lib = modules
        .parent()
        .filter(|lib| lib.file_name().is_some_and(|name| name == "lib"))?;
    lib.parent().filter(|prefix| prefix.join("bin").is_dir())
}

/// The interpreter that a virtual environment borrows its library from.
fn base_python(pyvenv: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(pyvenv).unwrap_or_default();
    let home = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| PathBuf::from(value.trim()))
    });
    let prefix = home
        .as_deref()
        .filter(|home| home.is_absolute())
        .and_then(Path::parent);
    match prefix {
        Some(prefix) if !is_system(prefix) => python_libraries(prefix),
        _ => Vec::new(),
    }
}

/// A Python outside the system: its whole prefix where that is Python's alone
/// (it has no other folders than Python's), else its programs and libraries.
fn python_libraries(prefix: &Path) -> Vec<PathBuf> {
    let lib = prefix.join("lib");
    let versions: Vec<_> = (std::fs::read_dir(&lib).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .collect();
    if versions.is_empty() {
        return Vec::new();
    }
    let own = ["bin", "lib", "include", "share", "BUILD"];
    let alone = (std::fs::read_dir(prefix).into_iter().flatten().flatten())
        .all(|entry| own.iter().any(|own| entry.file_name() == *own));
    let dedicated = alone && prefix.file_name().is_some_and(|name| name != ".local");
    if dedicated {
        vec![prefix.to_path_buf()]
    } else {
        versions
    }
}

/// Places that are package stores by convention, shared as far as they belong together.
fn package_store(path: &Path) -> Option<PathBuf> {
    for store in ["/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew"] {
        if path.starts_with(store) {
            return Some(PathBuf::from(store));
        }
    }
    // /opt/PACKAGE/…
    let package = path.strip_prefix("/opt").ok()?.components().next()?;
    let folder = Path::new("/opt").join(package);
    (folder != path).then_some(folder)
}
