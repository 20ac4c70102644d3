//! Upper bounds for a whole VM.

use super::*;

/// Whether this host could put the limits into force; a VM says so itself.
fn in_force(guest: &Guest, limit: &str) -> bool {
    let missing = format!("the limit on {limit}");
    let warnings = guest.vm.warnings();
    !warnings.iter().any(|warning| warning.contains(&missing))
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
    if !in_force(&guest, "processes") {
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
    assert!(groups_of("bomb").is_empty(), "{:?}", groups_of("bomb"));
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
    if !in_force(&guest, "memory") {
        eprintln!("not shown here: {:?}", guest.vm.warnings());
        return;
    }
    guest.succeed("perl -e '$x = \"x\" x (8 << 20)'").await;
    let (_, exit) = guest.run("exec perl -e '$x = \"x\" x (256 << 20)'").await;
    assert_eq!(exit, Exit::Signal(9));
    guest.succeed("true").await;
    guest.stop().await;
    assert!(groups_of("hungry").is_empty(), "{:?}", groups_of("hungry"));
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

/// Control groups that this process has made for a VM.
fn groups_of(vm: &str) -> Vec<PathBuf> {
    let start = format!("acpbox-{}-", std::process::id());
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
