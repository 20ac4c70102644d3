//! `[vms.NAME]` with the defaults filled in.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::vm::{Limits, Mount, Network, Root};

use super::protected::{DEFAULT_PROTECTED, is_inside};
use super::{ConfigError, GUEST_HOME, Retention, file};

/// Bounds below these are mistakes: no agent was ever seen to start with less.
const LEAST_MEMORY: u64 = 16 << 20;
const LEAST_PROCESSES: u64 = 16;
const LEAST_OPEN_FILES: u64 = 64;
const LEAST_LINE: u64 = 1024;
const LEAST_DEPTH: u64 = 16;

/// What a VM gets. Folders are absolute; whether they exist is checked when one boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSettings {
    pub driver: String,
    pub root: Root,
    pub network: Network,
    pub mounts: Vec<Mount>,
    pub limits: Limits,
    /// The folders that sessions of a named VM may work in; empty for the defaults.
    pub workspaces: Vec<PathBuf>,
    pub protected: Vec<PathBuf>,
    /// How long the VM may be idle, with nobody attached, before it sleeps; `None` is never.
    pub sleep_after: Option<Duration>,
    /// How long an agent in it may be idle, attached or not, before it sleeps; `None` is never.
    pub agent_sleep_after: Option<Duration>,
}

/// What is needed to read paths and to name the place of an error.
pub(super) struct Scope<'a> {
    pub(super) file: &'a Path,
    pub(super) home: &'a Path,
}

impl Default for VmSettings {
    fn default() -> VmSettings {
        VmSettings {
            driver: "namespace".to_owned(),
            root: Root::Host,
            network: Network::Full,
            mounts: Vec::new(),
            // Guesses: room for a build and a few agents (the largest seen takes
            // 700 MB), and an end to a fork bomb.
            limits: Limits {
                memory: Some(8 << 30),
                processes: Some(4096),
                open_files: Some(65_536),
            },
            workspaces: Vec::new(),
            protected: DEFAULT_PROTECTED.iter().map(PathBuf::from).collect(),
            sleep_after: Some(Duration::from_secs(15 * 60)),
            // A guess: an idle agent takes some hundred megabytes, waking one some seconds.
            agent_sleep_after: Some(Duration::from_secs(60 * 60)),
        }
    }
}

impl VmSettings {
    /// Lays `[vms.NAME]` over `base`, key by key.
    pub(super) fn merge(
        base: &VmSettings,
        raw: &file::Vm,
        name: &str,
        scope: &Scope<'_>,
    ) -> Result<VmSettings, ConfigError> {
        let at = format!("vms.{name}");
        let mut settings = base.clone();
        if let Some(driver) = &raw.driver {
            settings.driver.clone_from(driver);
        }
        if let Some(root) = &raw.root {
            settings.root = match root.as_str() {
                "host" => Root::Host,
                path => Root::Folder(scope.absolute(path, &format!("{at}.root"))?),
            };
        }
        if let Some(network) = raw.network {
            settings.network = match network {
                file::Network::Full => Network::Full,
                file::Network::None => Network::None,
            };
        }
        if let Some(mounts) = &raw.mounts {
            settings.mounts = mounts
                .iter()
                .map(|entry| mount(entry, &at, scope))
                .collect::<Result<_, _>>()?;
        }
        for (key, value, least) in [
            ("memory", raw.memory, LEAST_MEMORY),
            ("processes", raw.processes, LEAST_PROCESSES),
            ("open_files", raw.open_files, LEAST_OPEN_FILES),
        ] {
            if let Some(value) = value {
                scope.at_least(&format!("{at}.{key}"), value, least)?;
            }
        }
        settings.limits = Limits {
            memory: raw.memory.or(base.limits.memory),
            processes: raw.processes.or(base.limits.processes),
            open_files: raw.open_files.or(base.limits.open_files),
        };
        if let Some(patience) = raw.sleep_after {
            settings.sleep_after = patience.0;
        }
        if let Some(patience) = raw.agent_sleep_after {
            settings.agent_sleep_after = patience.0;
        }
        if let Some(workspaces) = &raw.workspaces {
            let key = format!("{at}.workspaces");
            settings.workspaces = (workspaces.iter())
                .map(|path| scope.absolute(path, &key))
                .collect::<Result<_, _>>()?;
        }
        if let Some(protected) = &raw.protected {
            settings.protected = scope.names(protected, &format!("{at}.protected"))?;
        }
        if let Some(writable) = &raw.writable {
            let key = format!("{at}.writable");
            for name in scope.names(writable, &key)? {
                if !settings.protected.contains(&name) {
                    let list: Vec<_> = settings
                        .protected
                        .iter()
                        .map(|name| name.to_string_lossy())
                        .collect();
                    let problem = format!(
                        "names {}, which is not protected; the protected names are {}",
                        name.display(),
                        list.join(", ")
                    );
                    return Err(scope.wrong(key, problem));
                }
                settings
                    .protected
                    .retain(|protected| !protected.starts_with(&name));
            }
        }
        Ok(settings)
    }

