//! Where this process may make control groups.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A folder below which a group for `controller` may be made.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) controller: &'static str,
    pub(super) version: Version,
}

/// The place for a controller, `memory` or `pids`.
pub(super) fn find(controller: &str) -> Option<Place> {
    let controller = match controller {
        "memory" => "memory",
        _ => "pids",
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
    version_one(controller, &mounts, &membership)
        .or_else(|| version_two(controller, &mounts, &membership))
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl Mount<'_> {
    /// One line of mountinfo (proc(5)).
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(3);
        let mut second = second.split(' ');
        Some(Mount {
            root: first.next()?,
            point: first.next()?,
            kind: second.next()?,
            options: second.nth(1)?,
        })
    }

    /// The folder of a group named as in /proc/self/cgroup.
    fn folder(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(self.root).ok()?;
        Some(Path::new(self.point).join(below))
    }
}

fn version_one(controller: &'static str, mounts: &[Mount<'_>], membership: &str) -> Option<Place> {
    let has = |list: &str| list.split(',').any(|item| item == controller);
    let mount = mounts
        .iter()
        .find(|mount| mount.kind == "cgroup" && has(mount.options))?;
    let group = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let group = fields.next()?;
        has(controllers).then_some(group)
    })?;
    Some(Place {
        folder: mount.folder(group)?,
        controller,
        version: Version::One,
    })
}

/// A group with processes of its own cannot give controllers to children, so
/// our own group rarely serves; beside it, in its parent, works when the
/// parent was delegated to this user.
fn version_two(controller: &'static str, mounts: &[Mount<'_>], membership: &str) -> Option<Place> {
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2")?;
    let group = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    let own = mount.folder(group)?;
    let beside = own
        .parent()
        .filter(|parent| parent.starts_with(mount.point))
        .map(Path::to_owned);
    [Some(own), beside]
        .into_iter()
        .flatten()
        .find(|folder| gives(folder, controller))
        .map(|folder| Place {
            folder,
            controller,
            version: Version::Two,
        })
}

/// Whether groups made in a folder get the controller, asking for it if need be.
fn gives(folder: &Path, controller: &str) -> bool {
    let control = folder.join("cgroup.subtree_control");
    let has = || {
        fs::read_to_string(&control)
            .is_ok_and(|list| list.split_whitespace().any(|item| item == controller))
    };
    has() || (fs::write(&control, format!("+{controller}")).is_ok() && has())
}

#[cfg(test)]
mod tests {
    use super::Mount;
    use std::path::Path;

    #[test]
    fn a_group_is_found_below_its_mount() {
        let line = "30 23 0:26 /docker/abc /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.kind, mount.options), ("cgroup2", "rw,nsdelegate"));
        assert_eq!(
            mount.folder("/docker/abc/inner").as_deref(),
            Some(Path::new("/sys/fs/cgroup/inner"))
        );
        assert_eq!(mount.folder("/elsewhere"), None);
    }
}
