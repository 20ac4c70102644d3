//! What of a transcript can be searched: events become documents, each a piece
//! of text with the number of the event where it begins.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::content::{line, list, text};
use super::lenient;
use crate::acp::methods;
use crate::store::{Direction, Document, EventRow};

/// The kinds of documents, besides [`TITLE`](crate::store::TITLE).
pub const PROMPT: &str = "prompt";
pub const MESSAGE: &str = "message";
pub const THOUGHT: &str = "thought";
pub const TOOL: &str = "tool";

/// A document is cut at the next space behind so many bytes, and anywhere at
/// twice as many.
const DOCUMENT_BYTES: usize = 8 * 1024;

/// What of one event is searched: a pasted file is found by its beginning.
const EVENT_BYTES: usize = 128 * 1024;

/// Tool calls and paths remembered at most; agents reuse and invent ids.
const TOOLS_KEPT: usize = 1000;
const PATHS_KEPT: usize = 1000;

/// Makes documents of one session's events, which are fed in order. Chunks of a
/// message are joined, so that a word that was sent in pieces is whole.
#[derive(Default)]
pub struct Documents {
    /// What is being said, by each voice that may go on.
    runs: Vec<Run>,
    tools: HashMap<String, Tool>,
    /// This turn's prompt, which some agents repeat.
    prompt: String,
    done: Vec<Document>,
    fed: i64,
}

struct Run {
    kind: &'static str,
    message: Option<String>,
    seq: i64,
    time: i64,
    text: String,
}

/// What of a tool call is in documents already.
#[derive(Default)]
struct Tool {
    title: String,
    paths: HashSet<String>,
}

impl Documents {
    /// Begins where the events up to `settled` are in documents.
    pub fn after(settled: i64) -> Documents {
        Documents {
            fed: settled,
            ..Documents::default()
        }
    }

    pub fn feed(&mut self, event: &EventRow) {
        // Most events say nothing: those are not even parsed.
        let is_prompt =
            event.kind == methods::SESSION_PROMPT && event.direction == Direction::Client;
        match event.kind.as_ref() {
            "agent_message_chunk" | "compaction_summary_chunk" => self.chunk(event, MESSAGE),
            "agent_thought_chunk" => self.chunk(event, THOUGHT),
            "user_message_chunk" => self.chunk(event, PROMPT),
            "tool_call" | "tool_call_update" => self.tool(event),
            "session/prompt:result" | "session/prompt:error" | methods::TURN_END => self.end_turn(),
            _ if is_prompt => self.prompt(event),
            _ => {}
        }
        self.fed = event.seq;
    }

    /// Takes the documents that are complete.
    pub fn take(&mut self) -> Vec<Document> {
        std::mem::take(&mut self.done)
    }

    /// The last event that has its part in complete documents only.
    pub fn settled(&self) -> i64 {
        let open = self.runs.iter().map(|run| run.seq - 1).min();
        open.unwrap_or(self.fed)
    }

    /// Completes what is being said, as if nothing came any more.
    pub fn finish(&mut self) -> Vec<Document> {
        self.close();
        self.take()
    }

    fn prompt(&mut self, event: &EventRow) {
        self.end_turn();
        let message = lenient::read(&event.raw).unwrap_or_default();
        let blocks = message.pointer("/params/prompt");
        let said = words_of(blocks.unwrap_or(&Value::Null));
        self.prompt = beginning(&said).trim().to_owned();
        self.add(PROMPT, event.seq, event.time, &said);
    }

    fn chunk(&mut self, event: &EventRow, kind: &'static str) {
        let message = lenient::read(&event.raw).unwrap_or_default();
        let update = message.pointer("/params/update").unwrap_or(&Value::Null);
        let said = words_of(update.get("content").unwrap_or(&Value::Null));
        let said = beginning(&said);
        if said.is_empty() {
            return;
        }
        let message = update.get("messageId").and_then(Value::as_str);
        if self.run_ends(kind, message, said) {
            self.close();
        }
        let at = match self.runs.iter().position(|run| run.kind == kind) {
            Some(at) => at,
            None => {
                self.runs.push(Run {
                    kind,
                    message: None,
                    seq: event.seq,
                    time: event.time,
                    text: String::new(),
                });
                self.runs.len() - 1
            }
        };
        let run = &mut self.runs[at];
        run.message = message.map(str::to_owned).or_else(|| run.message.take());
        run.text.push_str(said);
        if run.text.len() >= 2 * DOCUMENT_BYTES {
            self.close();
        }
    }

