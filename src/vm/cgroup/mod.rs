//! Limits for a whole guest, by control groups where this host lets us make
//! them. Never a reason to have no guest: what is missing becomes a warning.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Check, Limits, Outcome};
use places::{Place, Version};

mod places;

/// Where a user without a delegated group gets one.
const MEND: &str = "start acpbox with `systemd-run --user --scope -p Delegate=yes acpbox …`, \
                    or let systemd delegate the memory and pids controllers to your user";

/// Every group that acpbox makes starts with this and the maker's process id.
const PREFIX: &str = "acpbox-";

/// How often and how long after one another an ended guest's group is asked to
/// go: its last processes may still be on their way out.
const REMOVALS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// The groups of one guest. Call [`Cgroups::remove`] when it has ended.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    groups: Vec<Group>,
    /// Limits that hold, by controller name.
    held: Vec<&'static str>,
}

#[derive(Debug)]
struct Group {
    folder: PathBuf,
    version: Version,
}

impl Cgroups {
    /// Makes what the limits need and this host allows.
    pub(super) fn make(vm: &str, limits: &Limits) -> Cgroups {
        let mut made = Cgroups::default();
        let wanted = [("memory", limits.memory), ("pids", limits.processes)];
        for (controller, limit) in wanted {
            let Some(limit) = limit else { continue };
            if made.limit(vm, controller, limit).is_some() {
                made.held.push(controller);
            }
        }
        made
    }

    pub(super) fn holds_memory(&self) -> bool {
        self.held.contains(&"memory")
    }

    pub(super) fn holds_processes(&self) -> bool {
        self.held.contains(&"pids")
    }

    /// Files into which a process of a single thread writes `0` to join.
    pub(super) fn doors(&self) -> Vec<OwnedFd> {
        let open = |group: &Group| {
            // A thread that moves itself needs no lock on all of the machine's
            // forks, which takes 10 to 25 ms. Version two has no such door.
            let door = match group.version {
                Version::One => "tasks",
                Version::Two => "cgroup.procs",
            };
            let door = group.folder.join(door);
            OpenOptions::new().write(true).open(door).ok()
        };
        self.groups
            .iter()
            .filter_map(open)
            .map(File::into)
            .collect()
    }

    /// Whether a process of this host is in all of the groups.
    pub(super) fn contain(&self, pid: u32) -> bool {
        let Ok(membership) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
            return false;
        };
        self.groups.iter().all(|group| {
            let name = group.folder.file_name().unwrap_or_default();
            membership
                .lines()
                .any(|line| Path::new(line).ends_with(name))
        })
    }

    /// How many processes the kernel killed for lack of memory.
    pub(super) fn killed_for_memory(&self) -> u64 {
        let count = |group: &Group| {
            let file = match group.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            let text = fs::read_to_string(group.folder.join(file)).ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse::<u64>().ok()
        };
        self.groups.iter().filter_map(count).max().unwrap_or(0)
    }

    /// Removes the groups; one that stays busy is swept by a later boot.
    pub(super) fn remove(&mut self) {
        for group in self.groups.drain(..) {
            for _ in 0..REMOVALS {
                match fs::remove_dir(&group.folder) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(REMOVAL_PAUSE);
                    }
                    _ => break,
                }
            }
        }
    }

    fn limit(&mut self, vm: &str, controller: &str, limit: u64) -> Option<()> {
        let known = self
            .groups
            .iter()
            .position(|group| group.version == Version::Two && offers(&group.folder, controller));
        let index = match known {
            Some(index) => index,
            None => {
                let place = places::find(controller)?;
                self.groups.push(make_group(&place, vm)?);
                self.groups.len() - 1
            }
        };
        let group = &self.groups[index];
        let file = match (controller, group.version) {
            ("memory", Version::One) => "memory.limit_in_bytes",
            ("memory", Version::Two) => "memory.max",
            _ => "pids.max",
        };
        fs::write(group.folder.join(file), limit.to_string()).ok()?;
        if controller == "memory" {
            // Without this the limit only moves the excess into swap. Absent
            // where swap is not accounted.
            let (swap, value) = match group.version {
                Version::One => ("memory.memsw.limit_in_bytes", limit.to_string()),
                Version::Two => ("memory.swap.max", "0".to_owned()),
            };
            let _ = fs::write(group.folder.join(swap), value);
        }
        Some(())
    }
}

/// What this host offers, for `acpbox doctor`.
pub(super) fn check() -> Check {
    let usable = |controller: &&str| {
        let made = places::find(controller).and_then(|place| make_group(&place, "probe"));
        let Some(group) = made else { return false };
        let _ = fs::remove_dir(&group.folder);
        true
    };
    let missing: Vec<&str> = ["memory", "pids"]
        .into_iter()
        .filter(|controller| !usable(controller))
        .collect();
    let outcome = if missing.is_empty() {
        Outcome::Good("memory and processes of a VM can be limited".to_owned())
    } else {
        Outcome::Degraded(format!(
            "no control group can be made for {}, so that such limits may not hold; {MEND}",
            missing.join(" and ")
        ))
    };
    Check {
        what: "control groups".to_owned(),
        outcome,
    }
}

/// What to say about a limit that nothing holds.
pub(super) fn missing_limit(limit: &str) -> String {
    format!("the limit on {limit} is not in force: this host gave no control group; {MEND}")
}

fn make_group(place: &Place, vm: &str) -> Option<Group> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    sweep(&place.folder);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let safe: String = vm
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '_'
            }
        })
        .take(40)
        .collect();
    let name = format!("{PREFIX}{}-{count}-{safe}", std::process::id());
    let folder = place.folder.join(name);
    fs::create_dir(&folder).ok()?;
    let group = Group {
        folder,
        version: place.version,
    };
    let joinable = OpenOptions::new()
        .write(true)
        .open(group.folder.join("cgroup.procs"))
        .is_ok();
    if joinable && offers(&group.folder, place.controller) {
        Some(group)
    } else {
        let _ = fs::remove_dir(&group.folder);
        None
    }
}

fn offers(folder: &Path, controller: &str) -> bool {
    let file = match controller {
        "memory" => ["memory.max", "memory.limit_in_bytes"],
        _ => ["pids.max", "pids.max"],
    };
    file.iter().any(|file| folder.join(file).exists())
}

/// Removes groups whose maker is dead. One with processes cannot be removed,
/// so that nothing alive can be hit.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(maker) = maker
            && !Path::new("/proc").join(maker).exists()
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
