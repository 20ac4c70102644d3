//! Events become items: responses find their requests, updates their tool
//! calls, and usage waits for the end of its turn.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::store::{Direction, EventRow};

use super::content::{self, brief, line, list, text};
use super::item::{Answer, Block, Item, Permission, Place, Placed, Tool, Voice};
use super::queued::{Prompt, Queued};
use super::{lenient, notes};

/// Items held back at most, for one that never settles.
const HELD_ITEMS: usize = 1000;

/// The same, in bytes of messages that came while something was held.
const HELD_BYTES: usize = 32 * 1024 * 1024;

/// Tool calls remembered at most; agents reuse and invent ids.
const TOOLS_KEPT: usize = 10_000;

#[derive(Clone)]
pub(super) struct Timeline {
    /// Items at once, a tool call each time that its status changes. Otherwise
    /// a tool call or permission comes once, in its place, as it ended.
    live: bool,
    tools: HashMap<String, Tool>,
    /// In order; nothing leaves before what stands ahead has settled.
    held: VecDeque<(Place, Slot)>,
    /// Bytes of messages since nothing was held.
    held_bytes: usize,
    /// The event at hand.
    now: Place,
    /// Requests without an answer, oldest first.
    permissions: VecDeque<(Value, Value)>,
    usage: Option<String>,
    queued: Queued,
    /// Whether it was said that something came too late for its turn.
    late_said: bool,
}

#[derive(Clone)]
enum Slot {
    Ready(Item),
    /// Until its status is final.
    Tool(String),
    /// Until the request of this id is answered.
    Permission(Value, Permission),
}

impl Timeline {
    pub(super) fn new(live: bool) -> Timeline {
        Timeline {
            live,
            tools: HashMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            now: Place::default(),
            permissions: VecDeque::new(),
            usage: None,
            queued: Queued::default(),
            late_said: false,
        }
    }

    /// Takes the next event and gives what can be shown now.
    pub(super) fn feed(&mut self, event: &EventRow) -> Vec<Item> {
        items(self.feed_placed(event))
    }

    /// The same, with where each item belongs: numbers never go down.
    pub(super) fn feed_placed(&mut self, event: &EventRow) -> Vec<Placed> {
        self.now = Place {
            seq: event.seq,
            time: event.time,
        };
        self.held_bytes = match self.held.is_empty() {
            true => 0,
            false => self.held_bytes + event.raw.len(),
        };
        if crate::acp::methods::is_late(&event.kind) {
            if !std::mem::replace(&mut self.late_said, true) {
                let what = "the agent went on after its turn had ended; that is left out here";
                self.push(Item::Note(what.to_owned()));
            }
            return self.settled(false);
        }
        match lenient::read(&event.raw) {
            // The prompt is shown already.
            Some(_) if event.kind == crate::acp::methods::ECHO => {}
            Some(message) => self.message(event, &message),
            None => {
                let kind = super::printable_line(&event.kind);
                let size = content::bytes(event.raw.len() as u64);
                self.push(Item::Note(format!(
                    "{kind}: a message of {size} that is not JSON"
                )));
            }
        }
        self.settled(self.held_bytes > HELD_BYTES)
    }

    /// Gives what is still held.
    pub(super) fn finish(&mut self) -> Vec<Item> {
        items(self.finish_placed())
    }

    /// What the turn used until now is not told.
    pub(super) fn forget_usage(&mut self) {
        self.usage = None;
    }

    pub(super) fn finish_placed(&mut self) -> Vec<Placed> {
        self.end_turn();
        for prompt in self.queued.rest() {
            self.held
                .push_back((self.now, Slot::Ready(Item::Prompt(prompt.blocks))));
        }
        self.settled(true)
    }

    fn message(&mut self, event: &EventRow, message: &Value) {
        let params = message.get("params").unwrap_or(&Value::Null);
        match message.get("method").and_then(Value::as_str) {
            Some("session/update") => self.update(params.get("update").unwrap_or(&Value::Null)),
            Some("session/prompt") => {
                let id = message.get("id").cloned().unwrap_or_default();
                let blocks = content::blocks(params.get("prompt"));
                let begun = self.queued.add(event.seq, id, blocks);
                self.begin(begun);
            }
            Some("_acpbox/turn/start") => {
                let seq = params.get("promptSeq").and_then(Value::as_i64);
                let begun = seq.and_then(|seq| self.queued.start(seq));
                self.begin(begun);
            }
            Some("session/request_permission") => self.permission(message, params),
            Some(method) => {
                if method == "_acpbox/turn/end" {
                    self.end_turn();
                    self.queued.end();
                }
                if let Some(item) = notes::of_call(method, params) {
                    self.push(item);
                }
            }
            None => self.response(event, message),
        }
    }