    /// `[vms.default]` is not a VM, so it has no workspaces.
    pub(super) fn refuse_workspaces(&self, scope: &Scope<'_>) -> Result<(), ConfigError> {
        if self.workspaces.is_empty() {
            return Ok(());
        }
        let problem = "cannot be set: every workspace has a VM of its own by default; \
                       give the VM a name, as in [vms.work]";
        Err(scope.wrong("vms.default.workspaces".to_owned(), problem.to_owned()))
    }
}

/// A mount entry with its paths made absolute.
pub(super) fn mount(
    entry: &file::MountEntry,
    at: &str,
    scope: &Scope<'_>,
) -> Result<Mount, ConfigError> {
    let key = format!("{at}.mounts");
    let host = scope.absolute(&entry.path, &key)?;
    let guest_home = Scope {
        file: scope.file,
        home: Path::new(GUEST_HOME),
    };
    let guest = guest_home.absolute(entry.guest.as_deref().unwrap_or(&entry.path), &key)?;
    Ok(Mount {
        host,
        guest,
        writable: entry.mode == file::Mode::Rw,
    })
}

/// A command is a name to look up, or an absolute path.
pub(super) fn command(command: String, at: &str, scope: &Scope<'_>) -> Result<String, ConfigError> {
    if !command.is_empty() && !command.contains('/') {
        return Ok(command);
    }
    let path = scope.absolute(&command, &format!("{at}.command"))?;
    Ok(path.to_string_lossy().into_owned())
}

impl Scope<'_> {
    /// Expands `~` and refuses relative paths and `..`.
    pub(super) fn absolute(&self, path: &str, key: &str) -> Result<PathBuf, ConfigError> {
        let expanded = match path.strip_prefix('~') {
            Some("") => self.home.to_path_buf(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
        };
        let plain = expanded
            .components()
            .all(|part| part != Component::ParentDir);
        if expanded.is_absolute() && plain {
            // Drops `.` and doubled or trailing slashes.
            return Ok(expanded.components().collect());
        }
        let problem = format!(
            "has `{path}`; write an absolute path without `..`, or one that begins with ~/"
        );
        Err(self.wrong(key.to_owned(), problem))
    }

    /// Refuses a bound that is so low that it can only be a mistake.
    pub(super) fn at_least(&self, key: &str, value: u64, least: u64) -> Result<(), ConfigError> {
        if value >= least {
            return Ok(());
        }
        let problem = format!("is {value}, with which nothing would work; write at least {least}");
        Err(self.wrong(key.to_owned(), problem))
    }

    pub(super) fn limits(&self, limits: super::Limits) -> Result<super::Limits, ConfigError> {
        self.at_least("limits.line_bytes", limits.line_bytes as u64, LEAST_LINE)?;
        self.at_least("limits.depth", limits.depth as u64, LEAST_DEPTH)?;
        self.at_least("limits.pending_requests", limits.pending_requests as u64, 1)?;
        Ok(limits)
    }

    /// 0 means no limit elsewhere; here it would mean that nothing is kept.
    pub(super) fn retention(&self, retention: Retention) -> Result<Retention, ConfigError> {
        for (key, is_zero) in [
            (
                "max_age",
                retention.max_age.is_some_and(|age| age.is_zero()),
            ),
            ("max_sessions", retention.max_sessions == Some(0)),
            ("max_bytes", retention.max_bytes == Some(0)),
        ] {
            if is_zero {
                let problem =
                    "is 0, which would delete every session; leave it out for no limit".to_owned();
                return Err(self.wrong(format!("retention.{key}"), problem));
            }
        }
        Ok(retention)
    }

    fn names(&self, names: &[String], key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        (names.iter().map(|name| {
            let path = PathBuf::from(name.trim_end_matches('/'));
            if is_inside(&path) {
                return Ok(path);
            }
            let problem = format!("has `{name}`; write a path inside the workspace, as .git/hooks");
            Err(self.wrong(key.to_owned(), problem))
        }))
        .collect()
    }

    pub(super) fn wrong(&self, key: String, problem: String) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_path_buf(),
            key,
            problem,
        }
    }
}
