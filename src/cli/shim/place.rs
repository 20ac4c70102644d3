//! Which server is the right one.

use std::path::{Path, PathBuf};

use crate::acp::extension::{SHIM_PROTOCOL, ServerInfo};
use crate::config::Paths;

const OURS: &str = env!("CARGO_PKG_VERSION");

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

    /// Why no acpbox of this version can use the server, and what to do.
    pub(super) fn objection_to_version(&self, info: &ServerInfo) -> Option<String> {
        if info.protocol == SHIM_PROTOCOL {
            return None;
        }
        let both = self.versions(info);
        Some(match is_older(info) {
            true => format!(
                "{both}, which cannot use it: end the server (`kill {}`, or restart its service) and start `acpbox serve` of this version",
                info.pid
            ),
            false => format!(
                "{both}, which cannot use it: start this client anew with the acpbox of the server (an editor: restart it)"
            ),
        })
    }

    /// What is to be known of a server of another version that is used all the same.
    pub(super) fn note_on_version(&self, info: &ServerInfo) -> Option<String> {
        if info.version == OURS {
            return None;
        }
        let both = self.versions(info);
        Some(match is_older(info) {
            true => format!(
                "{both}; it is used all the same. To have what is new, restart the server: `kill {}` and `acpbox serve`, or its service",
                info.pid
            ),
            false => format!(
                "{both}; it is used all the same. To have what is new, start this client anew with the acpbox of the server"
            ),
        })
    }

    fn versions(&self, info: &ServerInfo) -> String {
        format!(
            "the server at unix:{} (process {}) is acpbox {} and this is {OURS}",
            self.socket.display(),
            info.pid,
            info.version
        )
    }
}

/// Whether the server is of an earlier version than this.
pub(super) fn is_older(info: &ServerInfo) -> bool {
    let parts = |version: &str| -> Vec<u64> {
        let numbers = version.split(|it: char| !it.is_ascii_digit());
        numbers.map_while(|part| part.parse().ok()).collect()
    };
    (parts(&info.version), info.protocol) < (parts(OURS), SHIM_PROTOCOL)
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
            protocol: SHIM_PROTOCOL,
            spawned: false,
        };
        assert_eq!(place.objection(&info), None);
        assert_eq!(place.objection_to_version(&info), None);
        assert_eq!(place.note_on_version(&info), None);
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
        for (version, protocol, is_before, words) in [
            ("99.0.0", SHIM_PROTOCOL, false, "start this client anew"),
            ("0.0.9", SHIM_PROTOCOL, true, "restart the server: `kill 1`"),
            (
                "99.0.0",
                SHIM_PROTOCOL + 1,
                false,
                "cannot use it: start this client anew",
            ),
            ("0.0.9", 0, true, "cannot use it: end the server (`kill 1`"),
            (OURS, 0, true, "cannot use it: end the server (`kill 1`"),
        ] {
            let other = ServerInfo {
                version: version.into(),
                protocol,
                ..info.clone()
            };
            let said = match protocol == SHIM_PROTOCOL {
                true => place.note_on_version(&other).unwrap(),
                false => place.objection_to_version(&other).unwrap(),
            };
            assert_eq!(is_older(&other), is_before, "{version}");
            assert!(said.contains(words), "{said}");
            assert!(said.contains(&format!("is acpbox {version}")), "{said}");
        }
    }
}
