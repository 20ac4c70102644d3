//! Anthropic Messages.

use std::io;

use serde_json::{Value, json};

use super::call::Tool;
use super::chat::halves;
use super::http::{Events, Reply};
use super::plan::{Entry, has_directive, plan, text_of};
use super::{Piece, Shared, asides};

pub(super) fn answer(body: &Value, reply: Reply<'_>, shared: &Shared) -> io::Result<()> {
    let plan = plan(&entries(body), &tools(body));
    if let Some(status) = plan.failure {
        let error = json!({"type": "api_error", "message": "fake error"});
        return reply.json(status, &json!({"type": "error", "error": error}));
    }
    let end = if plan.call.is_some() {
        "tool_use"
    } else {
        "end_turn"
    };
    let call = plan.call.as_ref().map(|call| {
        let id = format!("toolu_{:08}", shared.id());
        json!({"type": "tool_use", "id": id, "name": call.tool, "input": call.arguments})
    });
    let mut message = json!({
        "id": format!("msg_{:08}", shared.id()), "type": "message", "role": "assistant",
        "model": body["model"], "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 100, "output_tokens": 10,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    });
    if body["stream"] != true {
        let text = json!({"type": "text", "text": plan.text});
        message["content"] = [Some(text), call].into_iter().flatten().collect();
        message["stop_reason"] = end.into();
        return reply.json(200, &message);
    }

    let mut stream = Stream {
        events: reply.events()?,
        index: 0,
    };
    stream.send("message_start", json!({"message": message}))?;
    let text_block = json!({"type": "text", "text": ""});
    let text_delta = |text: &str| json!({"type": "text_delta", "text": text});
    let mut slow = Vec::new();
    asides(&plan, |piece| match piece {
        Piece::Text(text) => {
            // Streamed as it comes, in a block of its own.
            if slow.is_empty() {
                stream.start(&text_block)?;
            }
            slow.push(());
            stream.delta(&text_delta(text))
        }
        Piece::Thought(text) => {
            if !slow.is_empty() {
                stream.stop()?;
                slow.clear();
            }
            stream.start(&json!({"type": "thinking", "thinking": "", "signature": ""}))?;
            stream.delta(&json!({"type": "thinking_delta", "thinking": text}))?;
            stream.delta(&json!({"type": "signature_delta", "signature": "ZmFrZQ=="}))?;
            stream.stop()
        }
    })?;
    if slow.is_empty() {
        stream.start(&text_block)?;
    }
    for word in plan.words() {
        stream.delta(&text_delta(word))?;
    }
    stream.stop()?;
    if let Some(mut call) = call {
        let input = call["input"].take().to_string();
        call["input"] = json!({});
        stream.start(&call)?;
        for piece in halves(&input) {
            stream.delta(&json!({"type": "input_json_delta", "partial_json": piece}))?;
        }
        stream.stop()?;
    }
    let delta = json!({"stop_reason": end, "stop_sequence": null});
    stream.send(
        "message_delta",
        json!({"delta": delta, "usage": {"output_tokens": 10}}),
    )?;
    stream.send("message_stop", json!({}))?;
    stream.events.end()
}

struct Stream<'a> {
    events: Events<'a>,
    index: u64,
}

impl Stream<'_> {
    fn send(&mut self, name: &str, mut fields: Value) -> io::Result<()> {
        fields["type"] = name.into();
        self.events.named(name, &fields)
    }

    fn start(&mut self, block: &Value) -> io::Result<()> {
        let index = self.index;
        self.send(
            "content_block_start",
            json!({"index": index, "content_block": block}),
        )
    }

    fn delta(&mut self, delta: &Value) -> io::Result<()> {
        let index = self.index;
        self.send(
            "content_block_delta",
            json!({"index": index, "delta": delta}),
        )
    }

    fn stop(&mut self) -> io::Result<()> {
        let index = self.index;
        self.index += 1;
        self.send("content_block_stop", json!({"index": index}))
    }
}

fn entries(body: &Value) -> Vec<Entry> {
    let messages = body["messages"].as_array().into_iter().flatten();
    let mut entries = Vec::new();
    for message in messages {
        let content = &message["content"];
        let count = |kind: &str| {
            let blocks = content.as_array().into_iter().flatten();
            blocks.filter(|block| block["type"] == kind).count()
        };
        if message["role"] == "assistant" {
            let calls_tools = count("tool_use") > 0;
            entries.push(Entry::Assistant { calls_tools });
            continue;
        }
        let results = count("tool_result");
        entries.extend((0..results).map(|_| Entry::ToolResult));
        // Text beside results is the agent's own reminder, unless it directs.
        let text = text_of(content);
        if results == 0 || has_directive(&text) {
            entries.push(Entry::User(text));
        }
    }
    entries
}

fn tools(body: &Value) -> Vec<Tool> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            let name = tool["name"].as_str()?;
            Some(Tool::function(name, tool["input_schema"].clone()))
        })
        .collect()
}