    /// Whether the next chunk of this voice begins a new document.
    fn run_ends(&self, kind: &str, message: Option<&str>, said: &str) -> bool {
        let Some(run) = self.runs.iter().find(|run| run.kind == kind) else {
            return false;
        };
        let is_other =
            message.is_some() && run.message.is_some() && run.message.as_deref() != message;
        let is_at_space =
            run.text.ends_with(char::is_whitespace) || said.starts_with(char::is_whitespace);
        is_other || (is_at_space && run.text.len() + said.len() > DOCUMENT_BYTES)
    }

    /// A tool call is found by its title and its paths, each as it comes.
    fn tool(&mut self, event: &EventRow) {
        let message = lenient::read(&event.raw).unwrap_or_default();
        let update = message.pointer("/params/update").unwrap_or(&Value::Null);
        if self.tools.len() >= TOOLS_KEPT {
            self.tools.clear();
        }
        let tool = self.tools.entry(line(update, "toolCallId")).or_default();
        let mut new = Vec::new();
        let title = line(update, "title");
        if !title.is_empty() && title != tool.title {
            new.push(title.clone());
            tool.title = title;
        }
        let locations = list(update, "locations").iter();
        let diffs = list(update, "content").iter();
        let diffs = diffs.filter(|content| text(content, "type") == "diff");
        for path in locations.chain(diffs).map(|part| line(part, "path")) {
            let is_known = path.is_empty() || tool.paths.contains(&path);
            if !is_known && tool.paths.len() < PATHS_KEPT {
                new.push(path.clone());
                tool.paths.insert(path);
            }
        }
        // Whoever spoke before the call has ended.
        if event.kind == "tool_call" || !new.is_empty() {
            self.close();
        }
        self.add(TOOL, event.seq, event.time, &new.join("\n"));
    }

    fn end_turn(&mut self) {
        self.close();
        self.tools.clear();
        self.prompt.clear();
    }

    /// Completes all that is being said, so that documents are in order.
    fn close(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.sort_by_key(|run| run.seq);
        for run in runs {
            let is_repeated = run.kind == PROMPT && run.text.trim() == self.prompt;
            if !is_repeated {
                self.add(run.kind, run.seq, run.time, &run.text);
            }
        }
    }

    fn add(&mut self, kind: &'static str, seq: i64, time: i64, text: &str) {
        let mut rest = text.trim();
        if rest.len() > EVENT_BYTES {
            rest = beginning(rest);
        }
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_end(rest));
            self.done.push(Document {
                seq,
                time,
                kind: kind.into(),
                text: piece.trim_end().to_owned(),
            });
            rest = after.trim_start();
        }
    }
}

/// What people would look for in content blocks: text, and the names of files.
fn words_of(content: &Value) -> String {
    let blocks = match content {
        Value::Array(blocks) => blocks.as_slice(),
        block => std::slice::from_ref(block),
    };
    let mut words = String::new();
    for block in blocks {
        let resource = block.get("resource").unwrap_or(&Value::Null);
        let parts = match text(block, "type") {
            "text" => vec![text(block, "text")],
            "resource_link" => vec![
                text(block, "title"),
                text(block, "name"),
                text(block, "uri"),
            ],
            "resource" => vec![text(resource, "uri")],
            _ => Vec::new(),
        };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            // Blocks of one message stand apart; a chunk has only one.
            if !words.is_empty() {
                words.push('\n');
            }
            words.push_str(part);
        }
    }
    words
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(EVENT_BYTES)]
}

