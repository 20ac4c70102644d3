//! The same over HTTP/2 by prior knowledge: everything on one connection.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::Web;
use super::events::text_of;
use crate::support::client::{PATIENCE, value};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// One connection.
struct Client<'a> {
    web: &'a Web,
    sender: SendRequest<Full<Bytes>>,
    connection: String,
}

impl Client<'_> {
    async fn connect(web: &Web) -> Client<'_> {
        let stream = TcpStream::connect(&web.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Client {
            web,
            sender,
            connection: String::new(),
        }
    }

    async fn request(&mut self, method: Method, session: &str, body: &str) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/acp", self.web.address))
            .header("authorization", self.web.bearer())
            .header("content-type", "application/json")
            .header("accept", "text/event-stream");
        for (name, value) in [
            ("acp-connection-id", self.connection.as_str()),
            ("acp-session-id", session),
        ] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let body = Full::from(body.to_owned());
        self.sender
            .send_request(request.body(body).unwrap())
            .await
            .unwrap()
    }

    async fn post(&mut self, session: &str, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        let response = self
            .request(Method::POST, session, &message.to_string())
            .await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
}

/// The next message of a stream.
async fn next(stream: &mut Response<Incoming>, buffer: &mut String) -> Value {
    loop {
        if let Some((event, rest)) = buffer.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            let message = data.map(value);
            *buffer = rest.to_owned();
            match message {
                Some(message) => return message,
                None => continue,
            }
        }
        let frame = stream
            .body_mut()
            .frame()
            .await
            .expect("the stream ended")
            .unwrap();
        buffer.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

#[test]
fn a_turn_runs_over_one_connection_of_http_2_and_ends_with_the_server() {
    let setup = Setup::new();
    setup.script(&[
        expect_prompt(),
        chunk("a"),
        end_turn(),
        expect_prompt(),
        chunk("b"),
    ]);
    let mut web = Web::start(&setup);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let turn = async {
        let mut client = Client::connect(&web).await;
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}});
        let response = client
            .request(Method::POST, "", &initialize.to_string())
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        let id = response.headers()["acp-connection-id"].to_str().unwrap();
        client.connection = id.to_owned();
        let mut own = client.request(Method::GET, "", "").await;
        let mut text = String::new();
        let params = json!({"cwd": setup.workspace(), "mcpServers": []});
        client.post("", "session/new", params).await;
        let created = next(&mut own, &mut text).await;
        let session = created["result"]["sessionId"].as_str().unwrap().to_owned();
        let mut events = client.request(Method::GET, &session, "").await;
        client
            .post(&session, "session/prompt", prompt(&session, "u"))
            .await;
        let mut text = String::new();
        let update = next(&mut events, &mut text).await;
        assert_eq!(text_of(&update).unwrap(), "a");
        let result = next(&mut events, &mut text).await;
        assert_eq!(result["result"]["stopReason"], "end_turn");

        // Told to stop, it ends this turn with a reason, and then every stream.
        client
            .post(&session, "session/prompt", prompt(&session, "v"))
            .await;
        assert_eq!(text_of(&next(&mut events, &mut text).await).unwrap(), "b");
        web.server.signal(libc::SIGTERM);
        tokio::time::sleep(Duration::from_millis(200)).await;
        web.server.signal(libc::SIGTERM);
        let result = next(&mut events, &mut text).await;
        assert!(
            result["error"]["message"].is_string() || result["result"]["stopReason"].is_string(),
            "{result}"
        );
        while let Some(Ok(_)) = own.body_mut().frame().await {}
        while let Some(Ok(_)) = events.body_mut().frame().await {}
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, turn).await.unwrap() });
    assert_eq!(web.server.exit_code(), Some(0));
}
