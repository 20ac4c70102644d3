//! What acpbox adds to an agent, side by side with the same agent called
//! directly and through the official ACP conductor, in one run.
//!
//! `cargo bench --bench relay [-- UPDATES]`. The conductor is taken from PATH or
//! `target/tools/bin`; `cargo install --locked --root target/tools
//! agent-client-protocol-conductor@5.0.0` puts it there. Without it, its column
//! stays empty. The agent is `acpbox example-agent`: it answers at once and can
//! flood.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use acpbox::vm::{self, Limits, Network, ProcessSpec, Root, VmSpec};

const ACPBOX: &str = env!("CARGO_BIN_EXE_acpbox");

fn main() {
    if std::env::args().nth(1).as_deref() == Some(BARE_RELAY) {
        return bare_relay();
    }
    let updates: u64 = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let folder = tempfile::Builder::new()
        .prefix("bench-relay")
        .tempdir_in("target")
        .unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let mut systems = vec![System::Direct, System::Bare, System::Acpbox];
    match conductor() {
        Some(path) => systems.push(System::Conductor(path)),
        None => println!("no conductor was found; see the head of benches/relay.rs"),
    }

    println!("## start to the first `initialize` answer, 20 starts");
    for system in &systems {
        let times = (0..20).map(|_| initialize_time(system, &folder)).collect();
        report(system, "initialize", times);
    }

    println!("## from start to the agent's first byte, 20 starts");
    boot(&folder);

    // What passing bytes through one more process costs on this machine, whatever
    // that process does: acpbox cannot be below it.
    println!("## round trip of `session/set_mode`, interleaved, over 7 starts");
    round_trips(&systems, &folder);

    println!("## {updates} updates of 200 bytes in one turn");
    for system in &systems {
        // The conductor keeps all it relays in memory: a tenth is enough to see its rate.
        let count = if matches!(system, System::Conductor(_)) {
            updates / 10
        } else {
            updates
        };
        let (rate, memory) = flood(system, &folder, count);
        println!(
            "{:<10} {rate:>9.0} updates/s, resident {memory} KiB after {count}",
            system.name()
        );
    }
}

enum System {
    Direct,
    /// A relay that passes bytes on and does nothing else.
    Bare,
    Acpbox,
    Conductor(PathBuf),
}

fn conductor() -> Option<PathBuf> {
    let name = "agent-client-protocol-conductor";
    let own = Path::new("target/tools/bin").join(name);
    if own.exists() {
        return Some(own.canonicalize().unwrap());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
}

impl System {
    fn name(&self) -> &'static str {
        match self {
            System::Direct => "direct",
            System::Bare => "bare relay",
            System::Acpbox => "acpbox",
            System::Conductor(_) => "conductor",
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = match self {
            System::Direct => {
                let mut command = Command::new(ACPBOX);
                command.arg("example-agent");
                command
            }
            System::Bare => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args([BARE_RELAY, ACPBOX, "example-agent"]);
                command
            }
            System::Acpbox => {
                let mut command = Command::new(ACPBOX);
                command.args(["stdio", "--agent", "example"]);
                command
            }
            System::Conductor(path) => {
                let mut command = Command::new(path);
                command.args(["agent", &format!("{ACPBOX} example-agent")]);
                command
            }
        };
        let workspace = folder.join("workspace");
        std::fs::create_dir_all(&workspace).unwrap();
        command
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .env("HOME", folder)
            .current_dir(workspace);
        command
    }
}

const BARE_RELAY: &str = "bare-relay";

