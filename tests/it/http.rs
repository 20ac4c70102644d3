//! ACP over HTTP and WebSocket: turns by clients of all kinds, and who is refused.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::serve::Server;
use crate::support::client::{PATIENCE, value};
use crate::support::clients;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod events;
mod multiplexed;
mod refusals;
mod streams;

/// A server of HTTP, and how it is reached.
pub struct Web {
    pub server: Server,
    /// `HOST:PORT`.
    pub address: String,
    pub token: String,
}

impl Web {
    pub fn start(setup: &Setup) -> Web {
        Web::start_with(setup, &[])
    }

    pub fn start_with(setup: &Setup, arguments: &[&str]) -> Web {
        let listen = ["--listen", "http:127.0.0.1:0"];
        let mut server = Server::start(setup, &[&listen, arguments].concat());
        let address = server.address();
        let address = address.strip_prefix("http:").unwrap().to_owned();
        let token = std::fs::read_to_string(setup.state().join("token")).unwrap();
        Web {
            server,
            address,
            token: token.trim().to_owned(),
        }
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends one request as HTTP/1.1 and reads the whole response. `Host` is right
    /// unless it is among the headers.
    pub fn request(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = self.connect();
        stream
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Response::parse(&text)
    }

    /// A WebSocket with these further headers.
    pub fn websocket(&self, headers: &[(&'static str, &str)]) -> Socket {
        let url = format!("ws://{}/acp", self.address);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = tungstenite::client(request, self.connect()).unwrap();
        let connection = response.headers()["acp-connection-id"].to_str().unwrap();
        assert_eq!(connection.len(), 36, "{connection}");
        Socket {
            socket,
            updates: Vec::new(),
        }
    }
}

/// A response, with names of headers in small letters.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn parse(text: &str) -> Response {
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Response {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        let found = all.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A client over WebSocket.
pub struct Socket<Stream = TcpStream> {
    pub socket: WebSocket<Stream>,
    pub updates: Vec<Value>,
}

impl<Stream: Read + Write> Socket<Stream> {
    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next message of ACP.
    pub fn receive(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return value(&text),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The close frame, after whatever else comes.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(error) => panic!("it was not closed in order: {error}"),
            }
        }
    }

    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let message = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        self.send(&message.to_string());
        loop {
            let message = self.receive();
            if message["id"] == method && message.get("method").is_none() {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
            self.updates.push(message);
        }
    }

    pub fn initialize(&mut self, meta: Value) -> Result<Value, Value> {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}, "_meta": meta});
        self.call("initialize", params)
    }

    pub fn new_session(&mut self, setup: &Setup) -> String {
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        let result = self.call("session/new", params).unwrap();
        result["sessionId"].as_str().unwrap().to_owned()
    }

    /// The texts of the updates since the last call.
    pub fn texts(&mut self) -> Vec<String> {
        let updates = std::mem::take(&mut self.updates);
        let text = |update: &Value| {
            let text = &update["params"]["update"]["content"]["text"];
            text.as_str().map(str::to_owned)
        };
        updates.iter().filter_map(text).collect()
    }
}

#[test]
fn a_turn_runs_over_a_websocket_and_outlives_it() {
    let setup = Setup::new();
    setup.script(&[
        expect_prompt(),
        chunk("a1"),
        end_turn(),
        expect_prompt(),
        chunk("b1"),
        json!({"expect": "_test/go"}),
        chunk("b2"),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let mut first = web.websocket(&[("authorization", &web.bearer())]);
    first.initialize(json!({})).unwrap();
    let session = first.new_session(&setup);
    first
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    assert_eq!(first.texts(), ["a1"]);
    // It is lost in the middle of a turn, without a goodbye.
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": prompt(&session, "u2")});
    first.send(&message.to_string());
    assert_eq!(first.receive()["params"]["update"]["content"]["text"], "b1");
    drop(first);

    // A browser cannot set headers: its token comes in `initialize`.
    let mut second = web.websocket(&[]);
    let meta = json!({"acpbox": {"token": web.token}});
    second.initialize(meta).unwrap();
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    let loaded = second.call("session/load", params).unwrap();
    assert_eq!(loaded["_meta"]["acpbox"]["restored"]["tier"], "attach");
    assert_eq!(second.texts(), ["u1", "a1", "u2", "b1"]);
    let go = json!({"jsonrpc": "2.0", "method": "_test/go", "params": {"sessionId": session}});
    second.send(&go.to_string());
    let update = second.receive();
    assert_eq!(update["params"]["update"]["content"]["text"], "b2");
}

#[test]
fn the_typescript_sdk_completes_turns_over_a_websocket() {
    drive_by_the_sdk("websocket", "ws");
}

#[test]
fn the_typescript_sdk_completes_turns_over_event_streams() {
    drive_by_the_sdk("http", "http");
}

fn drive_by_the_sdk(transport: &str, scheme: &str) {
    let setup = Setup::new();
    let web = Web::start_with(&setup, &["--agent", "example"]);
    let url = format!("{scheme}://{}/acp", web.address);
    let prompts = ["[[write:a.txt|by the SDK]]", "[[say:and again]]"];
    let seen = clients::sdk_remote(transport, &url, &web.token, &setup.workspace(), &prompts);
    let turns = seen["turns"].as_array().unwrap();
    assert!(turns.iter().all(|turn| turn["stopReason"] == "end_turn"));
    assert_eq!(turns.len(), 2, "{seen}");
    assert_eq!(seen["permissions"], json!(["Write a.txt"]));
    let written = std::fs::read_to_string(setup.workspace().join("a.txt")).unwrap();
    assert_eq!(written, "by the SDK");
    // What it is told anew is what it saw, and its own prompts.
    let of_agent = |updates: &Value| -> Vec<Value> {
        let updates = updates.as_array().unwrap().iter();
        let by_agent = updates.filter(|update| update["sessionUpdate"] != "user_message_chunk");
        by_agent.cloned().collect()
    };
    assert!(!of_agent(&seen["updates"]).is_empty());
    assert_eq!(of_agent(&seen["replayed"]), of_agent(&seen["updates"]));
}
