//! Everything ends with acpbox, however it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// Limits that only need their control groups.
const MUCH: Limits = Limits {
    memory: Some(4 << 30),
    processes: Some(500),
    open_files: None,
};

/// The promise of THREATS.
const AT_MOST: Duration = Duration::from_secs(2);

/// Not a test of its own: a process that holds a VM, for others to kill. It is
/// told by the environment what to do.
#[tokio::test]
#[ignore = "a helper that other tests start and kill"]
async fn holder() {
    let Ok(order) = std::env::var("ACPBOX_TEST_HOLDER") else {
        return;
    };
    let (driver, rest) = order.split_once(' ').unwrap();
    let (mark, folder) = rest.split_once(' ').unwrap();
    let folder = PathBuf::from(folder);
    let workspace = folder.join("workspace");
    let vm = named(driver)
        .boot(VmSpec {
            name: "held".to_owned(),
            state_dir: folder.join("vms/held"),
            workspaces: vec![workspace.clone()],
            mounts: Vec::new(),
            root: Root::Host,
            network: Network::Full,
            limits: MUCH,
            protected: vec![".vscode".into(), ".mcp.json".into()],
        })
        .await
        .unwrap();
    let guest = Guest { vm, workspace };
    let script = format!(
        "trap '' TERM HUP INT
         sleep {mark} &
         setsid bash -c 'trap \"\" TERM HUP; (setsid sleep {mark} &) ; sleep {mark}' &
         while [ $(pgrep -cf '^sleep {mark}') -lt 3 ]; do sleep 0.01; done
         echo ready
         sleep {mark}"
    );
    let process = guest.spawn(guest.shell(&script)).await.unwrap();
    // To standard error, since the test harness owns standard output.
    let mut output = BufReader::new(File::from(process.stdout));
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    eprintln!("holding {line}");
    std::thread::sleep(Duration::from_secs(60));
}

struct Holder {
    process: Child,
    mark: String,
}

impl Holder {
    fn start(driver: &str, lab: &Lab) -> Holder {
        let mark = unique_sleep();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "vm::death::holder", "--ignored", "--nocapture"])
            .env(
                "ACPBOX_TEST_HOLDER",
                format!("{driver} {mark} {}", lab.path().display()),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let mut all = String::new();
        while !line.starts_with("holding ready") {
            line.clear();
            let count = errors.read_line(&mut line).unwrap();
            all.push_str(&line);
            assert!(count > 0, "the holder failed: {all}");
        }
        eventually("all of it runs", PATIENCE, || alive(&mark).len() == 4);
        Holder { process, mark }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        eventually("every process of the guest is gone", AT_MOST, || {
            alive(&self.mark).is_empty()
        });
    }
}

#[test]
fn killing_acpbox_ends_a_namespace_guest() {
    let lab = Lab::new();
    Holder::start("namespace", &lab).kill();
}

#[test]
fn killing_acpbox_ends_every_process_on_the_host() {
    let lab = Lab::new();
    Holder::start("host", &lab).kill();
}

#[tokio::test]
async fn what_a_killed_acpbox_left_in_a_workspace_is_removed_by_the_next_boot() {
    let lab = Lab::new();
    let holder = Holder::start("namespace", &lab);
    assert!(lab.workspace().join(".vscode").is_dir());
    let maker = holder.process.id();
    let groups = limits::groups_made_by(maker, "held");
    holder.kill();
    assert!(
        lab.workspace().join(".vscode").is_dir(),
        "nobody was left to remove it"
    );
    // A group can go only once its last process has; any boot removes it then,
    // that of another test too.
    eventually("the guest is gone", AT_MOST, || {
        let is_empty = |group: &PathBuf| {
            std::fs::read_to_string(group.join("cgroup.procs"))
                .map_or(true, |members| members.is_empty())
        };
        groups.iter().all(is_empty)
    });
    let spec = VmSpec {
        limits: MUCH,
        ..lab.spec("held")
    };
    let guest = lab.boot_with(spec).await;
    let left = limits::groups_made_by(maker, "held");
    assert!(left.is_empty(), "{left:?}");
    assert!(!lab.workspace().join(".vscode").exists());
    assert!(!lab.workspace().join(".mcp.json").exists());
    guest.stop().await;
}

#[tokio::test]
async fn stopping_a_vm_ends_every_process_in_it() {
    for driver in ["namespace", "host"] {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let mark = unique_sleep();
        let script = format!(
            "trap '' TERM; setsid bash -c 'trap \"\" TERM; (setsid sleep {mark} &); sleep {mark}' & \
             while [ $(pgrep -cf '^sleep {mark}') -lt 2 ]; do sleep 0.01; done; echo ready; sleep {mark}"
        );
        let process = guest.spawn(guest.shell(&script)).await.unwrap();
        let mut output = BufReader::new(File::from(process.stdout));
        output.read_line(&mut String::new()).unwrap();
        eventually("all of it runs", PATIENCE, || alive(&mark).len() == 3);
        guest.stop().await;
        assert!(alive(&mark).is_empty(), "{driver}");
    }
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_guest() {
    for driver in ["namespace", "host"] {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let mark = unique_sleep();
        let spec = guest.shell(&format!("exec sleep {mark}"));
        let process = guest.spawn(spec).await.unwrap();
        eventually("it runs", PATIENCE, || alive(&mark).len() == 1);
        drop(guest);
        assert_eq!(ended(process.exit).await, Exit::Signal(15));
        eventually("it is gone", AT_MOST, || alive(&mark).is_empty());
    }
}

#[tokio::test]
async fn a_guest_killed_from_outside_is_reported() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let mark = unique_sleep();
    let spec = guest.shell(&format!("exec sleep {mark}"));
    let process = guest.spawn(spec).await.unwrap();
    eventually("it runs", PATIENCE, || alive(&mark).len() == 1);
    let pid = alive(&mark)[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap();
    let killed = Command::new("kill").args(["-9", parent]).status().unwrap();
    assert!(killed.success());
    let exit = ended(process.exit).await;
    assert!(
        matches!(&exit, Exit::Lost(reason) if reason.contains("the guest ended")),
        "{exit:?}"
    );
    let reason = guest.vm.ended().borrow().clone().unwrap();
    assert!(reason.contains("the guest ended"), "{reason}");
    assert!(alive(&mark).is_empty());
}
