//! A client that keeps every byte it received, for tests of what is stored.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use acpbox::rpc::codec::Framing;
use acpbox::store::{EventPage, EventRow, Store};
use acpbox::transcript::Shown;
use serde_json::{Value, json};

use super::site::{Site, initialize};

const PATIENCE: Duration = Duration::from_secs(60);

/// `acpbox stdio` and what it wrote. Dropping it kills it.
pub struct Raw {
    child: Child,
    input: Option<ChildStdin>,
    received: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    last_id: u64,
}

impl Raw {
    /// Starts it with these further arguments, and initializes.
    pub fn start(site: &Site, arguments: &[&str]) -> Raw {
        let all = [&["stdio", "--agent", "example"], arguments].concat();
        let mut raw = Raw::spawn(&mut site.command(&all));
        raw.initialize();
        raw
    }

    /// Starts a command that comes to be `acpbox stdio`; not yet initialized.
    pub fn spawn(command: &mut Command) -> Raw {
        let mut child = (command.stdin(Stdio::piped()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let mut output = child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        // Drained, so that it never waits for the test.
        let mut errors = child.stderr.take().unwrap();
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Raw {
            input: child.stdin.take(),
            child,
            received,
            reader: Some(reader),
            last_id: 0,
        }
    }

    pub fn initialize(&mut self) {
        let id = self.send("initialize", initialize(json!({})));
        self.answer(id);
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let _ = rustix::process::kill_process(self.pid(), signal);
    }

    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        id
    }

    /// Opens a session in that folder; returns its id.
    pub fn open(&mut self, cwd: &std::path::Path) -> String {
        let id = self.send("session/new", json!({"cwd": cwd, "mcpServers": []}));
        let answer = self.answer(id);
        let session = answer["result"]["sessionId"].as_str();
        session.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub fn prompt(&mut self, session: &str, text: &str) -> u64 {
        self.send("session/prompt", super::bare::prompt(session, text))
    }

    /// Waits for the whole answer to a request.
    pub fn answer(&mut self, id: u64) -> Value {
        // At the start: what is stored may hold other answers with this id.
        let mark = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},");
        let is_answer =
            |line: &str| line.starts_with(&mark) && !line[mark.len()..].starts_with("\"method\"");
        let line = self.wait_for(is_answer);
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for a line of which this is true, and returns it.
    pub fn wait_for(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        let mut seen = 0;
        loop {
            let (lines, end) = {
                let received = self.received.lock().unwrap();
                let end = received.iter().rposition(|byte| *byte == b'\n');
                let end = end.map_or(seen, |end| (end + 1).max(seen));
                (received[seen..end].to_vec(), end)
            };
            seen = end;
            let lines = String::from_utf8(lines).unwrap();
            if let Some(line) = lines.lines().find(|line| is_wanted(line)) {
                return line.to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "it did not come: {lines}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for its end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// The whole lines that were received so far.
    pub fn so_far(&self) -> Vec<String> {
        whole_lines(&self.received.lock().unwrap())
    }

    /// Everything that was received until its end, as whole lines.
    pub fn lines(mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let received = std::mem::take(&mut *self.received.lock().unwrap());
        whole_lines(&received)
    }
}

fn whole_lines(received: &[u8]) -> Vec<String> {
    let end = received.iter().rposition(|byte| *byte == b'\n');
    let whole = &received[..end.map_or(0, |end| end + 1)];
    let whole = String::from_utf8(whole.to_vec()).unwrap();
    whole.lines().map(str::to_owned).collect()
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of an update, if it has one.
pub fn seq(line: &str) -> Option<i64> {
    let rest = line.split_once("\"_meta\":{\"acpbox\":{\"seq\":")?.1;
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// Checks that every update which a client received is stored, as it was shown.
/// Returns how many there were.
pub fn expect_stored(lines: &[String], rows: &[EventRow]) -> usize {
    let mut count = 0;
    for line in lines {
        let Some(seq) = seq(line) else { continue };
        let stored = rows.binary_search_by_key(&seq, |row| row.seq);
        let stored = stored.unwrap_or_else(|_| panic!("event {seq} is lost: {line}"));
        let mut shown = Shown::new(&rows[stored].session, Framing::Lines);
        shown.feed(rows[stored].borrowed());
        let shown = String::from_utf8(shown.take()).unwrap();
        assert_eq!(shown.trim_end(), line, "event {seq}");
        count += 1;
    }
    count
}

/// Opens a database that nobody else has open, checks all of it, and returns
/// a session's events.
pub fn stored(database: &std::path::Path, session: &str) -> Vec<EventRow> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(database).unwrap();
        store.check().await.unwrap();
        let mut rows = Vec::new();
        loop {
            let page = EventPage {
                session: session.to_owned(),
                after: Some(rows.last().map_or(0, |row: &EventRow| row.seq)),
                limit: 20_000,
                max_bytes: 64 << 20,
                ..EventPage::default()
            };
            let mut page = store.events(page).await.unwrap();
            if page.is_empty() {
                break;
            }
            rows.append(&mut page);
        }
        store.close().await.unwrap();
        rows
    })
}
