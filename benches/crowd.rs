//! What many sessions at once cost in `acpbox serve`: the memory of idle ones, and
//! how those that stream share the machine.
//!
//! `cargo bench --bench crowd [-- idle|streams]`. Each session has an agent
//! (`acpbox example-agent`, in one VM) and a connection of its own.
//! `ACPBOX_BENCH_BINARY` names another build to compare with.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const IDLE: usize = 1_000;
const STREAMS: usize = 200;
/// What each of the streams sends, and the one alone.
const UPDATES: u64 = 20_000;
const ALONE: u64 = 200_000;
const ROUNDS: usize = 3;
/// How often it is looked at how far each stream is.
const SAMPLE: Duration = Duration::from_millis(20);

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |what: &str| {
        let named = |name: &str| asked.iter().any(|it| it == name);
        named(what) || !(named("idle") || named("streams"))
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let raised = rustix::process::Rlimit {
        current: limit,
        maximum: limit,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    if is_asked("idle") {
        idle();
    }
    if is_asked("streams") {
        streams();
    }
}

/// What is resident of the server alone, before and after.
fn idle() {
    println!("## {IDLE} idle sessions, each followed by its own connection");
    let site = Site::new();
    let server = Server::start(&site);
    // The first one boots the VM, opens files and fills caches.
    let _first = Peer::with_session(&server, &site);
    std::thread::sleep(Duration::from_secs(1));
    let before = Footprint::of(&server);
    let started = Instant::now();
    let mut peers: Vec<Peer> = (0..IDLE)
        .map(|_| Peer::with_session(&server, &site))
        .collect();
    println!("begun in {:.1} s", started.elapsed().as_secs_f64());
    let report = |what: &str| {
        std::thread::sleep(Duration::from_secs(3));
        let after = Footprint::of(&server);
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / IDLE as f64;
        println!(
            "{what:<34} {:>6.1} KiB each ({:.1} KiB of it private), {:.1} descriptors each; {} KiB in all, {} threads",
            each(before.resident, after.resident),
            each(before.private, after.private),
            each(before.descriptors, after.descriptors),
            after.resident,
            after.threads,
        );
    };
    report("as they begin");
    for peer in &mut peers {
        peer.prompt("[[say:hello]]");
        peer.answer();
    }
    report("after a turn each");
    let busy = server.cpu();
    std::thread::sleep(Duration::from_secs(10));
    let busy = server.cpu() - busy;
    println!(
        "processor time while all are idle: {:.2} %",
        busy.as_secs_f64() * 10.0
    );
    for peer in &mut peers {
        peer.prompt("[[flood:2000]]");
        peer.answer();
    }
    report("after a turn of 2000 updates each");
}

/// Many sessions that send as fast as they can, against one.
fn streams() {
    println!(
        "## {STREAMS} sessions of {UPDATES} updates of 200 bytes each at once, {ROUNDS} times"
    );
    let site = Site::new();
    let server = Server::start(&site);
    let mut alone = Peer::with_session(&server, &site);
    let mut peers: Vec<Peer> = (0..STREAMS)
        .map(|_| Peer::with_session(&server, &site))
        .collect();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        alone.prompt(&format!("[[flood:{ALONE}]]"));
        alone.answer();
        let one = ALONE as f64 / started.elapsed().as_secs_f64();
        let start = Arc::new(Barrier::new(STREAMS + 1));
        let counts: Arc<Vec<AtomicU64>> = Arc::new((0..STREAMS).map(|_| 0.into()).collect());
        let streams: Vec<_> = peers
            .into_iter()
            .enumerate()
            .map(|(at, mut peer)| {
                let (start, counts) = (Arc::clone(&start), Arc::clone(&counts));
                std::thread::spawn(move || {
                    start.wait();
                    let started = Instant::now();
                    peer.prompt(&format!("[[flood:{UPDATES}]]"));
                    peer.count(UPDATES, &counts[at]);
                    peer.answer();
                    (peer, started.elapsed())
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        let mut samples = Vec::new();
        while streams.iter().any(|stream| !stream.is_finished()) {
            let now = counts.iter().map(|count| count.load(Ordering::Relaxed));
            samples.push((Instant::now(), now.collect()));
            std::thread::sleep(SAMPLE);
        }
        let all = (STREAMS as u64 * UPDATES) as f64 / started.elapsed().as_secs_f64();
        let mut times = Vec::new();
        peers = Vec::new();
        for stream in streams {
            let (peer, whole) = stream.join().unwrap();
            peers.push(peer);
            times.push(whole.as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{all:>8.0} updates/s in all, {one:>8.0} alone ({:.2}); done after {:.2} s the first, \
             {:.2} half of them, {:.2} the last; {}",
            all / one,
            times[0],
            times[STREAMS / 2],
            times[STREAMS - 1],
            shares(&samples),
        );
    }
}

/// What each got while all of them streamed: from when the last had begun until the
/// first was done. Jain's index is 1 if all got the same, and 1/n if one got it all.
fn shares(samples: &[(Instant, Vec<u64>)]) -> String {
    let begun = samples
        .iter()
        .position(|(_, it)| it.iter().all(|count| *count > 0));
    let done = (samples.iter()).position(|(_, it)| it.iter().any(|count| *count >= UPDATES));
    let (Some(begun), Some(done)) = (begun, done) else {
        return "they never streamed all at once".to_owned();
    };
    if done < begun + 2 {
        return "the first was done when the last began".to_owned();
    }
    let (from, before) = &samples[begun];
    let (to, after) = &samples[done - 1];
    let both = before.iter().zip(after);
    let mut shares: Vec<f64> = both
        .map(|(before, after)| (after - before) as f64)
        .collect();
    shares.sort_by(f64::total_cmp);
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let mean = sum / shares.len() as f64;
    format!(
        "in the {:.2} s in which all streamed the least got {:.2}, the most {:.2} of the mean \
         (Jain's index {:.3})",
        (*to - *from).as_secs_f64(),
        shares[0] / mean,
        shares[shares.len() - 1] / mean,
        sum * sum / (squares * shares.len() as f64)
    )
}

struct Site {
    folder: PathBuf,
    _kept: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let kept = tempfile::Builder::new()
            .prefix("bench-crowd")
            .tempdir_in("target")
            .unwrap();
        let folder = kept.path().canonicalize().unwrap();
        std::fs::create_dir_all(folder.join("workspace")).unwrap();
        std::fs::create_dir_all(folder.join("config/acpbox")).unwrap();
        // An agent has two threads, and is a process of the one VM.
        let config =
            "[server]\nconnections = 4096\n[vms.default]\nprocesses = 16384\nmemory = \"16GiB\"\n";
        std::fs::write(folder.join("config/acpbox/config.toml"), config).unwrap();
        Site {
            folder,
            _kept: kept,
        }
    }

    fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }
}

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(site: &Site) -> Server {
        let program = std::env::var_os("ACPBOX_BENCH_BINARY");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_acpbox").into());
        // A socket's path is short, and the build folder's may not be.
        let socket = std::env::temp_dir().join(format!("bench-crowd-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&socket);
        let socket = socket.join("socket");
        let mut child = Command::new(program)
            .args(["serve", "--agent", "example", "--listen"])
            .arg(format!("unix:{}", socket.display()))
            .env("XDG_STATE_HOME", site.folder.join("state"))
            .env("XDG_CONFIG_HOME", site.folder.join("config"))
            .env("HOME", &site.folder)
            .current_dir(site.workspace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("serving at") {
            assert!(errors.read_line(&mut said).unwrap() > 0, "{said}");
        }
        // Else a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
        Server { child, socket }
    }

    /// Processor time that it took so far, its agents' left out.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|it| it.parse::<u64>().unwrap())
            .sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
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

/// Memory in KiB.
struct Footprint {
    resident: u64,
    private: u64,
    descriptors: u64,
    threads: u64,
}

impl Footprint {
    fn of(server: &Server) -> Footprint {
        let process = format!("/proc/{}", server.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Footprint {
            resident: value("VmRSS:"),
            private: value("RssAnon:"),
            threads: value("Threads:"),
            descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count() as u64,
        }
    }
}

struct Peer {
    stream: UnixStream,
    output: BufReader<UnixStream>,
    session: String,
    next: u64,
}

impl Peer {
    fn with_session(server: &Server, site: &Site) -> Peer {
        let stream = UnixStream::connect(&server.socket).unwrap();
        let output = stream.try_clone().unwrap();
        let mut peer = Peer {
            stream,
            output: BufReader::with_capacity(64 * 1024, output),
            session: String::new(),
            next: 0,
        };
        peer.send(
            "initialize",
            r#"{"protocolVersion":1,"clientCapabilities":{}}"#,
        );
        peer.answer();
        let cwd = site.workspace().display().to_string();
        peer.send(
            "session/new",
            &format!(r#"{{"cwd":"{cwd}","mcpServers":[]}}"#),
        );
        let answer: serde_json::Value = serde_json::from_str(&peer.answer()).unwrap();
        let session = answer["result"]["sessionId"].as_str();
        peer.session = session.unwrap_or_else(|| panic!("{answer}")).to_owned();
        peer
    }

    fn prompt(&mut self, text: &str) {
        let session = self.session.clone();
        self.send(
            "session/prompt",
            &format!(r#"{{"sessionId":"{session}","prompt":[{{"type":"text","text":"{text}"}}]}}"#),
        );
    }

    fn send(&mut self, method: &str, params: &str) {
        self.next += 1;
        let id = self.next;
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n"
        );
        self.stream.write_all(line.as_bytes()).unwrap();
    }

    /// Reads up to the next answer, which must be no error.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0);
            if !line.contains("\"method\":") {
                assert!(line.contains("\"result\":"), "{line}");
                return line;
            }
        }
    }

    /// Reads so many updates, and says how many came so far.
    fn count(&mut self, updates: u64, so_far: &AtomicU64) {
        let mut line = Vec::new();
        for _ in 0..updates {
            line.clear();
            assert!(self.output.read_until(b'\n', &mut line).unwrap() > 0);
            so_far.fetch_add(1, Ordering::Relaxed);
        }
    }
}
