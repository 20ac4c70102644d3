//! JSON-RPC on a pair of byte streams: one message per line.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_client_protocol_schema::v1::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// Longest line read, in bytes. A prompt can carry whole files.
const LINE_LIMIT: u64 = 64 << 20;

/// The sending side, shared by all threads, and the requests that await an answer.
pub(super) struct Wire {
    output: Mutex<Box<dyn Write + Send>>,
    pending: Mutex<HashMap<u64, SyncSender<Answer>>>,
    next_id: AtomicU64,
}

/// What the client said to a request.
pub(super) type Answer = Result<Value, Error>;

/// A received message, as far as it has to be understood to be routed.
#[derive(Deserialize)]
pub(super) struct Incoming {
    #[serde(default)]
    pub(super) id: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Error>,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Error>,
}

const EMPTY: Outgoing<'static> = Outgoing {
    jsonrpc: "2.0",
    id: None,
    method: None,
    params: None,
    result: None,
    error: None,
};

impl Wire {
    pub(super) fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            output: Mutex::new(output),
            pending: Mutex::default(),
            next_id: AtomicU64::new(0),
        }
    }

    /// Sends a notification.
    pub(super) fn notify(&self, method: &str, params: &impl Serialize) {
        self.write(&notification_line(method, params));
    }

    /// Sends a request and returns where its answer will arrive.
    pub(super) fn request(&self, method: &str, params: &impl Serialize) -> Receiver<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        lock(&self.pending).insert(id, sender);
        let line = line(&Outgoing {
            id: Some(&raw(&id)),
            method: Some(method),
            params: Some(&raw(params)),
            ..EMPTY
        });
        self.write(&line);
        receiver
    }

    /// Hands an answer to whoever waits for it; answers that nobody waits for
    /// are dropped.
    pub(super) fn answered(&self, id: &RawValue, answer: Answer) {
        let Ok(id) = id.get().parse::<u64>() else {
            return;
        };
        if let Some(waiting) = lock(&self.pending).remove(&id) {
            // The turn may have been cancelled meanwhile.
            let _ = waiting.try_send(answer);
        }
    }

    /// Answers a request of the client's.
    pub(super) fn respond(&self, id: &RawValue, answer: Result<Box<RawValue>, Error>) {
        let line = match &answer {
            Ok(result) => line(&Outgoing {
                id: Some(id),
                result: Some(result),
                ..EMPTY
            }),
            Err(error) => line(&Outgoing {
                id: Some(id),
                error: Some(error),
                ..EMPTY
            }),
        };
        self.write(&line);
    }

    /// Writes whole lines at once.
    pub(super) fn write(&self, lines: &[u8]) {
        let mut output = lock(&self.output);
        // A client that does not listen any more also closes our input, and
        // that is where the process ends.
        let _ = output.write_all(lines).and_then(|()| output.flush());
    }
}

/// A notification as a line with its newline.
pub(super) fn notification_line(method: &str, params: &impl Serialize) -> Vec<u8> {
    line(&Outgoing {
        method: Some(method),
        params: Some(&raw(params)),
        ..EMPTY
    })
}

/// Reads one line into `buffer`, without its newline. `false` at the end of input.
///
/// Fails on a line longer than 64 MiB and when the input breaks off inside a line.
pub(super) fn read_line(input: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    input.by_ref().take(LINE_LIMIT).read_until(b'\n', buffer)?;
    match buffer.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if buffer.len() as u64 + 1 == LINE_LIMIT => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is longer than 64 MiB",
        )),
        Some(_) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the input ended inside a message",
        )),
    }
}

/// Any value as JSON that is sent as it is.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("protocol types have string keys only")
}

/// Locks even after a panic of another thread: each use leaves the value whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(message: &Outgoing<'_>) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("protocol types have string keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, io::ErrorKind>> {
        let mut input = input;
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        loop {
            match read_line(&mut input, &mut buffer) {
                Ok(true) => seen.push(Ok(String::from_utf8_lossy(&buffer).into_owned())),
                Ok(false) => return seen,
                Err(error) => {
                    seen.push(Err(error.kind()));
                    return seen;
                }
            }
        }
    }

    #[test]
    fn an_input_that_ends_inside_a_message_is_an_error() {
        assert_eq!(
            lines(b"one\n\ntwo\n"),
            [Ok("one".into()), Ok(String::new()), Ok("two".into())]
        );
        assert_eq!(
            lines(b"one\ntw"),
            [Ok("one".into()), Err(io::ErrorKind::UnexpectedEof)]
        );
    }
}
