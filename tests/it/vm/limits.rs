//! Upper bounds for a whole VM.

use acpbox::vm::Outcome;

use super::*;

/// Whether this host could put the limits into force; a VM says so itself, and
/// may only do so where the probe says that it cannot.
async fn in_force(guest: &Guest, limit: &str) -> bool {
    let missing = format!("the limit on {limit}");
    let warnings = guest.vm.warnings();
    let holds = !warnings.iter().any(|warning| warning.contains(&missing));
    if !holds {
        let checks = named("namespace").probe().await;
        let groups = checks.iter().find(|check| check.what == "control groups");
        let outcome = &groups.unwrap().outcome;
        assert!(
            matches!(outcome, Outcome::Degraded(_)),
            "{outcome:?} {warnings:?}"
        );
    }
    holds
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_leaves_the_guest_usable() {
    let lab = Lab::new();
    let limits = Limits {
        processes: Some(60),
        ..Limits::default()
    };
    let guest = lab
        .boot_with(VmSpec {
            limits,
            ..lab.spec("bomb")
        })
        .await;
    if !in_force(&guest, "processes").await {
        eprintln!("not shown here: {:?}", guest.vm.warnings());
        return;
    }
    let mark = unique_sleep();
    let bomb = format!("for i in $(seq 200); do sleep {mark} & done 2>/dev/null; echo over");
    let process = guest.spawn(guest.shell(&bomb)).await.unwrap();
    eventually("the bomb goes off", PATIENCE, || alive(&mark).len() > 20);
    std::thread::sleep(Duration::from_millis(300));
    let count = alive(&mark).len();
    assert!(count < 60, "{count} processes");
    process.control.kill();
    eventually("they are gone", PATIENCE, || alive(&mark).is_empty());
    guest.succeed("true").await;
    guest.stop().await;
    let left = groups_made_by(std::process::id(), "bomb");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let lab = Lab::new();
    let limits = Limits {
        memory: Some(64 << 20),
        ..Limits::default()
    };
    let guest = lab
        .boot_with(VmSpec {
            limits,
            ..lab.spec("hungry")
        })
        .await;
    if !in_force(&guest, "memory").await {
        eprintln!("not shown here: {:?}", guest.vm.warnings());
        return;
    }
    guest.succeed("perl -e '$x = \"x\" x (8 << 20)'").await;
    let (_, exit) = guest.run("exec perl -e '$x = \"x\" x (256 << 20)'").await;
    assert_eq!(exit, Exit::Signal(9));
    guest.succeed("true").await;
    let vm = guest.vm.clone();
    guest.stop().await;
    let reason = vm.ended().borrow().clone().unwrap();
    assert!(
        reason.contains("memory limit of 67108864 bytes"),
        "{reason}"
    );
    let left = groups_made_by(std::process::id(), "hungry");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn open_files_are_bounded() {
    let lab = Lab::new();
    let limits = Limits {
        open_files: Some(77),
        ..Limits::default()
    };
    for driver in ["namespace", "host"] {
        let spec = VmSpec {
            limits: limits.clone(),
            ..lab.spec(driver)
        };
        let guest = lab.boot_by(driver, spec).await;
        assert_eq!(guest.succeed("ulimit -Sn; ulimit -Hn").await, "77\n77");
        guest.fail("ulimit -n 78").await;
        guest.stop().await;
    }
}

/// Control groups that a process has made for a VM.
pub(super) fn groups_made_by(process: u32, vm: &str) -> Vec<PathBuf> {
    let start = format!("acpbox-{process}-");
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&start) && name.ends_with(vm) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}