/// Runs the program named by the arguments and passes bytes both ways, on one
/// thread, as the runtimes of acpbox and the conductor do.
fn bare_relay() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        use tokio::net::unix::pipe;
        let mut arguments = std::env::args().skip(2);
        let mut agent = Command::new(arguments.next().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let own = |fd: std::os::fd::BorrowedFd| fd.try_clone_to_owned().unwrap();
        let stdin = own(std::os::fd::AsFd::as_fd(&std::io::stdin()));
        let stdout = own(std::os::fd::AsFd::as_fd(&std::io::stdout()));
        let mut from_client = pipe::Receiver::from_owned_fd(stdin).unwrap();
        let mut to_client = pipe::Sender::from_owned_fd(stdout).unwrap();
        let output = OwnedFd::from(agent.stdout.take().unwrap());
        let input = OwnedFd::from(agent.stdin.take().unwrap());
        let mut from_agent = pipe::Receiver::from_owned_fd(output).unwrap();
        let mut to_agent = pipe::Sender::from_owned_fd(input).unwrap();
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_agent) => {}
            _ = tokio::io::copy(&mut from_agent, &mut to_client) => {}
        }
        agent.kill().unwrap();
        agent.wait().unwrap();
    });
}

/// A client that does nothing but what is measured.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next: u64,
    line: String,
}

impl Peer {
    fn start(system: &System, folder: &Path) -> Peer {
        let mut child = system
            .command(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Peer {
            input: child.stdin.take().unwrap(),
            output: BufReader::with_capacity(256 * 1024, child.stdout.take().unwrap()),
            child,
            next: 0,
            line: String::new(),
        }
    }

    /// Sends a request and reads up to its answer, which comes back raw.
    fn call(&mut self, method: &str, params: &str) -> String {
        self.next += 1;
        let id = self.next;
        // In one piece, as clients write: `writeln!` on a pipe writes each part of
        // its format by itself, and wakes the reader for each.
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n"
        );
        self.input.write_all(line.as_bytes()).unwrap();
        loop {
            self.line.clear();
            assert!(
                self.output.read_line(&mut self.line).unwrap() > 0,
                "the peer closed its output"
            );
            if !self.line.contains("\"method\":\"session/update\"") {
                return self.line.clone();
            }
        }
    }

    fn initialize(&mut self) {
        self.call(
            "initialize",
            r#"{"protocolVersion":1,"clientCapabilities":{}}"#,
        );
    }

