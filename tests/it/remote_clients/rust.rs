//! A client of a server, made of the official Rust SDK.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, LoadSessionRequest, NewSessionRequest, PermissionOptionKind,
    PromptRequest, RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    SelectedPermissionOutcome, SessionNotification, TextContent,
};
use agent_client_protocol::{Agent, Client, Error, on_receive_notification, on_receive_request};
use agent_client_protocol_http::HttpClient;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde_json::{Value, json};

/// More than two turns take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends each prompt in one session, allows everything once, then loads the session.
/// What it saw, as the other SDKs' clients tell it; or why it failed.
pub fn drive(url: &str, token: &str, cwd: &Path, prompts: &[&str]) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let driving = async { tokio::time::timeout(PATIENCE, turns(url, token, cwd, prompts)).await };
    match runtime.block_on(driving) {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(error)) => Err(error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

async fn turns(url: &str, token: &str, cwd: &Path, prompts: &[&str]) -> Result<Value, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let transport = HttpClient::builder_with_endpoint(url)
        .configure_http(|http| http.no_proxy().default_headers(headers))
        .build()
        .unwrap();
    let updates = Arc::new(Mutex::new(Vec::<Value>::new()));
    let permissions = Arc::new(Mutex::new(Vec::<Value>::new()));
    let (told, asked) = (Arc::clone(&updates), Arc::clone(&permissions));
    Client
        .v1()
        .on_receive_notification(
            async move |notification: SessionNotification, _connection| {
                told.lock().unwrap().push(json!(notification.update));
                Ok(())
            },
            on_receive_notification!(),
        )
        .on_receive_request(
            async move |request: RequestPermissionRequest, responder, _connection| {
                let title = &request.tool_call.fields.title;
                asked.lock().unwrap().push(json!(title));
                let mut options = request.options.iter();
                let allow = options.find(|it| it.kind == PermissionOptionKind::AllowOnce);
                let chosen = SelectedPermissionOutcome::new(allow.unwrap().option_id.clone());
                let outcome = RequestPermissionOutcome::Selected(chosen);
                responder.respond(RequestPermissionResponse::new(outcome))
            },
            on_receive_request!(),
        )
        .connect_with(transport, async |connection: ConnectionTo<Agent>| {
            let initialize = InitializeRequest::new(ProtocolVersion::V1);
            let initialized = connection.send_request(initialize).block_task().await?;
            let new = NewSessionRequest::new(cwd);
            let session = connection.send_request(new).block_task().await?;
            let id = session.session_id.clone();
            let mut turns = Vec::new();
            for text in prompts {
                let content = ContentBlock::Text(TextContent::new(*text));
                let prompt = PromptRequest::new(id.clone(), vec![content]);
                turns.push(connection.send_request(prompt).block_task().await?);
            }
            let seen = std::mem::take(&mut *updates.lock().unwrap());
            let load = LoadSessionRequest::new(id, cwd);
            connection.send_request(load).block_task().await?;
            // The answer may come on another stream than what it is about.
            while chunks(&updates.lock().unwrap()) < chunks(&seen) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(json!({
                "initialize": initialized, "session": session, "turns": turns,
                "updates": seen, "replayed": *updates.lock().unwrap(),
                "permissions": *permissions.lock().unwrap(),
            }))
        })
        .await
}

fn chunks(updates: &[Value]) -> usize {
    let updates = updates.iter();
    updates
        .filter(|update| update["sessionUpdate"] == "agent_message_chunk")
        .count()
}
