//! Power loss: acpbox runs in a User Mode Linux, a kernel that is a process,
//! with its database on a virtual disk. Killing that process takes with it what
//! its kernel had not yet written to the disk.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use acpbox::store::Store;
use serde_json::Value;

use super::*;

/// `ACPBOX_TEST_POWER_ROUNDS` asks for more.
const POWER_ROUNDS: u64 = 4;

/// What the machine runs first. It works in memory, but for the database.
const START: &str = r#"#!/bin/sh
exec < /dev/tty1 > /dev/tty1 2> /dev/null
stty raw -echo
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/disk /mnt/home /mnt/run /mnt/config/acpbox /mnt/state /mnt/work
mount -t ext4 /dev/ubda /mnt/disk
printf '[vms.default]\ndriver = "host"\n' > /mnt/config/acpbox/config.toml
export HOME=/mnt/home XDG_CONFIG_HOME=/mnt/config XDG_STATE_HOME=/mnt/state XDG_RUNTIME_DIR=/mnt/run
cd /mnt/work
echo ready
"$ACPBOX" stdio --agent example --db /mnt/disk/acpbox.db
umount /mnt/disk
"#;

#[test]
fn a_finished_turn_survives_power_loss() {
    if std::env::var_os("ACPBOX_TEST_NO_UML").is_some() || !cfg!(target_arch = "x86_64") {
        println!("skipped: no User Mode Linux here");
        return;
    }
    let rounds = std::env::var("ACPBOX_TEST_POWER_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(POWER_ROUNDS);
    let mut random = Random(seed());
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path());
    // What was seen of each session, and up to where it was acknowledged.
    let mut sessions: Vec<(String, BTreeMap<i64, Value>, i64)> = Vec::new();
    let (mut acknowledged, mut lost) = (0, 0);
    for round in 0..rounds {
        let mut running = machine.start();
        if let Some((session, seen, last)) = sessions.last() {
            lost += check(&mut running.0, session, seen, *last);
        }
        let session = running.0.open(Path::new("/mnt/work"));
        let mut last = 0;
        for _ in 0..1 + random.below(8) {
            let size = 1 + random.below(300);
            let turn = running.0.prompt(&session, &format!("[[flood:{size}]]"));
            let result = running.0.answer(turn);
            let meta = &result["result"]["_meta"]["acpbox"];
            last = meta["lastSeq"]
                .as_i64()
                .unwrap_or_else(|| panic!("{result}"));
        }
        running.0.prompt(&session, "[[flood:100000]]");
        std::thread::sleep(Duration::from_millis(10 + random.below(400)));
        let seen = updates(&running.cut_off());
        println!(
            "round {round}: {} updates seen, {last} events acknowledged",
            seen.len()
        );
        acknowledged += last;
        sessions.push((session, seen, last));
    }
    let mut running = machine.start();
    for (session, seen, last) in &sessions {
        let missing = check(&mut running.0, session, seen, *last);
        if session == &sessions.last().unwrap().0 {
            lost += missing;
        }
    }
    running.0.close_input();
    assert!(running.0.wait(Duration::from_secs(30)).is_some());
    machine.check_database();
    println!("{acknowledged} events acknowledged, none lost; {lost} others were shown and lost");
    // Else the disk has all that is written, and nothing was tested.
    assert!(lost > 0, "no power was lost");
}

/// All that was acknowledged is stored, as it was shown. Returns how much of
/// what was not is missing.
fn check(acpbox: &mut Raw, session: &str, seen: &BTreeMap<i64, Value>, last: i64) -> usize {
    let mut stored = BTreeMap::new();
    loop {
        let after = stored.last_key_value().map_or(0, |(seq, _)| *seq);
        let params = json!({"sessionId": session, "after": after, "limit": 2000});
        let id = acpbox.send("_acpbox/session/events", params);
        let page = acpbox.answer(id);
        let events = page["result"]["events"].as_array();
        let events = events.unwrap_or_else(|| panic!("{page}"));
        if events.is_empty() {
            break;
        }
        for event in events {
            stored.insert(event["seq"].as_i64().unwrap(), event["message"].clone());
        }
    }
    for seq in 1..=last {
        let message = stored.get(&seq);
        let message = message.unwrap_or_else(|| panic!("event {seq} of {last} is lost"));
        if let Some(shown) = seen.get(&seq) {
            assert_eq!(message["params"]["update"], *shown, "event {seq}");
        }
    }
    seen.keys().filter(|seq| !stored.contains_key(seq)).count()
}

/// The updates among these lines, by number.
fn updates(lines: &[String]) -> BTreeMap<i64, Value> {
    let updates = lines.iter().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some((seq(line)?, message["params"]["update"].clone()))
    });
    updates.collect()
}

/// A machine that is switched off: its disk, and what it starts with.
struct Machine<'a>(&'a Path);

impl Machine<'_> {
    fn new(folder: &Path) -> Machine<'_> {
        let machine = Machine(folder);
        let disk = std::fs::File::create(machine.disk()).unwrap();
        disk.set_len(128 << 20).unwrap();
        run(Command::new("/sbin/mkfs.ext4")
            .arg("-qF")
            .arg(machine.disk()));
        let start = folder.join("start");
        std::fs::write(&start, START).unwrap();
        run(Command::new("chmod").arg("+x").arg(start));
        machine
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    /// Switches it on. Its root is the host's, read-only.
    fn start(&self) -> Running {
        let mut command = Command::new("linux.uml");
        command
            .args([
                "mem=256M",
                "root=/dev/root",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
            ])
            .args(["quiet", "con=null", "con0=null", "con1=fd:0,fd:1"])
            .arg(format!("ubda={}", self.disk().display()))
            .arg(format!("umid=acpbox-{}", std::process::id()))
            .arg(format!("uml_dir={}", self.0.display()))
            .arg(format!("init={}", self.0.join("start").display()))
            .arg(format!("ACPBOX={}", env!("CARGO_BIN_EXE_acpbox")))
            .process_group(0);
        let found = which("linux.uml");
        assert!(
            found,
            "this test needs the package user-mode-linux (.ci/setup installs it); set \
             ACPBOX_TEST_NO_UML=1 to go without it"
        );
        let mut running = Running(Raw::spawn(&mut command));
        running.0.wait_for(|line| line == "ready");
        running.0.initialize();
        running
    }

    /// Looks through the database of a machine that was shut down.
    fn check_database(&self) {
        for name in ["acpbox.db", "acpbox.db-wal"] {
            let order = format!("dump /{name} {}", self.0.join(name).display());
            run(Command::new("/sbin/debugfs")
                .args(["-R", &order])
                .arg(self.disk()));
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.0.join("acpbox.db")).unwrap();
            store.check().await.unwrap();
            store.close().await.unwrap();
        });
    }
}

/// A machine that is on. Dropping it cuts its power.
struct Running(Raw);

impl Running {
    fn kill(&self) {
        let group = self.0.pid();
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }

    /// Cuts the power; returns what came until then.
    fn cut_off(mut self) -> Vec<String> {
        self.kill();
        self.0.wait(AT_MOST).expect("it was killed");
        self.0.so_far()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}