    fn session(&mut self, folder: &Path) -> String {
        let cwd = folder.join("workspace");
        let answer = self.call(
            "session/new",
            &format!(r#"{{"cwd":"{}","mcpServers":[]}}"#, cwd.display()),
        );
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        value["result"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn initialize_time(system: &System, folder: &Path) -> Duration {
    let started = Instant::now();
    let mut peer = Peer::start(system, folder);
    peer.initialize();
    started.elapsed()
}

/// The same agent bare and in a VM that boots for it: up to the first byte that
/// it writes, interleaved.
fn boot(folder: &Path) {
    const STARTS: usize = 20;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut bare = Vec::new();
    let mut in_vm = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut child = System::Direct
            .command(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        first_byte(input.into(), output.into());
        bare.push(started.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
        in_vm.push(runtime.block_on(boot_once(folder)));
    }
    let (bare, in_vm) = (median(bare), median(in_vm));
    println!(
        "bare {:.1} ms, in a VM that boots {:.1} ms: {:.1} ms more",
        ms(bare),
        ms(in_vm),
        ms(in_vm) - ms(bare)
    );
}

async fn boot_once(folder: &Path) -> Duration {
    let workspace = folder.join("workspace");
    let driver = vm::driver("namespace", ACPBOX.into()).unwrap();
    let spec = VmSpec {
        name: "bench".into(),
        state_dir: folder.join("vm"),
        workspaces: vec![workspace.clone()],
        mounts: Vec::new(),
        root: Root::Host,
        network: Network::Full,
        limits: Limits::default(),
        protected: [".git/hooks", ".git/config", ".vscode", ".claude"]
            .map(PathBuf::from)
            .to_vec(),
    };
    let started = Instant::now();
    let guest = driver.boot(spec).await.unwrap();
    let process = ProcessSpec {
        command: vm::executable_in_guest("namespace", Path::new(ACPBOX))
            .display()
            .to_string(),
        args: vec!["example-agent".into()],
        env: [("HOME", "/home/agent"), ("PATH", "/usr/bin")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        cwd: workspace,
        ..ProcessSpec::default()
    };
    let process = guest.spawn(process).await.unwrap();
    first_byte(process.stdin.unwrap(), process.stdout);
    let elapsed = started.elapsed();
    guest.shutdown().await;
    elapsed
}

/// Asks for `initialize` and waits for the answer's first byte.
fn first_byte(input: OwnedFd, output: OwnedFd) {
    let mut input = std::fs::File::from(input);
    writeln!(
        input,
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":1}}}}"#
    )
    .unwrap();
    let mut byte = [0];
    std::fs::File::from(output).read_exact(&mut byte).unwrap();
}

/// Over several starts, since the kernel puts the processes on other cores each
/// time, which matters as much as what they do.
fn round_trips(systems: &[System], folder: &Path) {
    const STARTS: usize = 7;
    const WARM_UP: usize = 10;
    const ROUNDS: usize = 30;
    const EACH: usize = 100;
    let mut times = vec![Vec::new(); systems.len()];
    for _ in 0..STARTS {
        let mut peers: Vec<(Peer, String)> = systems
            .iter()
            .map(|system| {
                let mut peer = Peer::start(system, folder);
                peer.initialize();
                let session = peer.session(folder);
                (peer, session)
            })
            .collect();
        for round in 0..WARM_UP + ROUNDS {
            for ((peer, session), times) in peers.iter_mut().zip(&mut times) {
                let params = format!(r#"{{"sessionId":"{session}","modeId":"auto"}}"#);
                for _ in 0..EACH {
                    let started = Instant::now();
                    let answer = peer.call("session/set_mode", &params);
                    if round >= WARM_UP {
                        times.push(started.elapsed());
                    }
                    assert!(answer.contains("result"), "{answer}");
                }
            }
        }
    }
    let direct = median(times[0].clone());
    let mut added = Vec::new();
    for (system, times) in systems.iter().zip(times) {
        let p50 = median(times.clone());
        added.push(p50.saturating_sub(direct));
        println!(
            "{:<10} p50 {:>7.1} µs, p99 {:>7.1} µs, added p50 {:>7.1} µs",
            system.name(),
            us(p50),
            us(percentile(times, 99)),
            us(p50.saturating_sub(direct))
        );
    }
    if let [_, bare, acpbox, ref others @ ..] = added[..] {
        println!(
            "acpbox adds {:.1} µs more than a relay that does nothing",
            us(acpbox) - us(bare)
        );
        if let [conductor] = others {
            println!(
                "acpbox adds {:.2} of what the conductor adds",
                us(acpbox) / us(*conductor)
            );
        }
    }
}

fn flood(system: &System, folder: &Path, updates: u64) -> (f64, u64) {
    let mut peer = Peer::start(system, folder);
    peer.initialize();
    let session = peer.session(folder);
    let prompt = format!(
        r#"{{"sessionId":"{session}","prompt":[{{"type":"text","text":"[[flood:{updates}]]"}}]}}"#
    );
    let started = Instant::now();
    writeln!(
        peer.input,
        r#"{{"jsonrpc":"2.0","id":"flood","method":"session/prompt","params":{prompt}}}"#
    )
    .unwrap();
    peer.input.flush().unwrap();
    let mut lines = 0u64;
    let mut tail = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let count = peer.output.read(&mut chunk).unwrap();
        assert!(count > 0, "the peer closed its output");
        lines += chunk[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        tail.extend_from_slice(&chunk[..count]);
        if tail.windows(12).any(|window| window == b"\"stopReason\"") {
            break;
        }
        let keep = tail.len().saturating_sub(64);
        tail.drain(..keep);
    }
    let elapsed = started.elapsed();
    assert!(lines >= updates, "{lines} lines for {updates} updates");
    (updates as f64 / elapsed.as_secs_f64(), peer.resident_kib())
}

fn report(system: &System, what: &str, times: Vec<Duration>) {
    let worst = *times.iter().max().unwrap();
    println!(
        "{:<10} {what} p50 {:.1} ms, worst {:.1} ms",
        system.name(),
        ms(median(times)),
        ms(worst)
    );
}

fn median(times: Vec<Duration>) -> Duration {
    percentile(times, 50)
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