    /// The turn of a prompt begins.
    fn begin(&mut self, prompt: Option<Prompt>) {
        let Some(prompt) = prompt else { return };
        self.end_turn();
        self.tools.clear();
        self.late_said = false;
        self.push(Item::Prompt(prompt.blocks));
    }

    fn response(&mut self, event: &EventRow, message: &Value) {
        let kind = super::printable_line(&event.kind);
        let method = kind
            .rsplit_once(':')
            .map_or(kind.as_str(), |(method, _)| method);
        let result = message.get("result").unwrap_or(&Value::Null);
        let failure = message.get("error").filter(|error| !error.is_null());
        if method == "session/prompt" {
            let id = message.get("id").unwrap_or(&Value::Null);
            if let Some(prompt) = self.queued.answered(id) {
                // Another's turn goes on.
                self.push(Item::Prompt(prompt.blocks));
                self.push(match failure {
                    Some(error) => notes::of_error(method, error),
                    None => Item::TurnEnd {
                        reason: line(result, "stopReason"),
                    },
                });
                return;
            }
            self.queued.end();
        }
        match (method, failure) {
            ("session/request_permission", _) => self.permission_answer(message, result, failure),
            ("session/prompt", None) => {
                if let Some(usage) = result.get("usage").and_then(content::turn_usage) {
                    self.usage = Some(match self.usage.take() {
                        Some(context) => format!("{usage}; {context}"),
                        None => usage,
                    });
                }
                self.end_turn();
                self.push(Item::TurnEnd {
                    reason: line(result, "stopReason"),
                });
            }
            (_, Some(error)) => {
                self.end_turn_of(method);
                // The client refusing what the agent asked is the agent's affair.
                let side = if event.direction == Direction::Client {
                    "the client refused "
                } else {
                    ""
                };
                self.push(notes::of_error(&format!("{side}{method}"), error));
            }
            _ => {
                if let Some(note) = notes::of_result(method, result) {
                    self.push(Item::Note(note));
                }
            }
        }
    }

    fn update(&mut self, update: &Value) {
        let begun = self.queued.start_untold();
        self.begin(begun);
        let chunk = |voice| {
            let message = update.get("messageId").map(brief);
            let blocks = content::blocks(update.get("content")).into_iter();
            blocks
                .map(move |block| Item::Chunk {
                    voice,
                    message: message.clone(),
                    block,
                })
                .collect::<Vec<_>>()
        };
        let items = match text(update, "sessionUpdate") {
            "user_message_chunk" => chunk(Voice::User),
            "agent_message_chunk" => chunk(Voice::Agent),
            "agent_thought_chunk" => chunk(Voice::Thought),
            "compaction_summary_chunk" => chunk(Voice::Summary),
            "tool_call" | "tool_call_update" => return self.tool(update),
            "plan" => vec![Item::Plan(content::plan(list(update, "entries")))],
            "plan_update" => vec![plan_update(update.get("plan").unwrap_or(&Value::Null))],
            "usage_update" => {
                // Agents send many; the last one of a turn is shown.
                self.usage = Some(content::usage_update(update));
                return;
            }
            kind => notes::of_update(kind, update).into_iter().collect(),
        };
        for item in items {
            self.push(item);
        }
    }

    fn tool(&mut self, update: &Value) {
        let id = line(update, "toolCallId");
        if self.tools.len() >= TOOLS_KEPT {
            self.tools.clear();
        }
        let before = self.tools.get(&id).map(|tool| tool.status);
        let tool = self.tools.entry(id.clone()).or_insert_with(|| Tool {
            id: id.clone(),
            ..Tool::default()
        });
        content::update_tool(tool, update);
        tool.changed = self.now;
        let changed = before != Some(tool.status);
        if self.live {
            if changed {
                let tool = released(tool);
                self.push(Item::Tool(tool));
            }
        } else if changed && !self.is_held(&id) {
            // Anew if it changes after it was given: its first place is gone.
            self.held.push_back((self.now, Slot::Tool(id)));
        }
    }

