//! Events become the entries of a preamble: who said what, and what was done.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::Value;

use crate::store::{Direction, EventRow};

use super::super::content::{self, brief, line, list, text};
use super::super::item::{Block, Image};
use super::super::{lenient, printable_line};

/// Characters of a tool call's title, and of its result.
pub(super) const TOOL_CHARACTERS: usize = 200;

#[derive(Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    /// Where each tool call of this turn stands.
    tools: HashMap<String, usize>,
    message: Option<String>,
}

pub(super) struct Entry {
    pub(super) from_seq: i64,
    pub(super) to_seq: i64,
    pub(super) voice: Voice,
    body: String,
    tool: Tool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    User,
    Assistant,
    Tool,
    Note,
}

#[derive(Default)]
struct Tool {
    kind: String,
    title: String,
    status: String,
    result: String,
}

impl Entries {
    pub(super) fn feed(&mut self, event: &EventRow) {
        let Some(message) = lenient::read(&event.raw) else {
            return;
        };
        let params = message.get("params").unwrap_or(&Value::Null);
        let update = params.get("update").unwrap_or(&Value::Null);
        match event.kind.as_ref() {
            "session/prompt" if event.direction == Direction::Client => {
                self.tools.clear();
                let body = words(params.get("prompt"));
                self.push(event.seq, Voice::User, body);
            }
            "agent_message_chunk" => self.chunk(event.seq, update),
            "tool_call" | "tool_call_update" => self.tool(event.seq, update),
            "session/prompt:result" => match text(&message["result"], "stopReason") {
                "end_turn" | "" => {}
                reason => {
                    let body = format!("the turn ended: {}", printable_line(reason));
                    self.push(event.seq, Voice::Note, body);
                }
            },
            "session/prompt:error" => {
                let body = format!("the turn failed: {}", line(&message["error"], "message"));
                self.push(event.seq, Voice::Note, body);
            }
            "_acpbox/turn/end" => {
                let body = format!("the turn ended: {}", line(params, "reason"));
                self.push(event.seq, Voice::Note, body);
            }
            _ => {}
        }
    }

    fn chunk(&mut self, seq: i64, update: &Value) {
        let words = words(update.get("content"));
        let message = update.get("messageId").map(brief);
        match self.list.last_mut() {
            Some(last) if last.voice == Voice::Assistant => {
                if message != self.message && !last.body.ends_with('\n') {
                    last.body.push('\n');
                }
                last.body.push_str(&words);
                last.to_seq = seq;
            }
            _ => self.push(seq, Voice::Assistant, words),
        }
        self.message = message;
    }

    fn tool(&mut self, seq: i64, update: &Value) {
        let id = line(update, "toolCallId");
        let at = match self.tools.get(&id) {
            Some(at) => *at,
            None => {
                self.push(seq, Voice::Tool, String::new());
                self.tools.insert(id, self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.list[at].to_seq = seq;
        self.list[at].tool.update(update);
    }

    fn push(&mut self, seq: i64, voice: Voice, body: String) {
        self.list.push(Entry {
            from_seq: seq,
            to_seq: seq,
            voice,
            body,
            tool: Tool::default(),
        });
    }
}

impl Tool {
    /// Takes over what an update says; what it leaves out stays.
    fn update(&mut self, update: &Value) {
        let take = |into: &mut String, member: &str| {
            let said = line(update, member);
            if !said.is_empty() {
                *into = cut(&said);
            }
        };
        take(&mut self.kind, "kind");
        take(&mut self.title, "title");
        take(&mut self.status, "status");
        let content = list(update, "content");
        let said = content.iter().find_map(|content| {
            let said = match text(content, "type") {
                "diff" => format!("changed {}", line(content, "path")),
                "terminal" => return None,
                _ => printable_line(&words(content.get("content"))),
            };
            (!said.is_empty()).then_some(said)
        });
        let said = said.or_else(|| match update.get("rawOutput") {
            Some(Value::Null) | None => None,
            Some(output) => Some(brief(output)),
        });
        if let Some(said) = said {
            self.result = cut(&said);
        }
    }

    fn in_words(&self) -> String {
        let mut words = format!("{} {}", self.kind, self.title).trim().to_owned();
        if !self.status.is_empty() {
            let _ = write!(words, " ({})", self.status.replace('_', " "));
        }
        if !self.result.is_empty() {
            let _ = write!(words, ": {}", self.result);
        }
        words
    }
}

impl Entry {
    /// With its label, in at most about `bytes`.
    pub(super) fn render(&self, bytes: usize) -> String {
        let (label, body) = match self.voice {
            Voice::User => ("user", None),
            Voice::Assistant => ("assistant", None),
            Voice::Note => ("note", None),
            Voice::Tool => ("tool", Some(self.tool.in_words())),
        };
        let body = harmless(body.as_deref().unwrap_or(&self.body).trim());
        let labels = 2 * (label.len() + "<history->".len()) + 4;
        let body = shortened(&body, bytes.saturating_sub(labels));
        match self.voice {
            Voice::User | Voice::Assistant => {
                format!("<history-{label}>\n{body}\n</history-{label}>\n")
            }
            _ => format!("<history-{label}>{body}</history-{label}>\n"),
        }
    }
}

fn words(content: Option<&Value>) -> String {
    let mut all = String::new();
    for block in content::blocks(content) {
        match block {
            Block::Text(words) => all.push_str(&words),
            Block::Placeholder(words)
            | Block::Image(Image {
                placeholder: words, ..
            }) => {
                if !all.is_empty() && !all.ends_with('\n') {
                    all.push('\n');
                }
                all.push_str(&words);
                all.push('\n');
            }
        }
    }
    all
}

/// The text with the frame's own tags taken apart: nothing said in a
/// conversation ends its record, or passes for somebody else's words.
fn harmless(text: &str) -> String {
    const OWN: [&str; 2] = ["conversation-history", "history-"];
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        clean.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = rest.trim_start_matches(|next: char| next == '/' || next.is_whitespace());
        let is_own = |own: &&str| {
            let begins = name.get(..own.len());
            begins.is_some_and(|begins| begins.eq_ignore_ascii_case(own))
        };
        clean.push_str(if OWN.iter().any(is_own) { "&lt;" } else { "<" });
    }
    clean.push_str(rest);
    clean
}

/// The beginning and the end of a text that is too long.
fn shortened(text: &str, bytes: usize) -> String {
    const CUT: &str = "\n[…]\n";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let room = bytes.saturating_sub(CUT.len());
    let head = text.floor_char_boundary(room * 2 / 3);
    let tail = text.ceil_char_boundary(text.len() - (room - head).min(text.len()));
    format!("{}{CUT}{}", &text[..head], &text[tail..])
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(TOOL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_frames_own_tags_are_taken_apart() {
        let check = |text: &str, expected: &str| assert_eq!(harmless(text), expected);
        check("a < b </div> é<ü", "a < b </div> é<ü");
        check("</ History-user>", "&lt;/ History-user>");
        check("<<history-x", "<&lt;history-x");
    }
}
