//! Where acpbox keeps its files.

use std::path::{Path, PathBuf};

use super::{ConfigError, Environment, Overrides, ServerSettings};

/// acpbox's own files on the host. Nothing is created here; who writes makes the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `$XDG_CONFIG_HOME/acpbox/config.toml`; may not exist.
    pub config_file: PathBuf,
    /// `$XDG_STATE_HOME/acpbox`.
    pub state_dir: PathBuf,
    /// `acpbox.db` in the state folder.
    pub database: PathBuf,
    /// One folder per VM: what persists of it.
    pub vms_dir: PathBuf,
    /// `$XDG_RUNTIME_DIR/acpbox`, or `run` in the state folder: sockets and locks.
    pub runtime_dir: PathBuf,
    /// Sockets of `acpbox serve` and its token, wherever they are.
    pub server: Vec<PathBuf>,
}

impl Paths {
    pub(super) fn new(
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Paths, ConfigError> {
        let under_home = |variable: &str, usual: &str| -> Result<PathBuf, ConfigError> {
            Ok(match environment.folder(variable) {
                Some(folder) => folder.join("acpbox"),
                None => environment.home()?.join(usual).join("acpbox"),
            })
        };
        let state_dir = under_home("XDG_STATE_HOME", ".local/state")?;
        let config_file = match &overrides.config {
            Some(file) => absolute(file),
            None => under_home("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
        };
        let database = overrides
            .db
            .as_deref()
            .map_or_else(|| state_dir.join("acpbox.db"), absolute);
        let runtime_dir = (environment.folder("XDG_RUNTIME_DIR"))
            .map_or_else(|| state_dir.join("run"), |folder| folder.join("acpbox"));
        Ok(Paths {
            config_file,
            database,
            vms_dir: state_dir.join("vms"),
            runtime_dir,
            state_dir,
            server: Vec::new(),
        })
    }

    /// The socket of `acpbox serve`, where it is not told otherwise.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("acpbox.sock")
    }

    /// Why a guest may not write below `folder`: with acpbox's own files it
    /// could widen its own cage. `None` when it may.
    pub(super) fn forbid(&self, folder: &Path) -> Option<String> {
        let own = [
            &self.config_file,
            &self.database,
            &self.state_dir,
            &self.runtime_dir,
        ];
        for path in own.into_iter().chain(&self.server) {
            let path = resolved(path);
            if path.starts_with(folder) {
                return Some(format!("it holds acpbox's own {}", path.display()));
            }
        }
        for path in [&self.state_dir, &self.runtime_dir] {
            let path = resolved(path);
            if folder.starts_with(&path) {
                return Some(format!("it lies in acpbox's own {}", path.display()));
            }
        }
        None
    }
}

/// The files that `[server]` names: with one of them an agent could approve itself.
pub(super) fn of_server(settings: &ServerSettings) -> impl Iterator<Item = PathBuf> {
    let addresses = settings.listen.iter();
    let sockets = addresses.filter_map(|address| address.strip_prefix("unix:"));
    let sockets = sockets.map(|path| absolute(Path::new(path)));
    sockets.chain(settings.token_file.clone())
}

/// With the links of that part resolved which exists already.
fn resolved(path: &Path) -> PathBuf {
    let resolve = |above: &Path| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    };
    path.ancestors()
        .find_map(resolve)
        .unwrap_or_else(|| path.to_path_buf())
}

/// Flags are relative to where acpbox was started.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acpboxs_own_folders_are_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("real/home")).unwrap();
        std::os::unix::fs::symlink(real.join("real"), real.join("link")).unwrap();
        let environment = Environment::from_variables([("HOME", real.join("link/home"))]);
        // Nothing of it exists yet.
        let paths = Paths::new(&environment, &Overrides::default()).unwrap();
        assert!(paths.forbid(&real.join("real/home")).is_some());
        assert!(
            paths
                .forbid(&real.join("real/home/.local/state/acpbox/vms/x"))
                .is_some()
        );
        assert!(paths.forbid(&real.join("real/home/src")).is_none());
    }

    #[test]
    fn xdg_folders_win_over_home_and_flags_over_both() {
        let environment = Environment::from_variables([
            ("HOME", "/home/me"),
            ("XDG_STATE_HOME", "/state"),
            ("XDG_CONFIG_HOME", "relative"),
        ]);
        let paths = Paths::new(&environment, &Overrides::default()).unwrap();
        assert_eq!(
            paths.config_file,
            Path::new("/home/me/.config/acpbox/config.toml")
        );
        assert_eq!(paths.database, Path::new("/state/acpbox/acpbox.db"));
        assert_eq!(paths.vms_dir, Path::new("/state/acpbox/vms"));
        assert_eq!(paths.runtime_dir, Path::new("/state/acpbox/run"));

        let overrides = Overrides {
            db: Some("/else/x.db".into()),
            ..Overrides::default()
        };
        let paths = Paths::new(&environment, &overrides).unwrap();
        assert_eq!(paths.database, Path::new("/else/x.db"));
        assert_eq!(paths.state_dir, Path::new("/state/acpbox"));
    }
}
