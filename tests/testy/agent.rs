//! Carries out a script's steps.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Stdin, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::step::Step;

/// Bytes of output that are gathered before they are written: one write for
/// each short line would make a flood slow.
const BATCH: usize = 64 << 10;

pub(crate) struct Agent {
    input: BufReader<Stdin>,
    /// `None` once a step has closed it.
    output: Option<File>,
    pending: Vec<u8>,
    record: Option<File>,
    /// Answers by method: a whole `"result":…` or `"error":…`.
    answers: BTreeMap<String, String>,
    id: String,
    session: String,
    cwd: String,
    /// Keeps the handler of SIGTERM in place.
    sigterm: Option<(tokio::runtime::Runtime, tokio::signal::unix::Signal)>,
}

/// What a step looks at in a received line; everything else is ignored.
#[derive(Deserialize)]
struct Received {
    id: Option<Box<RawValue>>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Params {
    session_id: Option<String>,
    cwd: Option<String>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        let capabilities = json!({"loadSession": false});
        let info = json!({"name": "testy", "version": "0"});
        let initialized = json!({"protocolVersion": 1, "agentCapabilities": capabilities,
            "agentInfo": info, "authMethods": []});
        let mut agent = Self {
            input: BufReader::new(io::stdin()),
            output: io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .ok()
                .map(File::from),
            pending: Vec::new(),
            record: None,
            answers: BTreeMap::new(),
            id: "null".to_owned(),
            session: "testy-session".to_owned(),
            cwd: "/".to_owned(),
            sigterm: None,
        };
        agent.answer_with("initialize", "result", &initialized);
        let session = json!({"sessionId": agent.session});
        agent.answer_with("session/new", "result", &session);
        agent.answer_with(
            "session/prompt",
            "result",
            &json!({"stopReason": "end_turn"}),
        );
        agent
    }

    /// Carries out all steps, then serves until the input ends. Returns the exit
    /// code; errors say which step could not be done.
    pub(crate) fn run(mut self, steps: Vec<Step>) -> Result<u8, String> {
        for step in steps {
            let done = self.step(&step).and_then(|code| {
                self.flush()?;
                Ok(code)
            });
            match done {
                Ok(Some(code)) => return Ok(code),
                Ok(None) => {}
                Err(error) => return Err(format!("{error} in {step:?}")),
            }
        }
        while let Some(line) = self.read().map_err(|error| error.to_string())? {
            if let Some(received) = understood(&line) {
                self.serve(&received).map_err(|error| error.to_string())?;
            }
        }
        Ok(0)
    }

    /// Does one step; an exit code ends the script.
    fn step(&mut self, step: &Step) -> io::Result<Option<u8>> {
        if let Some(path) = &step.record {
            self.record = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        if let Some(path) = &step.environment {
            let lines = std::env::vars().map(|(name, value)| format!("{name}={value}\n"));
            std::fs::write(path, lines.collect::<String>())?;
        }
        if let Some(method) = &step.on {
            match (&step.result, &step.error) {
                (Some(result), _) => self.answer_with(method, "result", result),
                (None, Some(error)) => self.answer_with(method, "error", error),
                (None, None) => drop(self.answers.remove(method)),
            }
        }
        if let Some(method) = &step.expect {
            self.expect(|received| received.method.as_ref() == Some(method))?;
        }
        if let Some(id) = &step.expect_answer {
            let id = id.to_string();
            self.expect(|received| {
                let its = received.id.as_ref().map(|id| id.get());
                received.method.is_none() && its == Some(&id)
            })?;
        }
        for round in 0..step.repeat.unwrap_or(1) {
            self.write(step, round)?;
        }
        if let Some(path) = &step.fork_daemon {
            self.flush()?;
            leave_behind(path)?;
        }
        if let Some(path) = step.exit_when.clone() {
            thread::spawn(move || {
                while !std::path::Path::new(&path).exists() {
                    thread::sleep(Duration::from_millis(5));
                }
                std::process::exit(0);
            });
        }
        if step.ignore_sigterm {
            self.ignore_sigterm()?;
        }
        if step.close_stdout {
            self.close_stdout()?;
        }
        if step.stop {
            self.flush()?;
            raise(rustix::process::Signal::STOP)?;
        }
        if let Some(number) = step.signal {
            self.flush()?;
            let signal = rustix::process::Signal::from_named_raw(number)
                .ok_or_else(|| io::Error::other(format!("there is no signal {number}")))?;
            raise(signal)?;
        }
        if step.hang {
            self.flush()?;
            loop {
                thread::park();
            }
        }
        Ok(step.exit)
    }

    /// The part of a step that is repeated.
    fn write(&mut self, step: &Step, round: u64) -> io::Result<()> {
        if let Some(line) = &step.send {
            let line = match line {
                Value::String(line) => line.clone(),
                message => message.to_string(),
            };
            let line = self.fill_in(&line, round);
            self.pending.extend_from_slice(line.as_bytes());
            self.pending.push(b'\n');
        }
        if let Some(raw) = &step.raw {
            let raw = self.fill_in(raw, round);
            self.pending.extend_from_slice(raw.as_bytes());
        }
        if let Some(bytes) = &step.bytes {
            self.pending.extend_from_slice(bytes);
        }
        if let Some(text) = &step.stderr {
            let text = self.fill_in(text, round);
            writeln!(io::stderr(), "{text}")?;
        }
        if let Some(time) = step.sleep_ms {
            self.flush()?;
            thread::sleep(Duration::from_millis(time));
        }
        if self.pending.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn fill_in(&self, text: &str, round: u64) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        text.replace("$SESSION", &self.session)
            .replace("$CWD", &self.cwd)
            .replace("$ID", &self.id)
            .replace("$N", &round.to_string())
    }

    /// Reads until a message is the one; serves the others.
    fn expect(&mut self, is_wanted: impl Fn(&Received) -> bool) -> io::Result<()> {
        self.flush()?;
        loop {
            let Some(line) = self.read()? else {
                return Err(io::Error::other("the input ended first"));
            };
            let Some(received) = understood(&line) else {
                continue;
            };
            if is_wanted(&received) {
                if received.method.is_some() {
                    self.note(&received);
                }
                return Ok(());
            }
            self.serve(&received)?;
        }
    }

    /// One line without its newline; `None` at the end of input.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.flush()?;
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if let Some(record) = &mut self.record {
            record.write_all(&line)?;
        }
        line.pop_if(|last| *last == b'\n');
        Ok(Some(line))
    }

