//! Transcripts in the form that `sessions export` writes and `sessions import` reads.

use serde_json::{Value, json};

/// A session with a prompt, thoughts, plans, tools, diffs, pictures and failures.
pub const CONVERSATION: &str = include_str!("../../fixtures/conversation.jsonl");

/// The id of [`CONVERSATION`], and of every [`Transcript`].
pub const SESSION: &str = "01987654-3210-7abc-8def-0123456789ab";

/// The first line, with a newline.
pub fn header() -> String {
    let session = json!({"sessionId": SESSION, "agent": "claude", "vm": "v", "cwd": "/nowhere/at/all",
        "title": "A title", "createdAt": "2026-11-22T11:05:00Z", "updatedAt": "2026-11-22T11:06:00Z",
        "state": "closed", "agentSessionId": null, "options": {}});
    format!("{}\n", json!({"acpbox": 1, "session": session}))
}

/// Lines of an export that grow.
pub struct Transcript {
    pub text: String,
    pub seq: i64,
    /// Milliseconds since 1970.
    pub time: i64,
}

impl Transcript {
    pub fn new() -> Transcript {
        Transcript {
            text: header(),
            seq: 0,
            time: 1_795_345_500_000,
        }
    }

    /// Adds an event, some milliseconds after the one before.
    pub fn event(&mut self, after: i64, direction: &str, kind: &str, message: &str) -> &mut Self {
        self.seq += 1;
        self.time += after;
        self.text += &format!(
            r#"{{"seq":{},"time":{},"direction":"{direction}","kind":{},"message":{message}}}"#,
            self.seq,
            self.time,
            json!(kind)
        );
        self.text.push('\n');
        self
    }

    pub fn prompt(&mut self, after: i64, text: &str) -> &mut Self {
        let message = json!({"jsonrpc": "2.0", "id": self.seq, "method": "session/prompt",
            "params": super::steps::prompt(SESSION, text)});
        self.event(after, "client", "session/prompt", &message.to_string())
    }

    pub fn update(&mut self, after: i64, update: &Value) -> &mut Self {
        let kind = update["sessionUpdate"].as_str().unwrap();
        let message = json!({"jsonrpc": "2.0", "method": "session/update",
            "params": {"sessionId": SESSION, "update": update}});
        self.event(after, "agent", kind, &message.to_string())
    }

    pub fn chunk(&mut self, after: i64, text: &str) -> &mut Self {
        let content = json!({"type": "text", "text": text});
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
        self.update(after, &update)
    }

    pub fn end_turn(&mut self, after: i64) -> &mut Self {
        let message = r#"{"jsonrpc":"2.0","id":1,"result":{"stopReason":"end_turn"}}"#;
        self.event(after, "agent", "session/prompt:result", message)
    }
}
