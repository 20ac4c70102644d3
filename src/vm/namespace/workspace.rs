//! What the guest shares with the host: workspaces, git's folders, mounts.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::git::{self, Repository};
use crate::vm::{BootError, GUEST_HOME, Mount, VmSpec};

/// Folders that the guest has of its own, so that a workspace must not be,
/// or hold, any of them.
const OF_THE_GUEST: [&str; 10] = [
    "/bin", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr",
];

#[derive(Debug)]
pub(super) struct Shares {
    /// Canonical, each with its repository.
    pub(super) workspaces: Vec<Workspace>,
    /// Everything to bind, parents before children.
    pub(super) mounts: Vec<Mount>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) path: PathBuf,
    pub(super) repository: Repository,
}

/// Resolves what a specification shares, refusing what would give away the
/// guest's own folders or acpbox's state.
pub(super) fn shares(spec: &VmSpec, state: &Path) -> Result<Shares, BootError> {
    let mut workspaces = Vec::new();
    let mut mounts = Vec::new();
    let mut warnings = Vec::new();
    for given in &spec.workspaces {
        let path = canonical_workspace(given)?;
        check_workspace(&path, state)?;
        let repository = git::find(&path);
        mounts.push(same_path(&path));
        match &repository {
            Repository::None | Repository::Inside { .. } => {}
            Repository::Linked { common, .. } => {
                check_workspace(common, state)?;
                mounts.push(same_path(common));
            }
            Repository::Unproven(detail) => warnings.push(detail.clone()),
        }
        workspaces.push(Workspace { path, repository });
    }
    for mount in &spec.mounts {
        mounts.push(check_mount(mount, state)?);
    }
    // The caller's order decides between equals: the last one wins.
    mounts.sort_by_key(|mount| mount.guest.components().count());
    mounts.dedup();
    Ok(Shares {
        workspaces,
        mounts,
        warnings,
    })
}

fn same_path(path: &Path) -> Mount {
    Mount {
        host: path.to_owned(),
        guest: path.to_owned(),
        writable: true,
    }
}

fn canonical_workspace(given: &Path) -> Result<PathBuf, BootError> {
    let path = fs::canonicalize(given).map_err(|error| BootError::Host {
        what: format!(
            "the workspace {} cannot be opened: {error}",
            given.display()
        ),
        mend: "check the path and your permissions".to_owned(),
    })?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(BootError::Host {
            what: format!("the workspace {} is not a folder", path.display()),
            mend: "name the folder that holds it".to_owned(),
        })
    }
}

fn check_workspace(path: &Path, state: &Path) -> Result<(), BootError> {
    let of_the_guest = OF_THE_GUEST
        .iter()
        .chain([&GUEST_HOME])
        .find(|own| Path::new(own).starts_with(path));
    if let Some(own) = of_the_guest {
        return Err(BootError::Host {
            what: format!(
                "{} cannot be a workspace: the guest has its own {own}",
                path.display()
            ),
            mend: "open a folder below it instead".to_owned(),
        });
    }
    keep_state_out(path, state)
}

fn check_mount(mount: &Mount, state: &Path) -> Result<Mount, BootError> {
    let host = fs::canonicalize(&mount.host).map_err(|error| BootError::Host {
        what: format!(
            "the mount {} cannot be opened: {error}",
            mount.host.display()
        ),
        mend: "make it, or take it out of `mounts`".to_owned(),
    })?;
    let plain = mount
        .guest
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !mount.guest.is_absolute() || !plain || mount.guest == Path::new("/") {
        return Err(BootError::Host {
            what: format!(
                "the mount's guest path {} is not usable",
                mount.guest.display()
            ),
            mend: "give an absolute path without `..`, other than /".to_owned(),
        });
    }
    keep_state_out(&host, state)?;
    Ok(Mount {
        host,
        ..mount.clone()
    })
}

/// The guest must not reach other VMs' homes or the transcript beside them.
fn keep_state_out(path: &Path, state: &Path) -> Result<(), BootError> {
    if state.starts_with(path) {
        return Err(BootError::Host {
            what: format!(
                "{} holds acpbox's own state ({}), which no guest may see",
                path.display(),
                state.display()
            ),
            mend: "share a folder below it instead".to_owned(),
        });
    }
    Ok(())
}
