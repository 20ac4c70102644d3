//! Which server is the right one.

use std::path::{Path, PathBuf};

use crate::acp::extension::ServerInfo;
use crate::config::Paths;

/// Where a server is looked for, and what it must work with.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) socket: PathBuf,
    database: PathBuf,
    config: PathBuf,
}

impl Place {
    pub(super) fn of(paths: &Paths) -> Place {
        Place {
            socket: paths.socket(),
            database: paths.database.clone(),
            config: paths.config_file.clone(),
        }
    }

    /// Why the server is not to be used; what it says is trusted, being the same user's.
    pub(super) fn objection(&self, info: &ServerInfo) -> Option<String> {
        let differs = |ours: &Path, theirs: &Path| real(ours) != real(theirs);
        let of = if differs(&self.database, &info.database) {
            format!("has another database, {}", info.database.display())
        } else if differs(&self.config, &info.config) {
            format!("has another configuration, {}", info.config.display())
        } else {
            return None;
        };
        Some(format!("the server at unix:{} {of}", self.socket.display()))
    }

    /// Why a server of another version is not to be begun with.
    pub(super) fn objection_to_version(&self, info: &ServerInfo) -> Option<String> {
        let ours = env!("CARGO_PKG_VERSION");
        (info.version != ours).then(|| {
            format!(
                "the server at unix:{} is acpbox {} and this is {ours}; restart it",
                self.socket.display(),
                info.version
            )
        })
    }
}

/// With its links resolved, also where the file is still to come.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let there = path.canonicalize().ok();
    there
        .or_else(|| Some(folder?.join(path.file_name()?)))
        .unwrap_or_else(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_with_the_same_files_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let here = |name: &str| folder.path().join(name);
        std::fs::create_dir(here("state")).unwrap();
        std::os::unix::fs::symlink(here("state"), here("link")).unwrap();
        let place = Place {
            socket: here("socket"),
            database: here("state/acpbox.db"),
            config: here("config.toml"),
        };
        let info = ServerInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: 1,
            instance: "x".into(),
            database: here("link/acpbox.db"),
            config: here("config.toml"),
        };
        assert_eq!(place.objection(&info), None);
        assert_eq!(place.objection_to_version(&info), None);
        let other = |info: &ServerInfo| place.objection(info).unwrap();
        assert!(
            other(&ServerInfo {
                database: here("other.db"),
                ..info.clone()
            })
            .contains("another database")
        );
        assert!(
            other(&ServerInfo {
                config: here("other.toml"),
                ..info.clone()
            })
            .contains("another configuration")
        );
        let newer = ServerInfo {
            version: "99.0.0".into(),
            ..info
        };
        let said = place.objection_to_version(&newer).unwrap();
        assert!(said.contains("is acpbox 99.0.0"), "{said}");
    }
}
