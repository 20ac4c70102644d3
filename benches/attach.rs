//! What a client that does not read costs one that does, in one session of
//! `acpbox serve`.
//!
//! `cargo bench --bench attach [-- UPDATES] [--minute]`. The agent is `acpbox
//! example-agent`. Each way of company is tried in turn, several times over; the
//! medians count. With `--minute` the updates come in sixty turns, one a second, so
//! that the one that stopped has stopped for a minute.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ACPBOX: &str = env!("CARGO_BIN_EXE_acpbox");
const ROUNDS: usize = 5;

fn main() {
    let updates: u64 = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    if std::env::args().any(|argument| argument == "--minute") {
        return minute(updates);
    }
    println!("## {updates} updates of 200 bytes in one turn, {ROUNDS} times: the reader's rate");
    let mut rates = [const { Vec::new() }; 3];
    let mut memory = [0; 3];
    let mut rest = Vec::new();
    for _ in 0..ROUNDS {
        for (at, company) in Company::ALL.iter().enumerate() {
            let measured = round(company, updates);
            rates[at].push(measured.rate);
            memory[at] = memory[at].max(measured.memory);
            rest.extend(measured.rest);
        }
    }
    let alone = median(&mut rates[0]);
    for (at, company) in Company::ALL.iter().enumerate() {
        let rate = median(&mut rates[at]);
        println!(
            "{company:<22?} {rate:>9.0} updates/s, {:>4.0} % of what it is alone, peak memory {} KiB",
            rate / alone * 100.0,
            memory[at]
        );
    }
    println!(
        "the stopped one then gets {:.0} updates/s from the database",
        median(&mut rest)
    );
}

/// Who follows beside the reader.
#[derive(Debug)]
enum Company {
    Nobody,
    OneThatStopped,
    OneThatReads,
}

impl Company {
    const ALL: [Company; 3] = [
        Company::Nobody,
        Company::OneThatStopped,
        Company::OneThatReads,
    ];
}

/// A stream that lasts for a minute, each second's part as fast as it goes.
fn minute(updates: u64) {
    let part = updates / 60;
    println!("## 60 times {part} updates of 200 bytes, one turn a second: the reader's rate");
    let mut alone = 0.0;
    for company in [Company::Nobody, Company::OneThatStopped] {
        let mut setup = Setup::new(&company);
        let begun = Instant::now();
        let mut rates = Vec::new();
        for second in 0..60 {
            let started = Instant::now();
            setup.flood(part);
            rates.push(part as f64 / started.elapsed().as_secs_f64());
            let next = begun + Duration::from_secs(second + 1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let memory = setup.server.peak_kib();
        let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let rate = median(&mut rates);
        if matches!(company, Company::Nobody) {
            alone = rate;
        }
        println!(
            "{company:<22?} {rate:>9.0} updates/s (slowest second {slowest:.0}), {:>4.0} % of what \
             it is alone, over {seconds:.0} s, peak memory {memory} KiB",
            rate / alone * 100.0,
        );
        if let Some(mut stopped) = setup.beside {
            let started = Instant::now();
            stopped.count(60 * part);
            let rate = (60 * part) as f64 / started.elapsed().as_secs_f64();
            println!("the stopped one then gets all of it, {rate:.0} updates/s from the database");
        }
    }
}

struct Measured {
    rate: f64,
    memory: u64,
    /// The rate at which the stopped one gets what it missed.
    rest: Option<f64>,
}

/// A server with one session, its reader, and who follows beside it.
struct Setup {
    // Before the folder, so that it ends before that is removed.
    server: Server,
    reader: Peer,
    session: String,
    beside: Option<Peer>,
    _folder: tempfile::TempDir,
}

impl Setup {
    fn new(company: &Company) -> Setup {
        let kept = tempfile::Builder::new()
            .prefix("bench-attach")
            .tempdir_in("target")
            .unwrap();
        let folder = kept.path().canonicalize().unwrap();
        let server = Server::start(&folder);
        let mut reader = Peer::connect(&server.socket);
        let workspace = folder.join("workspace").display().to_string();
        let answer = reader.call(
            "session/new",
            &format!(r#"{{"cwd":"{workspace}","mcpServers":[]}}"#),
        );
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let session = answer["result"]["sessionId"].as_str().unwrap().to_owned();
        let beside = (!matches!(company, Company::Nobody)).then(|| {
            let mut peer = Peer::connect(&server.socket);
            let params =
                format!(r#"{{"sessionId":"{session}","cwd":"{workspace}","mcpServers":[]}}"#);
            peer.call("session/resume", &params);
            peer
        });
        Setup {
            server,
            reader,
            session,
            beside,
            _folder: kept,
        }
    }

    /// One turn, until the reader has its updates.
    fn flood(&mut self, updates: u64) {
        let session = &self.session;
        self.reader.send(
            "session/prompt",
            &format!(
                r#"{{"sessionId":"{session}","prompt":[{{"type":"text","text":"[[flood:{updates}]]"}}]}}"#
            ),
        );
        self.reader.count(updates);
    }
}

fn round(company: &Company, updates: u64) -> Measured {
    let mut setup = Setup::new(company);
    let reading = match company {
        Company::OneThatReads => {
            (setup.beside.take()).map(|mut peer| std::thread::spawn(move || peer.count(updates)))
        }
        _ => None,
    };
    let started = Instant::now();
    setup.flood(updates);
    let rate = updates as f64 / started.elapsed().as_secs_f64();
    if let Some(reading) = reading {
        reading.join().unwrap();
    }
    let memory = setup.server.peak_kib();
    let rest = setup.beside.map(|mut peer| {
        let started = Instant::now();
        peer.count(updates);
        updates as f64 / started.elapsed().as_secs_f64()
    });
    Measured { rate, memory, rest }
}

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let workspace = folder.join("workspace");
        std::fs::create_dir_all(&workspace).unwrap();
        // A socket's path is short, and the build folder's may not be.
        let socket = std::env::temp_dir().join(format!("bench-attach-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&socket);
        let socket = socket.join("socket");
        let mut child = Command::new(ACPBOX)
            .args(["serve", "--agent", "example", "--listen"])
            .arg(format!("unix:{}", socket.display()))
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("HOME", folder)
            .current_dir(workspace)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("serving at") {
            assert!(errors.read_line(&mut said).unwrap() > 0, "{said}");
        }
        Server { child, socket }
    }

    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = self.socket.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

struct Peer {
    stream: UnixStream,
    output: BufReader<UnixStream>,
    next: u64,
}

impl Peer {
    fn connect(socket: &Path) -> Peer {
        let stream = UnixStream::connect(socket).unwrap();
        let output = stream.try_clone().unwrap();
        let mut peer = Peer {
            stream,
            output: BufReader::with_capacity(256 * 1024, output),
            next: 0,
        };
        peer.call(
            "initialize",
            r#"{"protocolVersion":1,"clientCapabilities":{}}"#,
        );
        peer
    }

    fn send(&mut self, method: &str, params: &str) {
        self.next += 1;
        let id = self.next;
        writeln!(
            self.stream,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#
        )
        .unwrap();
    }

    fn call(&mut self, method: &str, params: &str) -> String {
        self.send(method, params);
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0);
            if !line.contains("\"method\":") {
                return line;
            }
        }
    }

    /// Reads until so many updates have come.
    fn count(&mut self, updates: u64) {
        let mut seen = 0;
        let mut chunk = vec![0; 256 * 1024];
        while seen < updates {
            let count = self.output.read(&mut chunk).unwrap();
            assert!(count > 0, "the server closed the connection");
            seen += chunk[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
