//! The order of system calls: what an answer tells is on the disk before it.

use std::process::Command;

use super::*;

/// The only calls that are looked at.
const CALLS: &str = "trace=pwrite64,fdatasync,fsync,write,writev";

#[test]
fn a_prompts_result_is_written_after_the_sync_of_its_events() {
    if std::env::var_os("ACPBOX_TEST_NO_STRACE").is_some() {
        println!("skipped: ACPBOX_TEST_NO_STRACE is set");
        return;
    }
    let site = Site::new();
    site.configure("[vms.default]\ndriver = 'host'\n");
    let workspace = site.repository("project");
    let trace = site.folder().join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "65536", "-e", CALLS, "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_acpbox"))
        .args(["stdio", "--agent", "example"])
        .env_clear()
        .envs(site.environment())
        .current_dir(site.home());
    let found = Command::new("strace").arg("-V").output().is_ok();
    assert!(
        found,
        "this test needs strace (.ci/setup installs it); set ACPBOX_TEST_NO_STRACE=1 to go without it"
    );
    let mut raw = Raw::spawn(&mut command);
    // The agent has a standard output too; this one is strace's as well.
    let process = raw.pid().as_raw_nonzero();
    let output = std::fs::read_link(format!("/proc/{process}/fd/1")).unwrap();
    let output = format!("<{}>", output.display());
    raw.initialize();
    let session = raw.open(&workspace);
    let mut expected = vec![session_answer(&raw)];
    for text in [
        "[[say:one]]",
        "[[flood:300]]",
        "[[say:three]]",
        "[[refuse:x]]",
    ] {
        let id = raw.prompt(&session, text);
        raw.answer(id);
        expected.push(id);
    }
    raw.close_input();
    let status = raw.wait(Duration::from_secs(30));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");

    let trace = std::fs::read_to_string(trace).unwrap();
    let mut log = Log::default();
    let mut told = Vec::new();
    for line in trace.lines() {
        log.note(line, &expected);
        let answers = (expected.iter()).filter(|id| is_answer(line, &output, **id));
        for id in answers {
            assert!(
                log.synced.contains(id),
                "the answer to {id} was sent before it was on disk: {:?}",
                log.written
            );
            told.push(*id);
        }
    }
    assert_eq!(told, expected);
}

/// What of the answers has become of the write-ahead log: others write to it too.
#[derive(Default)]
struct Log {
    written: Vec<u64>,
    synced: Vec<u64>,
    /// Threads in the middle of a sync, with what was written before it.
    syncing: Vec<(String, Vec<u64>)>,
}

impl Log {
    fn note(&mut self, line: &str, expected: &[u64]) {
        let thread = line.split_whitespace().next().unwrap_or_default();
        let is_log = line.contains("acpbox.db-wal>");
        if is_log && line.contains("pwrite64(") {
            let stored = expected.iter().filter(|id| line.contains(&mark(**id)));
            self.written.extend(stored);
        }
        let is_sync = line.contains("fdatasync(") || line.contains("fsync(");
        if is_log && is_sync {
            if line.ends_with(" = 0") {
                self.synced.extend(&self.written);
            } else {
                self.syncing.push((thread.to_owned(), self.written.clone()));
            }
        }
        let is_end = line.contains("sync resumed>") && line.ends_with(" = 0");
        let mut syncing = self.syncing.iter();
        if is_end && let Some(at) = syncing.position(|(its, _)| its == thread) {
            self.synced.extend(self.syncing.swap_remove(at).1);
        }
    }
}

/// The id of the answer to `session/new`, which is synced too.
fn session_answer(raw: &Raw) -> u64 {
    let lines = raw.so_far();
    let answer = lines
        .iter()
        .find(|line| line.contains("sessionId"))
        .unwrap();
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    answer["id"].as_u64().unwrap()
}

/// Whether the line begins to write this answer to acpbox's output.
fn is_answer(line: &str, output: &str, id: u64) -> bool {
    line.contains(output) && line.contains(&mark(id))
}

/// How an answer begins, as strace writes it.
fn mark(id: u64) -> String {
    format!("{{\\\"jsonrpc\\\":\\\"2.0\\\",\\\"id\\\":{id},\\\"result\\\"")
}
