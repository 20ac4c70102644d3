//! Steps that most scripts have, and the prompt that they wait for.

use serde_json::{Value, json};

/// The params of a prompt of one text.
pub fn prompt(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

/// A step that sends a message chunk.
pub fn chunk(text: &str) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "$SESSION",
        "update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}}}})
}

/// A step that answers the prompt that was expected last.
pub fn end_turn() -> Value {
    json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"end_turn"}}"#})
}

/// A step that waits for a prompt.
pub fn expect_prompt() -> Value {
    json!({"expect": "session/prompt"})
}
