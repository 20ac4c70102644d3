//! A client that drives `acpbox stdio` as an editor does, and fails its test
//! over messages that nobody looked at.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::scripted::script;
use super::setup::{Framing, Setup};
use super::steps::prompt;

/// How long acpbox may be silent before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that wait to be looked at; more make acpbox wait.
const MESSAGE_LIMIT: usize = 4096;

/// A connected client. Dropping it ends acpbox and looks at what is left.
pub struct Client {
    pub child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    framing: Framing,
    last_id: u64,
    /// What came while something else was waited for.
    unread: VecDeque<String>,
    /// Raw results for the agent's requests, by method; others wait in `unread`.
    pub answers: BTreeMap<&'static str, String>,
    workspace: PathBuf,
}

/// A message's envelope; what is inside stays text.
#[derive(Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    pub method: Option<String>,
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

pub fn envelope(line: &str) -> Envelope<'_> {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

pub fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// The id of a message as it is written; empty where there is none.
pub fn raw_id(line: &str) -> String {
    // `Option` reads null as absent, and an answer to nobody has the id null.
    match envelope(line).id {
        Some(id) => id.get().to_owned(),
        None if line.contains("\"id\":null") => "null".into(),
        None => String::new(),
    }
}

impl Client {
    pub fn start(setup: &Setup, framing: Framing) -> Client {
        Client::with(&mut setup.command(), setup.workspace(), framing)
    }

    /// A client of any command that speaks as `acpbox stdio` does.
    pub fn of(command: &mut Command, workspace: PathBuf) -> Client {
        Client::with(command, workspace, Framing::Lines)
    }

