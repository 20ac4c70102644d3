//! Which VM a session gets, and everything that is fixed when it boots.

use std::path::{Path, PathBuf};

use crate::vm::VmSpec;

use super::protected::hooks_path;
use super::{Config, ConfigError, VmSettings, workspace};

/// The agent's home in a guest.
pub const GUEST_HOME: &str = "/home/agent";

/// The user that agents run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Absolute, in the guest.
    pub home: PathBuf,
    pub user: String,
}

/// A VM for a session.
#[derive(Debug, Clone)]
pub struct VmPlan {
    /// The driver's name; whether it exists is for the VM room to say.
    pub driver: String,
    /// Without the folders of the agents' installations.
    pub spec: VmSpec,
    /// The session's working folder with symlinks resolved: inside one of the workspaces.
    pub cwd: PathBuf,
    /// The session's further folders, resolved, each inside one of the workspaces.
    pub additional_directories: Vec<PathBuf>,
    pub guest: Guest,
}

impl Guest {
    /// The user of an isolated guest.
    pub fn isolated() -> Guest {
        Guest {
            home: PathBuf::from(GUEST_HOME),
            user: "agent".to_owned(),
        }
    }
}

impl Config {
    /// Plans the VM of a session in `cwd`.
    ///
    /// `name` is what the client asks for, else the configured default. A name
    /// without `[vms.NAME]` must be the one that the workspace would get by
    /// itself (as stored sessions know it).
    pub fn vm_for(
        &self,
        name: Option<&str>,
        cwd: &Path,
        additional_directories: &[PathBuf],
    ) -> Result<VmPlan, ConfigError> {
        let name = name
            .or(self.default_vm.as_deref())
            .filter(|name| *name != "default");
        let cwd = resolve("cwd", cwd)?;
        let additional_directories = (additional_directories.iter())
            .map(|folder| resolve("additionalDirectories", folder))
            .collect::<Result<Vec<_>, _>>()?;
        let (name, settings, workspaces) = match name.map(|name| (name, self.vms.get(name))) {
            Some((name, Some(settings))) => {
                let workspaces = self.declared(name, settings, &cwd, &additional_directories)?;
                (name.to_owned(), settings, workspaces)
            }
            asked => {
                let workspaces = self.automatic(&cwd, &additional_directories)?;
                let automatic = automatic_name(&workspaces[0]);
                if let Some((asked, None)) = asked
                    && asked != automatic
                {
                    return Err(self.undeclared(asked, &automatic, &cwd));
                }
                (automatic, &self.vm_defaults, workspaces)
            }
        };
        let mut protected = settings.protected.clone();
        protected.extend(own_hooks(&workspaces).filter(|name| !settings.protected.contains(name)));
        protected.dedup();
        let guest = match settings.driver.as_str() {
            // It isolates nothing, so agents run as the person.
            "host" => Guest {
                home: self.home.clone(),
                user: self.user.clone(),
            },
            _ => Guest::isolated(),
        };
        for mount in &settings.mounts {
            self.check_mount(&name, mount)?;
        }
        Ok(VmPlan {
            driver: settings.driver.clone(),
            spec: VmSpec {
                state_dir: self.paths.vms_dir.join(&name),
                name,
                workspaces,
                mounts: settings.mounts.clone(),
                root: settings.root.clone(),
                network: settings.network,
                limits: settings.limits.clone(),
                protected,
            },
            cwd,
            additional_directories,
            guest,
        })
    }

    /// The workspaces of a named VM, which must hold every folder of the session.
    fn declared(
        &self,
        name: &str,
        settings: &VmSettings,
        cwd: &Path,
        additional: &[PathBuf],
    ) -> Result<Vec<PathBuf>, ConfigError> {
        let key = || format!("vms.{name}.workspaces");
        let mut workspaces = Vec::new();
        for path in &settings.workspaces {
            let folder = path.canonicalize().ok().filter(|path| path.is_dir());
            let Some(folder) = folder else {
                let problem = format!(
                    "names {}, which is no folder; create or remove it",
                    path.display()
                );
                return Err(self.wrong(key(), problem));
            };
            if let Some(problem) = self.paths.forbid(&folder) {
                let problem = format!("cannot name {}: {problem}", path.display());
                return Err(self.wrong(key(), problem));
            }
            workspaces.push(folder);
        }
        for (field, folder) in labelled(cwd, additional) {
            if workspaces
                .iter()
                .any(|workspace| folder.starts_with(workspace))
            {
                continue;
            }
            let mut allowed: Vec<_> = settings.workspaces.iter().collect();
            let own = folder.to_path_buf();
            allowed.push(&own);
            return Err(ConfigError::NotShared {
                field,
                path: folder.to_path_buf(),
                problem: format!("VM `{name}` does not share this folder"),
                file: self.paths.config_file.clone(),
                allow: format!("[vms.{name}]\nworkspaces = {allowed:?}"),
            });
        }
        Ok(workspaces)
    }

