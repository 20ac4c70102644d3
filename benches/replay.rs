//! How fast `session/load` replays a long transcript, against a bare SQLite scan
//! of the same rows in the same run.
//!
//! `cargo bench --bench replay [-- EVENTS]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acpbox::store::{Direction, EventRow, Store};
use rusqlite::{Connection, OpenFlags};

const ROUNDS: usize = 5;

fn main() {
    let count: i64 = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let folder = tempfile::Builder::new()
        .prefix("bench-replay")
        .tempdir_in("target")
        .unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let cwd = folder.join("workspace");
    std::fs::create_dir(&cwd).unwrap();
    let database = folder.join("state/acpbox/acpbox.db");

    let new = format!(r#"{{"cwd":"{}","mcpServers":[]}}"#, cwd.display());
    let answer = Peer::start(&folder).call("session/new", &new).0;
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let session = value["result"]["sessionId"].as_str().unwrap().to_owned();
    fill(&database, &session, count);

    let mut scans = Vec::new();
    let mut replays = Vec::new();
    let load = format!(
        r#"{{"sessionId":"{session}","cwd":"{}","mcpServers":[]}}"#,
        cwd.display()
    );
    for _ in 0..ROUNDS {
        scans.push(scan(&database, count));
        let mut peer = Peer::start(&folder);
        let started = Instant::now();
        let (answer, lines) = peer.call("session/load", &load);
        replays.push(started.elapsed());
        assert!(answer.contains("\"result\""), "{answer}");
        assert!(lines as i64 >= count, "{lines} lines");
    }
    let (scan, replay) = (median(scans), median(replays));
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    println!("bare scan of {count} events: {:>9.0}/s", rate(scan));
    println!("session/load, agent included: {:>9.0}/s", rate(replay));
    println!(
        "the replay runs at {:.2} of the scan",
        rate(replay) / rate(scan)
    );
}

/// Updates of 200 bytes.
fn fill(database: &Path, session: &str, count: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(database).unwrap();
        let first = store.last_seq(session).await.unwrap() + 1;
        let mut rows = (first..first + count).map(|seq| {
            let mut raw = format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"{session}","update":{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"{seq} "#);
            while raw.len() < 195 {
                raw.push('x');
            }
            raw.push_str(r#""}}}}"#);
            EventRow {
                session: session.into(),
                seq,
                time: 1_700_000_000_000 + seq,
                direction: Direction::Agent,
                kind: "agent_message_chunk".into(),
                raw: raw.into(),
            }
        });
        loop {
            let chunk: Vec<EventRow> = rows.by_ref().take(1000).collect();
            if chunk.is_empty() {
                break;
            }
            store.reserve().await.unwrap().append(chunk, false).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

/// Reads every column of the rows, and does nothing with them.
fn scan(database: &Path, count: i64) -> Duration {
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let started = Instant::now();
    let mut statement = connection
        .prepare("SELECT id, time, direction, kind, raw FROM events ORDER BY id")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut seen = 0;
    let mut bytes = 0;
    while let Some(row) = rows.next().unwrap() {
        let numbers: [i64; 3] = [
            row.get(0).unwrap(),
            row.get(1).unwrap(),
            row.get(2).unwrap(),
        ];
        let kind = row.get_ref(3).unwrap().as_bytes().unwrap();
        let raw = row.get_ref(4).unwrap().as_bytes().unwrap();
        bytes += std::hint::black_box((numbers, kind, raw)).2.len();
        seen += 1;
    }
    assert!(seen >= count && bytes > 0);
    started.elapsed()
}

/// A client that counts lines.
struct Peer {
    child: std::process::Child,
    output: std::process::ChildStdout,
}

impl Peer {
    fn start(folder: &Path) -> Peer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_acpbox"))
            .args(["stdio", "--agent", "example"])
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .env("HOME", folder)
            .current_dir(folder.join("workspace"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let mut peer = Peer { child, output };
        peer.call(
            "initialize",
            r#"{"protocolVersion":1,"clientCapabilities":{}}"#,
        );
        peer
    }

    /// The answer, and how many lines came up to it.
    fn call(&mut self, method: &str, params: &str) -> (String, usize) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(
            input,
            r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#
        )
        .unwrap();
        let mut lines = 0;
        let mut rest = Vec::new();
        let mut chunk = vec![0; 256 * 1024];
        loop {
            let count = self.output.read(&mut chunk).unwrap();
            assert!(count > 0, "acpbox closed its output");
            lines += chunk[..count].iter().filter(|byte| **byte == b'\n').count();
            let Some(end) = chunk[..count].iter().rposition(|byte| *byte == b'\n') else {
                rest.extend_from_slice(&chunk[..count]);
                continue;
            };
            rest.extend_from_slice(&chunk[..end]);
            // Few updates can follow the answer in the same read.
            let answer = rest
                .rsplit(|byte| *byte == b'\n')
                .take(16)
                .find(|line| line.starts_with(br#"{"jsonrpc":"2.0","id":7,"#));
            if let Some(answer) = answer {
                return (String::from_utf8_lossy(answer).into_owned(), lines);
            }
            rest.clear();
            rest.extend_from_slice(&chunk[end + 1..count]);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
