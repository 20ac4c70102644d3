//! A small ACP client for agents that run without acpbox in between.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// How long an agent may be silent before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of an agent that wait to be looked at.
const LINE_LIMIT: usize = 1024;
/// Bytes of stderr that are kept.
const STDERR_LIMIT: usize = 64 << 10;

/// A running agent, and what it said. Dropping it kills its process group.
pub struct Bare {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    last_id: u64,
    /// Answers that nobody has waited for yet.
    early: BTreeMap<u64, Value>,
    /// What the agent sent, but for the answers to our requests.
    pub received: Vec<Value>,
    /// The kind of the permission option to choose.
    pub choice: &'static str,
    /// Answers to the agent's other requests; the rest get "method not found".
    pub answers: BTreeMap<&'static str, Value>,
}

impl Bare {
    /// Starts a program with this environment and no other.
    pub fn start(command: &Path, args: &[String], env: &BTreeMap<String, String>) -> Self {
        let mut child = Command::new(command)
            .args(args)
            .env_clear()
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.display()));
        let (sender, lines) = sync_channel(LINE_LIMIT);
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let mut errors = child.stderr.take().expect("stderr is piped");
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                let mut kept = kept.lock().expect("nothing panics while holding it");
                let room = STDERR_LIMIT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            lines,
            stderr,
            last_id: 0,
            early: BTreeMap::new(),
            received: Vec::new(),
            choice: "allow_once",
            answers: BTreeMap::new(),
        }
    }

    /// Sends a request and waits for its answer; meanwhile serves the agent's.
    ///
    /// # Panics
    /// When the answer is an error, or does not come.
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        match self.answer(id) {
            Ok(result) => result,
            Err(error) => panic!("{method} failed: {error}\n{}", self.stderr()),
        }
    }

    /// Like [`Self::request`], with the result's bytes as they came. Nothing else
    /// may come meanwhile.
    pub fn request_raw(&mut self, method: &str, params: Value) -> Box<RawValue> {
        #[derive(serde::Deserialize)]
        struct Answer {
            id: u64,
            result: Box<RawValue>,
        }
        let id = self.send_request(method, params);
        let line = self.line();
        let answer: Answer = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in the answer to {method}: {line}"));
        assert_eq!(answer.id, id);
        answer.result
    }

    /// Sends a request without waiting, and returns its id for [`Self::answer`].
    pub fn send_request(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Waits for the answer to a request: its result, or its error.
    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            if let Some(mut message) = self.early.remove(&id) {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].take()),
                };
            }
            let message = self.receive();
            if message["method"].is_string() {
                self.serve(message);
            } else if let Some(id) = message["id"].as_u64() {
                self.early.insert(id, message);
            }
        }
    }

    /// Waits for the result of a request.
    ///
    /// # Panics
    /// When the answer is an error, or does not come.
    pub fn answer_of(&mut self, id: u64) -> Value {
        match self.answer(id) {
            Ok(result) => result,
            Err(error) => panic!("request {id} failed: {error}\n{}", self.stderr()),
        }
    }

    /// Waits until the agent has sent a message that `is_wanted`.
    pub fn wait_for(&mut self, is_wanted: impl Fn(&Value) -> bool) {
        while !self.received.iter().any(&is_wanted) {
            let message = self.receive();
            self.serve(message);
        }
    }

    /// Does `initialize` and `session/new`; returns the session's id.
    pub fn open_session(&mut self, capabilities: Value, cwd: &Path) -> String {
        let params = json!({
            "protocolVersion": 1, "clientCapabilities": capabilities,
            "clientInfo": {"name": "acpbox-tests", "version": "0"},
        });
        let initialized = self.request("initialize", params);
        assert_eq!(initialized["protocolVersion"], 1);
        let session = self.request("session/new", json!({"cwd": cwd, "mcpServers": []}));
        let id = session["sessionId"].as_str();
        id.expect("session/new answers with a session id")
            .to_owned()
    }

    /// Sends a prompt of one text and waits for the turn's end.
    pub fn prompt(&mut self, session: &str, text: &str) -> Value {
        self.request("session/prompt", prompt(session, text))
    }

    /// All message chunks of the agent's, joined.
    pub fn text(&self) -> String {
        let chunks = self.updates("agent_message_chunk");
        chunks
            .filter_map(|update| update["content"]["text"].as_str())
            .collect()
    }

    /// The updates of one kind.
    pub fn updates(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let updates = self.received.iter().map(|it| &it["params"]["update"]);
        updates.filter(move |update| update["sessionUpdate"] == kind)
    }

    /// How often the agent called a method.
    pub fn count(&self, method: &str) -> usize {
        let calls = self.received.iter().filter(|it| it["method"] == method);
        calls.count()
    }

    pub fn stderr(&self) -> String {
        let kept = self.stderr.lock().expect("nothing panics while holding it");
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// Closes the agent's input and waits for its end, at most `patience`.
    pub fn close(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.input = None;
        self.wait(patience)
    }

    /// Waits for the agent's end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if start.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the program, and nothing else, a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }

    /// Ids of the live processes in the agent's process group.
    pub fn group(&self) -> Vec<u32> {
        let leader = self.child.id();
        let entries = std::fs::read_dir("/proc")
            .expect("there is a /proc")
            .flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // After the name in brackets: state, parent, process group.
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let is_alive = fields.next() != Some("Z");
            is_alive && fields.nth(1) == Some(&leader.to_string())
        })
        .collect()
    }

    /// Writes one message. An agent that is gone shows when its answer is missed.
    pub fn send(&mut self, message: &Value) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(format!("{message}\n").as_bytes());
        }
    }

    fn receive(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in the agent's line {line}"))
    }

    fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("the agent was silent for {PATIENCE:?}\n{}", self.stderr())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait(Duration::from_secs(1));
                panic!("the agent ended ({status:?})\n{}", self.stderr())
            }
        }
    }

    fn serve(&mut self, message: Value) {
        let method = message["method"].as_str().unwrap_or_default();
        if let Some(id) = message.get("id") {
            let mut answer = json!({"jsonrpc": "2.0", "id": id});
            if method == "session/request_permission" {
                let options = message["params"]["options"].as_array();
                let option = options
                    .and_then(|all| all.iter().find(|option| option["kind"] == self.choice))
                    .unwrap_or_else(|| panic!("no {} in {message}", self.choice));
                let chosen = json!({"outcome": "selected", "optionId": option["optionId"]});
                answer["result"] = json!({"outcome": chosen});
            } else if let Some(result) = self.answers.get(method) {
                answer["result"] = result.clone();
            } else {
                answer["error"] = json!({"code": -32601, "message": "Method not found"});
            }
            self.send(&answer);
        }
        self.received.push(message);
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).expect("process ids are positive");
        if let Some(group) = rustix::process::Pid::from_raw(group) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The params of a prompt of one text.
pub fn prompt(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}
