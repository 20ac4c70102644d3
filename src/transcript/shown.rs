//! The messages that a client is shown of stored events, in a replay.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::value::RawValue;

use super::meta::with_meta;
use crate::acp::extension::UpdateMeta;
use crate::acp::methods;
use crate::rpc::codec::Framing;
use crate::rpc::{message, splice};
use crate::store::{Direction, EventRef};

/// How most updates begin.
const PLAIN: &str = r#"{"jsonrpc":"2.0","method":"session/update","params":{"#;

/// Tool calls without an end that are remembered at most.
const OPEN_TOOLS: usize = 10_000;

/// The longest prompt that is compared with what the agent echoes.
const ECHO_BYTES: usize = 256 * 1024;

/// Turns a session's events, in order, into what a client sees of them, framed:
///
/// - updates as they were, each with its number in `_meta.acpbox.seq`;
/// - prompts as `user_message_chunk`s, once each where the agent echoes them;
/// - nothing that came too late for its turn;
/// - tool calls as failed that nobody will end any more, their turn or agent being over.
pub struct Shown {
    session: String,
    framing: Framing,
    encoded: Vec<u8>,
    /// Ids of tool calls that have begun and not ended.
    open_tools: BTreeSet<String>,
    /// The texts of the turn's prompt.
    prompt: Vec<String>,
}

impl Shown {
    pub fn new(session: &str, framing: Framing) -> Shown {
        Shown {
            session: session.to_owned(),
            framing,
            encoded: Vec::new(),
            open_tools: BTreeSet::new(),
            prompt: Vec::new(),
        }
    }

    /// Takes an event that the client has seen already.
    pub fn skip(&mut self, event: EventRef<'_>) {
        let before = self.encoded.len();
        self.feed(event);
        self.encoded.truncate(before);
    }

    pub fn feed(&mut self, event: EventRef<'_>) {
        // Nobody was shown it, since it came after the end of its turn.
        if methods::is_late(event.kind) {
            return;
        }
        match event.direction {
            Direction::Client if event.kind == methods::SESSION_PROMPT => self.prompt(event),
            Direction::Client => {}
            Direction::Agent | Direction::Acpbox => {
                if !self.update(event) && ends_tools(event) {
                    self.fail_open_tools(event.seq);
                }
            }
        }
    }

    /// What has come together since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.encoded)
    }

    /// `false` if the event is none.
    fn update(&mut self, event: EventRef<'_>) -> bool {
        let is_simple = !matches!(
            event.kind,
            "tool_call" | "tool_call_update" | "user_message_chunk"
        );
        if let Some(rest) = plain(event.raw)
            && is_simple
        {
            let comma = if rest.trim_ascii_start().starts_with('}') {
                ""
            } else {
                ","
            };
            let seq = event.seq.to_string();
            let parts = [
                PLAIN,
                r#""_meta":{"acpbox":{"seq":"#,
                &seq,
                "}}",
                comma,
                rest,
            ];
            self.framing.encode(&parts, &mut self.encoded);
            return true;
        }
        let members = splice::members(event.raw).unwrap_or_default();
        let method = splice::value(&members, "method").and_then(message::string);
        if method.as_deref() != Some(methods::SESSION_UPDATE) {
            return false;
        }
        let update = splice::value(&members, "params")
            .and_then(|params| splice::member(params, "update"))
            .unwrap_or("{}");
        match event.kind {
            "tool_call" | "tool_call_update" => self.tool(update),
            "user_message_chunk" if self.is_echo(update) => return true,
            _ => {}
        }
        let shown = with_meta(event.raw, "params", &UpdateMeta { seq: event.seq });
        self.framing.encode(&[&shown], &mut self.encoded);
        true
    }

    fn tool(&mut self, update: &str) {
        let members = splice::members(update).unwrap_or_default();
        let text = |key| splice::value(&members, key).and_then(message::string);
        let Some(id) = text("toolCallId") else { return };
        match text("status").as_deref() {
            Some("completed" | "failed") => {
                self.open_tools.remove(&*id);
            }
            _ if self.open_tools.len() < OPEN_TOOLS => {
                let is_begun = text("sessionUpdate").as_deref() == Some("tool_call");
                // A late update of one that has ended does not open it again.
                if is_begun || text("status").is_some() {
                    self.open_tools.insert(id.into_owned());
                }
            }
            _ => {}
        }
    }

    fn fail_open_tools(&mut self, seq: i64) {
        for id in std::mem::take(&mut self.open_tools) {
            let params = serde_json::json!({
                "_meta": {"acpbox": UpdateMeta { seq }},
                "sessionId": self.session,
                "update": {
                    "sessionUpdate": "tool_call_update",
                    "toolCallId": id,
                    "status": "failed",
                },
            });
            let line = message::notification(methods::SESSION_UPDATE, &params.to_string());
            self.framing.encode(&[&line], &mut self.encoded);
        }
    }

    fn prompt(&mut self, event: EventRef<'_>) {
        let prompt = splice::member(event.raw, "params")
            .and_then(|params| splice::member(params, "prompt"))
            .unwrap_or("[]");
        let blocks: Vec<&RawValue> = serde_json::from_str(prompt).unwrap_or_default();
        self.prompt.clear();
        for block in blocks {
            let block = block.get();
            if event.raw.len() <= ECHO_BYTES
                && let Some(text) = splice::member(block, "text").and_then(message::string)
            {
                self.prompt.push(text.into_owned());
            }
            let params = format!(
                r#"{{"_meta":{{"acpbox":{{"seq":{}}}}},"sessionId":{},"update":{{"sessionUpdate":"user_message_chunk","content":{block}}}}}"#,
                event.seq,
                Value::from(self.session.as_str()),
            );
            let line = message::notification(methods::SESSION_UPDATE, &params);
            self.framing.encode(&[&line], &mut self.encoded);
        }
    }

    /// Whether the agent only says what it was told. Once per piece of the prompt.
    fn is_echo(&mut self, update: &str) -> bool {
        let text = splice::member(update, "content")
            .and_then(|content| splice::member(content, "text"))
            .and_then(message::string);
        let at = text.and_then(|text| self.prompt.iter().position(|told| *told == text));
        at.is_some_and(|at| {
            self.prompt.remove(at);
            true
        })
    }
}

/// What follows [`PLAIN`] in an update without `_meta`, if that can be told
/// without parsing it.
fn plain(raw: &str) -> Option<&str> {
    let rest = raw.strip_prefix(PLAIN)?;
    // A name may be written with escapes, or come twice.
    let is_odd = ["\\u", "_meta", "\"method\"", "\"params\""]
        .iter()
        .any(|odd| rest.contains(odd));
    (!is_odd).then_some(rest)
}

/// Whether tool calls that have not ended by now never will.
fn ends_tools(event: EventRef<'_>) -> bool {
    match event.kind {
        methods::AGENT_EXIT
        | methods::SESSION_RESTORED
        | methods::SESSION_SLEEP
        | methods::TURN_END => true,
        "session/prompt:result" => {
            let reason = splice::member(event.raw, "result")
                .and_then(|result| splice::member(result, "stopReason"))
                .and_then(message::string);
            reason.as_deref() == Some("cancelled")
        }
        _ => false,
    }
}
