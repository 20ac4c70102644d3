//! Questions on connections that are lost before the sessions are back.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};

use super::socket;
use super::versions::protocol;
use crate::support::client::{PATIENCE, raw_id, value};
use crate::support::setup::Setup;

/// A server as far as a client sees it, which leaves three times.
struct Other {
    listener: UnixListener,
    info: Value,
}

/// One connection.
struct Link {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Other {
    /// The next connection, up to what the client says beyond the introduction.
    fn accept(&self) -> (Link, Value) {
        let (stream, _) = self.listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut link = Link { stream, lines };
        loop {
            let said = link.hear();
            match said["method"].as_str().unwrap_or_default() {
                "initialize" => link.answer(&said, json!({"protocolVersion": 1})),
                "_acpbox/server/info" => link.answer(&said, self.info.clone()),
                _ => return (link, said),
            }
        }
    }

    fn serve(&self, answers: &Sender<Value>) {
        let (mut link, new) = self.accept();
        link.answer(&new, json!({"sessionId": "s"}));
        link.hear();
        drop(link);
        let (mut link, load) = self.accept();
        assert_eq!(load["method"], "session/load");
        link.ask("first");
        drop(link);
        let (mut link, load) = self.accept();
        link.ask("second");
        link.answer(&load, json!({}));
        answers.send(link.hear()).unwrap();
    }
}

impl Link {
    fn hear(&mut self) -> Value {
        value(&self.lines.next().unwrap().unwrap())
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.stream, "{message}").unwrap();
    }

    fn answer(&mut self, request: &Value, result: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    /// Each connection counts from 1.
    fn ask(&mut self, what: &str) {
        let params = json!({"sessionId": "s", "what": what});
        self.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "session/request_permission", "params": params}));
    }
}

#[test]
fn a_question_of_a_connection_that_broke_again_is_withdrawn_and_its_answer_goes_nowhere() {
    let setup = Setup::host();
    let protocol = protocol();
    // The configuration is there before it is named.
    setup.command();
    let info = json!({"version": env!("CARGO_PKG_VERSION"), "pid": 1, "instance": "other",
        "database": setup.state().join("acpbox.db"), "protocol": protocol,
        "config": setup.path().join("config/acpbox/config.toml")});
    let path = socket(&setup);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let other = Other {
        listener: UnixListener::bind(&path).unwrap(),
        info,
    };
    let (sender, answers) = channel();
    let serving = std::thread::spawn(move || other.serve(&sender));
    let mut client = setup.connect();
    let session = client.new_session();
    assert_eq!(session, "s");
    client.notify("_v/leave", json!({"sessionId": session}));
    let first = client.expect("session/request_permission");
    let second = client.expect("session/request_permission");
    let said = |question: &str| value(question)["params"]["what"].clone();
    assert_eq!([said(&first), said(&second)], ["first", "second"]);
    assert_ne!(raw_id(&first), raw_id(&second));
    let withdrawn = value(&client.expect("$/cancel_request"));
    assert_eq!(withdrawn["params"]["requestId"], value(&first)["id"]);
    client.respond(&first, r#""too late""#);
    client.respond(&second, r#""in time""#);
    let answer = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer["id"], 1);
    assert_eq!(answer["result"], "in time");
    drop(client);
    serving.join().unwrap();
}