    /// The workspaces of a VM that belongs to the workspace around `cwd`.
    fn automatic(&self, cwd: &Path, additional: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
        let forbid = |folder: &Path| {
            workspace::forbid(folder, &self.home).or_else(|| self.paths.forbid(folder))
        };
        let refuse = |field, folder: &Path, problem| match self.paths.forbid(folder) {
            Some(own) => ConfigError::NeverShared {
                field,
                path: folder.to_path_buf(),
                problem,
                own,
            },
            None => ConfigError::NotShared {
                field,
                path: folder.to_path_buf(),
                problem,
                file: self.paths.config_file.clone(),
                allow: format!("[vms.NAME]\nworkspaces = [{folder:?}]\nand start with --vm NAME"),
            },
        };
        let top =
            workspace::workspace(cwd, forbid).map_err(|problem| refuse("cwd", cwd, problem))?;
        let mut workspaces = vec![top];
        for folder in additional {
            if workspaces
                .iter()
                .any(|workspace| folder.starts_with(workspace))
            {
                continue;
            }
            if let Some(problem) = forbid(folder) {
                return Err(refuse("additionalDirectories", folder, problem));
            }
            workspaces.push(folder.clone());
        }
        Ok(workspaces)
    }

    /// A mount must exist, and may not hand acpbox's own files to the guest.
    fn check_mount(&self, name: &str, mount: &crate::vm::Mount) -> Result<(), ConfigError> {
        let key = || format!("vms.{name}.mounts");
        let Ok(host) = mount.host.canonicalize() else {
            let problem = format!(
                "names {}, which is absent; create or remove it",
                mount.host.display()
            );
            return Err(self.wrong(key(), problem));
        };
        match self.paths.forbid(&host) {
            Some(problem) => {
                let problem = format!("cannot name {}: {problem}", mount.host.display());
                Err(self.wrong(key(), problem))
            }
            None => Ok(()),
        }
    }

    fn undeclared(&self, asked: &str, automatic: &str, cwd: &Path) -> ConfigError {
        ConfigError::NotShared {
            field: "vm",
            path: PathBuf::from(asked),
            problem: format!(
                "no VM of this name is configured (by itself this folder gets `{automatic}`)"
            ),
            file: self.paths.config_file.clone(),
            allow: format!("[vms.{asked}]\nworkspaces = [{cwd:?}]"),
        }
    }

    fn wrong(&self, key: String, problem: String) -> ConfigError {
        ConfigError::Value {
            file: self.paths.config_file.clone(),
            key,
            problem,
        }
    }
}

/// A VM's name becomes a folder and a host name.
pub(super) fn check_name(name: &str, file: &Path) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= 60 && name.bytes().all(plain) {
        return Ok(());
    }
    let problem = "is no name for a VM; use up to 60 letters, digits, `-`, `_` and `.`".to_owned();
    Err(ConfigError::Value {
        file: file.to_path_buf(),
        key: format!("vms.{name}"),
        problem,
    })
}

/// `my-repo-1a2b3c4d`: readable, and different for equal names in different places.
pub(super) fn automatic_name(workspace: &Path) -> String {
    let base = workspace.file_name().unwrap_or_default().to_string_lossy();
    let base: String = (base.chars())
        .map(|character| match character.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9') => plain,
            _ => '-',
        })
        .take(40)
        .collect();
    let base = match base.trim_matches('-') {
        "" => "workspace",
        base => base,
    };
    let hash = fnv1a(workspace.as_os_str().as_encoded_bytes());
    format!("{base}-{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

/// FNV-1a, 64 bits: names must stay the same in every version, so the hash is our own.
fn fnv1a(bytes: &[u8]) -> u64 {
    (bytes.iter()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn labelled<'a>(
    cwd: &'a Path,
    additional: &'a [PathBuf],
) -> impl Iterator<Item = (&'static str, &'a Path)> {
    let additional = additional
        .iter()
        .map(|path| ("additionalDirectories", path.as_path()));
    std::iter::once(("cwd", cwd)).chain(additional)
}

/// A folder of a request, which must be absolute and exist.
fn resolve(field: &'static str, folder: &Path) -> Result<PathBuf, ConfigError> {
    let wrong = |problem: String| Err(ConfigError::Request { field, problem });
    if !folder.is_absolute() {
        return wrong(format!(
            "must be an absolute path, not `{}`",
            folder.display()
        ));
    }
    match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => Ok(folder),
        Ok(folder) => wrong(format!("must be a folder; {} is a file", folder.display())),
        Err(error) => wrong(format!(
            "names {}, which cannot be opened: {error}",
            folder.display()
        )),
    }
}

/// Where the repositories of the workspaces keep their hooks, when that is in a workspace.
fn own_hooks(workspaces: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    workspaces.iter().filter_map(|workspace| {
        let config = std::fs::read_to_string(workspace.join(".git/config")).ok()?;
        hooks_path(&config)
    })
}
