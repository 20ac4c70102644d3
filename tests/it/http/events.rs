//! A client of POST and event streams, over HTTP/1.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{Response, Web};
use crate::support::client::value;
use crate::support::setup::Setup;

/// A connection of the event stream transport.
pub struct Remote<'a> {
    pub web: &'a Web,
    pub id: String,
    next: u64,
}

/// An open stream.
pub struct Events {
    body: BufReader<Chunks>,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub id: Option<String>,
    pub message: Value,
}

impl Web {
    pub fn post(&self, headers: &[(&str, &str)], body: &str) -> Response {
        let bearer = self.bearer();
        let common = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        self.request("POST /acp", &[&common, headers].concat(), body)
    }

    pub fn remote(&self) -> Remote<'_> {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = self.post(&[], &message.to_string());
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(value(&response.body)["result"]["protocolVersion"], 1);
        Remote {
            web: self,
            id: response.header("acp-connection-id").unwrap().to_owned(),
            next: 0,
        }
    }
}

impl Remote<'_> {
    /// Opens a stream: of a session, or the connection's own.
    pub fn events(&self, session: Option<&str>, last: Option<&str>) -> Events {
        self.try_events(session, last).unwrap()
    }

    pub fn try_events(&self, session: Option<&str>, last: Option<&str>) -> Result<Events, u16> {
        let mut head = format!(
            "GET /acp HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nAccept: text/event-stream\r\nAcp-Connection-Id: {}\r\n",
            self.web.address,
            self.web.bearer(),
            self.id
        );
        for (name, value) in [("Acp-Session-Id", session), ("Last-Event-ID", last)] {
            if let Some(value) = value {
                head += &format!("{name}: {value}\r\n");
            }
        }
        let mut stream = self.web.connect();
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = None;
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0);
            if line == "\r\n" {
                break;
            }
            status.get_or_insert_with(|| line.split(' ').nth(1).unwrap().parse().unwrap());
        }
        match status.unwrap() {
            200 => Ok(Events {
                body: BufReader::new(Chunks { reader, left: 0 }),
            }),
            refused => Err(refused),
        }
    }

    /// Posts a request; its id.
    pub fn send(&mut self, session: Option<&str>, method: &str, params: Value) -> u64 {
        self.next += 1;
        let message =
            json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        self.post(session, &message);
        self.next
    }

    pub fn post(&self, session: Option<&str>, message: &Value) {
        let mut headers = vec![("Acp-Connection-Id", self.id.as_str())];
        headers.extend(session.map(|session| ("Acp-Session-Id", session)));
        let response = self.web.post(&headers, &message.to_string());
        assert_eq!((response.status, response.body.as_str()), (202, ""));
    }

    pub fn new_session(&mut self, own: &mut Events, setup: &Setup) -> String {
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let id = self.send(None, "session/new", params);
        let message = own.next().unwrap().message;
        assert_eq!(message["id"], id, "{message}");
        message["result"]["sessionId"].as_str().unwrap().to_owned()
    }
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Event> {
        let mut id = None;
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(given) = line.strip_prefix("id: ") {
                id = Some(given.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let message = value(data.trim());
                return Some(Event { id, message });
            } else {
                assert!(line.starts_with(':') || line == "\n", "{line:?}");
            }
        }
    }

    /// The answer to a request, after the texts of what comes before it.
    pub fn answer(&mut self, id: u64) -> (Vec<String>, Value) {
        let mut texts = Vec::new();
        loop {
            let message = self.next().expect("the stream ended").message;
            if message["id"] == id && message.get("method").is_none() {
                return (texts, message["result"].clone());
            }
            texts.extend(text_of(&message));
        }
    }
}

/// The text of an update.
pub fn text_of(message: &Value) -> Option<String> {
    let text = &message["params"]["update"]["content"]["text"];
    text.as_str().map(str::to_owned)
}

/// A body in chunks (RFC 9112, 7.1).
struct Chunks {
    reader: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            if size == "\r\n" {
                size.clear();
                self.reader.read_line(&mut size)?;
            }
            self.left = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let read = self.reader.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}