    fn with(command: &mut Command, workspace: PathBuf, framing: Framing) -> Client {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, messages) = sync_channel(MESSAGE_LIMIT);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            while let Some(message) = read(&mut output, framing) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let mut errors = child.stderr.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                let mut kept = kept.lock().unwrap();
                if kept.len() < 1 << 20 {
                    kept.extend_from_slice(&buffer[..count]);
                }
            }
        });
        Client {
            input: child.stdin.take(),
            child,
            messages,
            stderr,
            framing,
            last_id: 0,
            unread: VecDeque::new(),
            answers: BTreeMap::new(),
            workspace,
        }
    }

    /// What acpbox logged.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Writes bytes without any framing. A peer that is gone shows when its answer is missed.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(bytes);
        }
    }

    /// Writes one message as it is.
    pub fn send(&mut self, message: &str) {
        match self.framing {
            Framing::Lines => self.send_bytes(format!("{message}\n").as_bytes()),
            Framing::Headers => {
                let framed = format!("Content-Length: {}\r\n\r\n{message}", message.len());
                self.send_bytes(framed.as_bytes());
            }
        }
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// Sends a request without waiting, and returns its id.
    pub fn request(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(&message.to_string());
        id
    }

    /// Sends a request and waits for its result or its error object.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.request(method, params);
        self.answer(id)
    }

    /// Waits for the answer to a request.
    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        outcome(&self.answer_line(&id.to_string()))
    }

    /// Waits for the answer with this raw id, as it is written.
    pub fn answer_line(&mut self, id: &str) -> String {
        self.wait(|line| envelope(line).method.is_none() && raw_id(line) == id)
            .unwrap_or_else(|why| panic!("no answer to {id}: {why}"))
    }

    /// Waits for a request or notification with this method.
    pub fn expect(&mut self, method: &str) -> String {
        self.wait(|line| envelope(line).method.as_deref() == Some(method))
            .unwrap_or_else(|why| panic!("no {method}: {why}"))
    }

    /// Answers one of the agent's requests.
    pub fn respond(&mut self, request: &str, result: &str) {
        let id = raw_id(request);
        self.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
        ));
    }

    /// The next message, whatever it is.
    pub fn receive(&mut self) -> String {
        self.wait(|_| true)
            .unwrap_or_else(|why| panic!("no message: {why}"))
    }

    /// Takes the messages with this method that came already.
    pub fn take(&mut self, method: &str) -> Vec<String> {
        let is_such = |line: &String| envelope(line).method.as_deref() == Some(method);
        let (taken, left): (VecDeque<_>, VecDeque<_>) = self.unread.drain(..).partition(is_such);
        self.unread = left;
        taken.into()
    }

    /// Takes the updates that came already.
    pub fn updates(&mut self) -> Vec<Value> {
        let lines = self.take("session/update");
        lines.iter().map(|line| value(line)).collect()
    }

    /// Takes the updates of one session that came already.
    pub fn updates_of(&mut self, session: &str) -> Vec<Value> {
        let is_theirs = |line: &String| {
            envelope(line).method.as_deref() == Some("session/update")
                && line.contains(&format!("\"sessionId\":\"{session}\""))
        };
        let (taken, left): (VecDeque<_>, VecDeque<_>) = self.unread.drain(..).partition(is_theirs);
        self.unread = left;
        taken.iter().map(|line| value(line)).collect()
    }

    /// The texts of the message chunks that came already.
    pub fn texts(&mut self) -> Vec<String> {
        let text = |update: &Value| {
            let text = &update["params"]["update"]["content"]["text"];
            text.as_str().unwrap_or_default().to_owned()
        };
        self.updates().iter().map(text).collect()
    }

    /// Whether nothing comes for a while.
    pub fn is_quiet(&mut self, time: Duration) -> bool {
        match self.messages.recv_timeout(time) {
            Ok(message) => {
                self.unread.push_back(message);
                false
            }
            Err(_) => self.unread.is_empty(),
        }
    }

    fn wait(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        if let Some(at) = self.unread.iter().position(|line| is_wanted(line)) {
            return Ok(self.unread.remove(at).unwrap());
        }
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(line) if is_wanted(&line) => return Ok(line),
                Ok(line) => self.keep(line),
                Err(error) => {
                    let ended = match error {
                        RecvTimeoutError::Timeout => format!("silent for {PATIENCE:?}"),
                        RecvTimeoutError::Disconnected => format!("{:?}", self.child.wait()),
                    };
                    return Err(format!("{ended}\nunread: {:#?}", self.unread));
                }
            }
        }
    }

    /// Answers what has a scripted answer, and keeps the rest for later.
    fn keep(&mut self, line: String) {
        let parsed = envelope(&line);
        let answer = parsed
            .method
            .filter(|_| parsed.id.is_some())
            .and_then(|method| self.answers.get(method.as_str()).cloned());
        match answer {
            Some(result) => self.respond(&line, &result),
            None => self.unread.push_back(line),
        }
    }

    pub fn initialize(&mut self) -> Value {
        let offer = json!({
            "fs": {"readTextFile": true, "writeTextFile": true},
            "terminal": true,
            "elicitation": {"form": {}, "url": {}},
        });
        self.initialize_offering(offer)
    }

    pub fn initialize_offering(&mut self, capabilities: Value) -> Value {
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities,
            "clientInfo": {"name": "it", "version": "0"}});
        self.call("initialize", params).unwrap()
    }

    /// The params of `session/new` for the agent `testy` in the workspace.
    pub fn new_params(&self) -> Value {
        json!({"cwd": self.workspace, "mcpServers": []})
    }

    pub fn new_session(&mut self) -> String {
        let params = self.new_params();
        let result = self.call("session/new", params);
        let result = result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.stderr()));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    /// A session whose agent does these steps.
    pub fn new_session_of(&mut self, steps: &[Value]) -> String {
        let mut params = self.new_params();
        let env = json!({"TESTY_SCRIPT": script(steps)});
        params["_meta"] = json!({"acpbox": {"agent": "inline", "env": env}});
        let result = self.call("session/new", params);
        let result = result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.stderr()));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    pub fn prompt(&mut self, session: &str, text: &str) -> Result<Value, Value> {
        self.call("session/prompt", prompt(session, text))
    }

    /// The stored events of a session, all of them.
    pub fn events(&mut self, session: &str) -> Vec<Value> {
        let params = json!({"sessionId": session, "limit": 10_000});
        let mut page = self.call("_acpbox/session/events", params).unwrap();
        serde_json::from_value(page["events"].take()).unwrap()
    }

    /// The raw stored messages of a session with their kinds.
    pub fn raw_events(&mut self, session: &str) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            events: Vec<Event<'a>>,
        }
        #[derive(Deserialize)]
        struct Event<'a> {
            kind: String,
            #[serde(borrow)]
            message: &'a RawValue,
        }
        let params = json!({"sessionId": session, "limit": 10_000});
        let id = self.request("_acpbox/session/events", params);
        let line = self.answer_line(&id.to_string());
        let parsed = envelope(&line);
        let page: Page = serde_json::from_str(parsed.result.unwrap().get()).unwrap();
        let events = page.events.into_iter();
        events
            .map(|event| (event.kind, event.message.get().to_owned()))
            .collect()
    }

    pub fn logs(&mut self, session: &str) -> Vec<String> {
        let result = self.call("_acpbox/agent/logs", json!({"sessionId": session}));
        let lines = result.unwrap()["lines"].as_array().unwrap().clone();
        let shown = |line: &Value| {
            let text = line["text"].as_str().unwrap();
            format!("{}: {text}", line["stream"].as_str().unwrap())
        };
        lines.iter().map(shown).collect()
    }

    /// Shows that acpbox still serves: a session of its own answers a prompt.
    pub fn check_next_session(&mut self) {
        let session = self.new_session_of(&[]);
        let result = self.prompt(&session, "are you there?").unwrap();
        assert_eq!(result["stopReason"], "end_turn");
        self.call("session/close", json!({"sessionId": session}))
            .unwrap();
    }

    /// Closes its side; acpbox may go on answering.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends acpbox a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Resident memory of acpbox at its highest, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    /// Waits for acpbox to end, keeping what it still says.
    pub fn wait_for_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            while let Ok(line) = self.messages.try_recv() {
                self.unread.push_back(line);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                while let Ok(line) = self.messages.recv_timeout(Duration::from_secs(1)) {
                    self.unread.push_back(line);
                }
                return Some(status);
            }
            if start.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes whatever is left.
    pub fn take_rest(&mut self) {
        self.unread.clear();
    }

    /// Takes what came already and nobody looked at.
    pub fn rest(&mut self) -> Vec<String> {
        while let Ok(line) = self.messages.try_recv() {
            self.unread.push_back(line);
        }
        std::mem::take(&mut self.unread).into()
    }

    /// Kills acpbox at once, and returns what it had said and nobody looked at.
    pub fn kill(mut self) -> Vec<String> {
        // Seen by the check of what is left behind.
        std::fs::write(self.workspace.with_file_name("killed"), "").unwrap();
        let _ = self.child.kill();
        let _ = self.child.wait();
        while let Ok(line) = self.messages.recv_timeout(PATIENCE) {
            self.unread.push_back(line);
        }
        std::mem::take(&mut self.unread).into()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.input = None;
        if thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("acpbox said on stderr:\n{}", self.stderr());
            return;
        }
        let status = self.wait_for_end(PATIENCE);
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        assert!(status.is_some(), "acpbox did not end\n{}", self.stderr());
        assert!(
            self.unread.is_empty(),
            "nobody looked at {:#?}",
            self.unread
        );
    }
}

/// The result or the error object of a response.
pub fn outcome(line: &str) -> Result<Value, Value> {
    let parsed = envelope(line);
    match parsed.error {
        Some(error) => Err(value(error.get())),
        None => Ok(value(parsed.result.map_or("null", RawValue::get))),
    }
}

fn read(output: &mut impl BufRead, framing: Framing) -> Option<String> {
    let mut line = Vec::new();
    if framing == Framing::Lines {
        output
            .read_until(b'\n', &mut line)
            .ok()
            .filter(|n| *n > 0)?;
        line.pop_if(|last| *last == b'\n');
    } else {
        let mut length = None;
        loop {
            let mut header = String::new();
            output.read_line(&mut header).ok().filter(|n| *n > 0)?;
            match header.trim_end().split_once(": ") {
                Some(("Content-Length", number)) => length = number.parse().ok(),
                Some(other) => panic!("a header {other:?}"),
                None if header == "\r\n" => break,
                None => panic!("not a header: {header:?}"),
            }
        }
        line.resize(length.expect("a length"), 0);
        output.read_exact(&mut line).ok()?;
    }
    Some(String::from_utf8(line).expect("acpbox writes UTF-8"))
}
