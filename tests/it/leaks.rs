//! Sessions that come and go leave nothing behind.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::bare::Bare;
use crate::support::site::{Site, eventually};

/// `ACPBOX_TEST_CYCLES` asks for more.
const CYCLES: u64 = 200;

/// Cycles after which nothing is made for the first time.
const WARM_UP: u64 = 100;

#[test]
fn sessions_that_come_and_go_leave_nothing() {
    let cycles = std::env::var("ACPBOX_TEST_CYCLES").ok();
    let cycles = cycles.and_then(|cycles| cycles.parse().ok());
    let cycles: u64 = cycles.unwrap_or(CYCLES);
    let mut site = Site::new();
    let temporary = site.folder().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    site.set("TMPDIR", temporary.to_str().unwrap());
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&["--agent", "example"]);
    for _ in 0..WARM_UP {
        cycle(&mut acpbox, &workspace);
    }
    let first = Footprint::of(&site, &acpbox);
    let start = std::time::Instant::now();
    let mut seen = first;
    for number in 1..=cycles {
        cycle(&mut acpbox, &workspace);
        if number % 500 == 0 || number == cycles {
            seen = Footprint::of(&site, &acpbox);
            println!("{number} cycles, {:?}: {seen:?}", start.elapsed());
        }
    }
    println!("before: {first:?}\nafter:  {seen:?}");
    // A thread for reads ends when it was idle for some seconds.
    assert!(seen.threads <= first.threads + 4, "{seen:?}");
    assert!(seen.descriptors <= first.descriptors + 4, "{seen:?}");
    assert_eq!(seen.processes, first.processes);
    assert_eq!(seen.guest_descriptors, first.guest_descriptors);
    assert_eq!((seen.leases, seen.temporary_files), (0, 0));
    assert_eq!(seen.vm_files, first.vm_files);
    // The caches of the allocator and of SQLite fill up once; what is kept of a
    // session would add up.
    let growth = seen.memory.saturating_sub(first.memory);
    assert!(growth <= 2048 + cycles / 4, "{growth} KiB");
    let growth = seen.guest_memory.saturating_sub(first.guest_memory);
    assert!(growth <= 256 + cycles / 16, "{growth} KiB in the guest");
    let status = acpbox.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    site.watch().expect_none(Duration::ZERO);
}

fn cycle(acpbox: &mut Bare, workspace: &Path) {
    let created = acpbox.request("session/new", json!({"cwd": workspace, "mcpServers": []}));
    acpbox.request("session/close", json!({"sessionId": created["sessionId"]}));
    acpbox.received.clear();
}

/// What acpbox and its VM have, with no session in it.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    descriptors: usize,
    threads: usize,
    /// KiB, resident.
    memory: u64,
    /// Below acpbox: the VM's own.
    processes: usize,
    guest_descriptors: usize,
    /// KiB, resident.
    guest_memory: u64,
    leases: usize,
    temporary_files: usize,
    /// In the VM's own folders; what agents keep in their home is theirs.
    vm_files: usize,
}

impl Footprint {
    fn of(site: &Site, acpbox: &Bare) -> Footprint {
        let process = acpbox.id();
        // bubblewrap outside and inside, and the guest's first process.
        let is_empty = || descendants(process).len() <= 3;
        assert!(
            eventually(Duration::from_secs(2), is_empty),
            "agents are left"
        );
        let below = descendants(process);
        let guest = *below.last().expect("the VM runs");
        Footprint {
            descriptors: entries(&format!("/proc/{process}/fd")),
            threads: entries(&format!("/proc/{process}/task")),
            memory: resident(process),
            processes: below.len(),
            guest_descriptors: entries(&format!("/proc/{guest}/fd")),
            guest_memory: resident(guest),
            leases: entries(&site.state().join("leases").display().to_string()),
            temporary_files: entries(&site.folder().join("temporary").display().to_string()),
            vm_files: vm_files(&site.state().join("vms")),
        }
    }
}

/// The living processes below this one, each behind its parent.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let children = format!("/proc/{parent}/task");
        let threads = std::fs::read_dir(children).into_iter().flatten().flatten();
        let children = threads
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .collect::<String>();
        found.extend(
            children
                .split_whitespace()
                .map(|child| child.parse::<u32>().unwrap()),
        );
        next += 1;
    }
    found.remove(0);
    found
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn vm_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true if entry.file_name() == ".local" => 0,
            true => vm_files(&entry.path()),
            false => 1,
        })
        .sum()
}
