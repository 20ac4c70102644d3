//! An editor at the other end of a socket: one thread reads, and stops reading
//! when it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{PATIENCE, value};
use crate::support::setup::Setup;
use crate::support::steps::prompt;

/// Lines that may wait to be looked at: more than any test sends.
const LINES: usize = 1 << 20;

pub(super) struct Editor {
    stream: UnixStream,
    lines: Receiver<String>,
    unread: VecDeque<Value>,
    next: u64,
    is_stopped: Arc<(Mutex<bool>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Editor {
    /// Connects under a name. Ids of requests begin at `first`, so that no two
    /// editors of a test have the same ones.
    pub(super) fn connect(path: &Path, name: &str, first: u64) -> Editor {
        Editor::connect_offering(path, name, first, json!({}))
    }

    pub(super) fn connect_offering(
        path: &Path,
        name: &str,
        first: u64,
        capabilities: Value,
    ) -> Editor {
        let stream = UnixStream::connect(path).unwrap();
        let (sender, lines) = sync_channel(LINES);
        let is_stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let gate = Arc::clone(&is_stopped);
        let input = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(input).lines() {
                let (stopped, changed) = &*gate;
                let waited = changed.wait_while(stopped.lock().unwrap(), |stopped| *stopped);
                drop(waited.unwrap());
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut editor = Editor {
            stream,
            lines,
            unread: VecDeque::new(),
            next: first,
            is_stopped,
            reader: Some(reader),
        };
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities,
            "clientInfo": {"name": name, "version": "0"}});
        editor.call("initialize", params).unwrap();
        editor
    }

    /// From now on it reads nothing, or goes on reading.
    pub(super) fn stop(&self, is_to_stop: bool) {
        let (stopped, changed) = &*self.is_stopped;
        *stopped.lock().unwrap() = is_to_stop;
        changed.notify_all();
    }

    pub(super) fn raw(&mut self, message: &Value) {
        writeln!(self.stream, "{message}").unwrap();
    }

    pub(super) fn notify(&mut self, method: &str, params: Value) {
        self.raw(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    pub(super) fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.raw(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    pub(super) fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        self.answer(id)
    }

    pub(super) fn prompt(&mut self, session: &str, text: &str) -> Result<Value, Value> {
        self.call("session/prompt", prompt(session, text))
    }

    pub(super) fn respond(&mut self, request: &Value, result: Value) {
        self.raw(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    /// Chooses an option of a permission request.
    pub(super) fn select(&mut self, request: &Value, option: &str) {
        let outcome = json!({"outcome": {"outcome": "selected", "optionId": option}});
        self.respond(request, outcome);
    }

    pub(super) fn answer(&mut self, id: u64) -> Result<Value, Value> {
        let is_it = |message: &Value| message.get("method").is_none() && message["id"] == id;
        let message = self.wait(is_it);
        match message.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(message["result"].clone()),
        }
    }

    /// Waits for a request or notification.
    pub(super) fn expect(&mut self, method: &str) -> Value {
        self.wait(|message| message["method"] == method)
    }

    /// Waits for an update of this text.
    pub(super) fn expect_text(&mut self, text: &str) -> Value {
        self.wait(|message| message["params"]["update"]["content"]["text"] == text)
    }

    /// Takes the first message that is wanted; others are kept, in order.
    fn wait(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&is_wanted) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let message = self.receive(PATIENCE).unwrap_or_else(|why| {
                let last: Vec<_> = self.unread.iter().rev().take(5).collect();
                panic!("{why:?}; the last unread: {last:#?}")
            });
            if is_wanted(&message) {
                return message;
            }
            self.unread.push_back(message);
        }
    }

    /// The next message from the connection.
    pub(super) fn receive(&mut self, patience: Duration) -> Result<Value, RecvTimeoutError> {
        Ok(value(&self.lines.recv_timeout(patience)?))
    }

    /// Whether nothing with this method comes for a while.
    pub(super) fn gets_no(&mut self, method: &str) -> bool {
        while let Ok(message) = self.receive(Duration::from_millis(200)) {
            self.unread.push_back(message);
        }
        !self
            .unread
            .iter()
            .any(|message| message["method"] == method)
    }

    /// Takes what was received while something else was waited for.
    pub(super) fn taken(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.unread).into()
    }

    /// Waits for an update of this text, and leaves it with the others.
    pub(super) fn expect_last(&mut self, text: &str) {
        let update = self.expect_text(text);
        self.unread.push_back(update);
    }

    /// Waits for the update of this number.
    pub(super) fn expect_seq(&mut self, seq: i64) -> Value {
        self.wait(|message| message["params"]["_meta"]["acpbox"]["seq"] == seq)
    }

    /// Takes what came until now, in order.
    pub(super) fn take(&mut self) -> Vec<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.unread.push_back(value(&line));
        }
        std::mem::take(&mut self.unread).into()
    }

    pub(super) fn new_session(&mut self, setup: &Setup) -> String {
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let result = self.call("session/new", params).unwrap();
        result["sessionId"].as_str().unwrap().to_owned()
    }

    /// `session/load` or `session/resume`, with `_meta.acpbox`.
    pub(super) fn attach(
        &mut self,
        method: &str,
        setup: &Setup,
        session: &str,
        ours: Value,
    ) -> Value {
        let id = self.begin_attach(method, setup, session, ours);
        self.answer(id).unwrap()
    }

    /// [`Editor::attach`] without waiting for the answer.
    pub(super) fn begin_attach(
        &mut self,
        method: &str,
        setup: &Setup,
        session: &str,
        ours: Value,
    ) -> u64 {
        let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": [],
            "_meta": {"acpbox": ours}});
        self.send(method, params)
    }

    /// Cuts the connection, as an end of the process would.
    pub(super) fn kill(self) {}
}

impl Drop for Editor {
    fn drop(&mut self) {
        self.stop(false);
        let _ = self.stream.shutdown(Shutdown::Both);
        // The reader may be waiting for room that nobody makes.
        let (_, nothing) = sync_channel(1);
        self.lines = nothing;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The updates among messages: their numbers and texts.
pub(super) fn shown(messages: &[Value]) -> Vec<(i64, String)> {
    let updates = messages
        .iter()
        .filter(|message| message["method"] == "session/update");
    let shown = updates.map(|message| {
        let params = &message["params"];
        let seq = params["_meta"]["acpbox"]["seq"].as_i64().unwrap();
        let text = params["update"]["content"]["text"].as_str();
        (seq, text.unwrap_or_default().to_owned())
    });
    shown.collect()
}