/// Where a document is cut off from a long text.
fn piece_end(text: &str) -> usize {
    if text.len() <= 2 * DOCUMENT_BYTES {
        return text.len();
    }
    let from = text.floor_char_boundary(DOCUMENT_BYTES);
    let to = text.floor_char_boundary(2 * DOCUMENT_BYTES);
    let space = text[from..to].find(char::is_whitespace);
    space.map_or(to, |space| from + space)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(seq: i64, kind: &'static str, message: Value) -> EventRow {
        EventRow {
            session: "s".into(),
            seq,
            time: seq * 10,
            direction: if kind == methods::SESSION_PROMPT {
                Direction::Client
            } else {
                Direction::Agent
            },
            kind: kind.into(),
            raw: message.to_string().into(),
        }
    }

    fn chunk(seq: i64, kind: &'static str, text: &str) -> EventRow {
        let update = json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}});
        event(seq, kind, json!({"params": {"update": update}}))
    }

    fn tool(seq: i64, kind: &'static str, update: Value) -> EventRow {
        event(seq, kind, json!({"params": {"update": update}}))
    }

    fn prompt(seq: i64, text: &str) -> EventRow {
        let blocks = json!([{"type": "text", "text": text},
            {"type": "resource_link", "name": "main.rs", "uri": "file:///src/main.rs"}]);
        event(seq, "session/prompt", json!({"params": {"prompt": blocks}}))
    }

    #[track_caller]
    fn check(events: &[EventRow], expected: &[(i64, &str, &str)]) {
        // All at once, and in two parts with a border anywhere.
        for border in 0..=events.len() {
            let mut documents = Documents::after(0);
            let (first, rest) = events.split_at(border);
            first.iter().for_each(|event| documents.feed(event));
            let mut found = documents.take();
            let settled = documents.settled();
            // Whoever goes on later begins behind what is settled.
            if border > 0 && documents.tools.is_empty() && documents.prompt.is_empty() {
                documents = Documents::after(settled);
                let again = first.iter().filter(|event| event.seq > settled);
                again.for_each(|event| documents.feed(event));
            }
            rest.iter().for_each(|event| documents.feed(event));
            found.extend(documents.finish());
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.seq, it.kind.as_ref(), it.text.as_str()))
                .collect();
            assert_eq!(found, expected, "border {border}");
        }
    }

    #[test]
    fn chunks_are_joined_until_something_else_happens() {
        check(
            &[
                prompt(1, "please look"),
                chunk(
                    2,
                    "user_message_chunk",
                    "please look\nmain.rs\nfile:///src/main.rs",
                ),
                chunk(3, "agent_thought_chunk", "hm"),
                chunk(4, "agent_message_chunk", "con"),
                chunk(5, "agent_thought_chunk", "m"),
                event(6, "usage_update", json!({})),
                chunk(7, "agent_message_chunk", "tinues "),
                tool(8, "tool_call", json!({"toolCallId": "a"})),
                chunk(9, "agent_message_chunk", "after"),
                event(10, "session/prompt:result", json!({})),
                chunk(11, "agent_message_chunk", "late"),
            ],
            &[
                (1, "prompt", "please look\nmain.rs\nfile:///src/main.rs"),
                (3, "thought", "hmm"),
                (4, "message", "continues"),
                (9, "message", "after"),
                (11, "message", "late"),
            ],
        );
    }

    #[test]
    fn a_tool_call_is_told_by_what_is_new_of_it() {
        let (call, update) = ("tool_call", "tool_call_update");
        let places = json!([{"path": "/w/a.rs"}, {"path": "/w/b.rs"}]);
        let diff = json!([{"type": "diff", "path": "/w/c.rs", "newText": "text"}]);
        check(
            &[
                tool(
                    1,
                    call,
                    json!({"toolCallId": "a", "title": "Read", "locations": places}),
                ),
                tool(
                    2,
                    update,
                    json!({"toolCallId": "a", "title": "Read", "status": "completed"}),
                ),
                tool(
                    3,
                    update,
                    json!({"toolCallId": "a", "title": "Read a.rs", "content": diff}),
                ),
                tool(
                    4,
                    update,
                    json!({"toolCallId": "a", "content": diff, "locations": places}),
                ),
            ],
            &[
                (1, "tool", "Read\n/w/a.rs\n/w/b.rs"),
                (3, "tool", "Read a.rs\n/w/c.rs"),
            ],
        );
    }

    #[test]
    fn long_texts_are_cut_between_words() {
        let mut documents = Documents::after(0);
        documents.feed(&prompt(1, &"word ".repeat(10_000)));
        for seq in 2..10_000 {
            documents.feed(&chunk(
                seq,
                "agent_message_chunk",
                if seq % 2 == 0 { " spl" } else { "it" },
            ));
        }
        let settled = documents.settled();
        assert!(settled > 8_000 && settled % 2 == 1, "{settled}");
        documents.feed(&chunk(10_000, "agent_thought_chunk", &"x".repeat(300_000)));
        let found = documents.finish();
        assert!(found.iter().all(|it| it.text.len() <= 2 * DOCUMENT_BYTES));
        assert!(found.is_sorted_by_key(|it| it.seq));
        let words = |kind: &str| -> HashSet<&str> {
            let texts = found.iter().filter(|it| it.kind == kind);
            texts.flat_map(|it| it.text.split_whitespace()).collect()
        };
        assert_eq!(
            words("prompt"),
            HashSet::from(["word", "main.rs", "file:///src/main.rs"])
        );
        assert_eq!(words("message"), HashSet::from(["split"]));
        let thought = found.iter().filter(|it| it.kind == "thought");
        assert_eq!(thought.map(|it| it.text.len()).sum::<usize>(), EVENT_BYTES);
    }

    #[test]
    fn odd_events_make_no_documents() {
        for kind in [
            "agent_message_chunk",
            "tool_call",
            "tool_call_update",
            "session/prompt",
        ] {
            for message in [
                json!(null),
                json!([]),
                json!({"params": {"update": 1, "prompt": 7}}),
            ] {
                check(&[event(1, kind, message)], &[]);
            }
        }
        let mut documents = Documents::after(0);
        documents.feed(&EventRow {
            raw: "no JSON".into(),
            ..event(1, "tool_call", json!(null))
        });
        assert_eq!(documents.finish(), []);
    }
}