    /// Answers a request as by default; the rest needs no answer.
    fn serve(&mut self, received: &Received) -> io::Result<()> {
        let (Some(id), Some(method)) = (&received.id, &received.method) else {
            return Ok(());
        };
        if method == "session/new" {
            let session = std::mem::take(&mut self.session);
            self.note(received);
            self.session = session;
        }
        let not_found = r#""error":{"code":-32601,"message":"Method not found"}"#;
        let answer = self.answers.get(method).map_or(not_found, String::as_str);
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{answer}}}\n", id.get());
        self.pending.extend_from_slice(line.as_bytes());
        self.flush()
    }

    fn note(&mut self, received: &Received) {
        if let Some(id) = &received.id {
            id.get().clone_into(&mut self.id);
        }
        let params = received.params.as_ref();
        // Odd parameters are for others to look at.
        if let Some(params) = params.and_then(|raw| serde_json::from_str::<Params>(raw.get()).ok())
        {
            if let Some(session) = &params.session_id {
                self.session.clone_from(session);
            }
            if let Some(cwd) = &params.cwd {
                self.cwd.clone_from(cwd);
            }
        }
    }

    fn answer_with(&mut self, method: &str, kind: &str, value: &Value) {
        if let (true, Some(session)) = (method == "session/new", value["sessionId"].as_str()) {
            session.clone_into(&mut self.session);
        }
        self.answers
            .insert(method.to_owned(), format!("\"{kind}\":{value}"));
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(output) = &mut self.output {
            output.write_all(&self.pending)?;
        }
        self.pending.clear();
        Ok(())
    }

    fn close_stdout(&mut self) -> io::Result<()> {
        self.flush()?;
        self.output = None;
        // Ours was a copy; the process's own is replaced by nothing.
        let nothing = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(OwnedFd::from(nothing))?;
        Ok(())
    }

    fn ignore_sigterm(&mut self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let handler = {
            let _inside = runtime.enter();
            signal(SignalKind::terminate())?
        };
        self.sigterm = Some((runtime, handler));
        Ok(())
    }
}

/// The process that `fork_daemon` leaves behind: a heartbeat in a file.
pub(crate) fn daemon(path: Option<&str>) -> ExitCode {
    let Some(path) = path else {
        return ExitCode::FAILURE;
    };
    // A group leader cannot leave its session, but a fresh child is none.
    if rustix::process::setsid().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let Ok(()) = file.and_then(|mut file| file.write_all(b".")) else {
            return ExitCode::FAILURE;
        };
        thread::sleep(Duration::from_millis(50));
    }
}

fn leave_behind(path: &str) -> io::Result<()> {
    Command::new(std::env::current_exe()?)
        .args(["--daemon", path])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(())
}

fn raise(signal: rustix::process::Signal) -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), signal)?;
    // The signal may be taken a moment later.
    thread::sleep(Duration::from_millis(50));
    Ok(())
}

fn understood(line: &[u8]) -> Option<Received> {
    serde_json::from_slice(line).ok()
}
