//! The messages that a client is shown of stored events, in a replay.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::echo::Echo;
use super::meta::with_meta;
use crate::acp::extension::{TurnStart, UpdateMeta};
use crate::acp::methods;
use crate::rpc::codec::Framing;
use crate::rpc::{message, splice};
use crate::store::{Direction, EventRef};

/// How most updates begin.
const PLAIN: &str = r#"{"jsonrpc":"2.0","method":"session/update","params":{"#;

/// Tool calls without an end that are remembered at most.
const OPEN_TOOLS: usize = 10_000;

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
    /// What the agent may say back of the turn's prompt; transcripts of old do not
    /// tell what it did.
    echo: Echo,
    /// Prompts that are shown where their turn begins, by their numbers.
    later: BTreeSet<i64>,
    /// Those of them that came and wait for their turn.
    waiting: BTreeMap<i64, Box<str>>,
    /// Starts of turns whose prompts are the client's own, which it is not shown, and
    /// what agents said back of these, which it is.
    own: Vec<i64>,
    /// Whether what is shown is what was shown when it happened.
    is_live: bool,
}

impl Shown {
    pub fn new(session: &str, framing: Framing) -> Shown {
        Shown {
            session: session.to_owned(),
            framing,
            encoded: Vec::new(),
            open_tools: BTreeSet::new(),
            echo: Echo::default(),
            later: BTreeSet::new(),
            waiting: BTreeMap::new(),
            own: Vec::new(),
            is_live: false,
        }
    }

    /// For a client that was there and lags behind: what it would have been sent.
    /// The events `own` tell of its own prompts.
    pub fn live(session: &str, framing: Framing, own: Vec<i64>) -> Shown {
        Shown {
            own,
            is_live: true,
            ..Shown::new(session, framing)
        }
    }

    /// Names the events of the client's own prompts anew. A replay is the same for all.
    pub fn set_own(&mut self, own: Vec<i64>) {
        if self.is_live {
            self.own = own;
        }
    }

    /// Names the prompts that are shown where their turn begins.
    pub fn show_later(&mut self, prompts: impl IntoIterator<Item = i64>) {
        self.later = prompts.into_iter().collect();
    }

    /// Whether a prompt's event has been fed that is to be shown later.
    pub fn knows_prompt(&self, seq: i64) -> bool {
        self.waiting.contains_key(&seq)
    }

    /// Adds framed messages that are none of the transcript's.
    pub fn append(&mut self, encoded: &[u8]) {
        self.encoded.extend_from_slice(encoded);
    }

    /// How much has come together since the last [`Shown::take`], in bytes.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
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
            Direction::Client if event.kind == methods::SESSION_PROMPT => {
                if self.later.contains(&event.seq) {
                    self.waiting.insert(event.seq, event.raw.into());
                } else if !self.is_live {
                    self.prompt(event.raw, &UpdateMeta::of(event.seq));
                }
            }
            Direction::Client => {}
            Direction::Acpbox if event.kind == methods::TURN_START => self.turn_start(event),
            Direction::Agent | Direction::Acpbox => {
                if ends_turn(event) {
                    self.echo = Echo::default();
                }
                if self.update(event) {
                    return;
                }
                if self.is_live {
                    self.other(event);
                } else if ends_tools(event) {
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
            "tool_call" | "tool_call_update" | "user_message_chunk" | methods::ECHO
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
            methods::ECHO => {
                self.echo.takes(update);
                if !(self.is_live && self.own.contains(&event.seq)) {
                    return true;
                }
            }
            _ if self.is_live => {}
            "tool_call" | "tool_call_update" => self.tool(update),
            "user_message_chunk" if self.echo.takes(update) => return true,
            _ => {}
        }
        let shown = with_meta(event.raw, "params", &UpdateMeta::of(event.seq));
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
                "_meta": {"acpbox": UpdateMeta::of(seq)},
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

    /// A notification of the agent's that is no update goes by as it came.
    fn other(&mut self, event: EventRef<'_>) {
        if event.direction != Direction::Agent || event.kind == methods::CANCEL_REQUEST {
            return;
        }
        let members = splice::members(event.raw).unwrap_or_default();
        let has = |key| splice::value(&members, key).is_some();
        if has("method") && !has("id") {
            self.framing.encode(&[event.raw], &mut self.encoded);
        }
    }

    fn turn_start(&mut self, event: EventRef<'_>) {
        let start = splice::member(event.raw, "params");
        let start: Option<TurnStart> = start.and_then(|raw| serde_json::from_str(raw).ok());
        let Some(start) = start else { return };
        let Some(prompt) = self.waiting.remove(&start.prompt_seq) else {
            return;
        };
        if !self.own.contains(&event.seq) {
            let meta = UpdateMeta {
                from: start.from,
                ..UpdateMeta::of(event.seq)
            };
            self.prompt(&prompt, &meta);
        }
    }

    fn prompt(&mut self, raw: &str, meta: &UpdateMeta) {
        self.echo = Echo::of(raw);
        for line in prompt_lines(&self.session, raw, meta) {
            self.framing.encode(&[&line], &mut self.encoded);
        }
    }
}

/// The updates by which a prompt, raw, is shown to those who did not send it.
pub fn prompt_lines(session: &str, raw: &str, meta: &UpdateMeta) -> Vec<String> {
    let meta = UpdateMeta {
        // What is on its way to an agent does not have it any more.
        key: key(raw).or_else(|| meta.key.clone()),
        ..meta.clone()
    };
    let meta = serde_json::to_string(&meta).unwrap_or_else(|_| "{}".into());
    let session = Value::from(session);
    let line = |block: &RawValue| {
        let params = format!(
            r#"{{"_meta":{{"acpbox":{meta}}},"sessionId":{session},"update":{{"sessionUpdate":"user_message_chunk","content":{}}}}}"#,
            block.get(),
        );
        message::notification(methods::SESSION_UPDATE, &params)
    };
    blocks(raw).into_iter().map(line).collect()
}

/// By which its sender knows a prompt.
fn key(raw: &str) -> Option<String> {
    let meta = splice::member(splice::member(raw, "params")?, "_meta")?;
    let key = splice::member(splice::member(meta, "acpbox")?, "idempotencyKey")?;
    message::string(key).map(Into::into)
}

pub(super) fn blocks(raw: &str) -> Vec<&RawValue> {
    let prompt = splice::member(raw, "params")
        .and_then(|params| splice::member(params, "prompt"))
        .unwrap_or("[]");
    serde_json::from_str(prompt).unwrap_or_default()
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

/// Whether what an agent says from here on is of no turn.
fn ends_turn(event: EventRef<'_>) -> bool {
    match event.kind {
        methods::TURN_END => true,
        "session/prompt:result" | "session/prompt:error" => event.direction == Direction::Agent,
        _ => false,
    }
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