    fn is_held(&self, tool: &str) -> bool {
        let mut held = self.held.iter();
        held.any(|(_, slot)| matches!(slot, Slot::Tool(id) if id == tool))
    }

    fn permission(&mut self, message: &Value, params: &Value) {
        let id = message.get("id").cloned().unwrap_or_default();
        let tool = self.tools.get(&line(&params["toolCall"], "toolCallId"));
        let permission = content::permission(params, tool.map(|tool| tool.title.as_str()));
        self.permissions.push_back((id.clone(), params.clone()));
        if self.permissions.len() > HELD_ITEMS {
            self.permissions.pop_front();
        }
        if self.live {
            self.push(Item::Permission(permission));
        } else {
            self.held
                .push_back((self.now, Slot::Permission(id, permission)));
        }
    }

    fn permission_answer(&mut self, message: &Value, result: &Value, failure: Option<&Value>) {
        // Ids may have been remapped on the way: then the oldest is meant.
        let id = message.get("id").unwrap_or(&Value::Null);
        let at = self
            .permissions
            .iter()
            .position(|(asked, _)| asked == id)
            .unwrap_or(0);
        let Some((id, params)) = self.permissions.remove(at) else {
            return;
        };
        let answer = match failure {
            Some(error) => Answer {
                text: line(error, "message"),
                is_allowed: false,
            },
            None => content::permission_answer(result, &params),
        };
        if self.live {
            let permission = content::permission(&params, None);
            return self.push(Item::Permission(Permission {
                answer: Some(answer),
                ..permission
            }));
        }
        for (_, slot) in &mut self.held {
            if let Slot::Permission(asked, permission) = slot
                && *asked == id
                && permission.answer.is_none()
            {
                permission.answer = Some(answer);
                return;
            }
        }
    }

    fn end_turn_of(&mut self, method: &str) {
        if method == "session/prompt" {
            self.end_turn();
        }
    }

    /// Nothing of this turn changes any more.
    fn end_turn(&mut self) {
        let held = std::mem::take(&mut self.held);
        for (place, slot) in held {
            let item = self.as_it_is(slot);
            self.held
                .extend(item.map(|item| (place, Slot::Ready(item))));
        }
        if let Some(usage) = self.usage.take() {
            self.push(Item::Usage(usage));
        }
    }

    fn push(&mut self, item: Item) {
        self.held.push_back((self.now, Slot::Ready(item)));
    }

    /// Takes from the front what will not change any more, or everything.
    fn settled(&mut self, all: bool) -> Vec<Placed> {
        let mut items = Vec::new();
        while let Some((_, front)) = self.held.front() {
            let is_settled = match front {
                Slot::Ready(_) => true,
                Slot::Tool(id) => self.tools.get(id).is_none_or(|tool| tool.status.is_final()),
                Slot::Permission(_, permission) => permission.answer.is_some(),
            };
            if !is_settled && !all && self.held.len() <= HELD_ITEMS {
                break;
            }
            let Some((place, slot)) = self.held.pop_front() else {
                break;
            };
            items.extend(self.as_it_is(slot).map(|item| Placed { place, item }));
        }
        items
    }

    fn as_it_is(&mut self, slot: Slot) -> Option<Item> {
        match slot {
            Slot::Ready(item) => Some(item),
            Slot::Tool(id) => self.tools.get_mut(&id).map(released).map(Item::Tool),
            Slot::Permission(_, permission) => Some(Item::Permission(permission)),
        }
    }
}

/// A tool call as it is now. One that has ended leaves its content: a long turn
/// has thousands of them.
fn released(tool: &mut Tool) -> Tool {
    let content = match tool.status.is_final() {
        true => std::mem::take(&mut tool.content),
        false => tool.content.clone(),
    };
    Tool {
        content,
        id: tool.id.clone(),
        title: tool.title.clone(),
        kind: tool.kind.clone(),
        ..*tool
    }
}

fn items(placed: Vec<Placed>) -> Vec<Item> {
    placed.into_iter().map(|placed| placed.item).collect()
}

/// A plan by its id: entries, a file or Markdown.
fn plan_update(plan: &Value) -> Item {
    match text(plan, "type") {
        "markdown" => Item::Chunk {
            voice: Voice::Plan,
            message: plan.get("planId").map(brief),
            block: Block::Text(text(plan, "content").to_owned()),
        },
        "file" => Item::Note(format!("plan: {}", line(plan, "uri"))),
        _ => Item::Plan(content::plan(list(plan, "entries"))),
    }
}
