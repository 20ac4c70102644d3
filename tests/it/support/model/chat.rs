//! OpenAI chat/completions.

use std::io;

use serde_json::{Value, json};

use super::call::Tool;
use super::http::Reply;
use super::plan::{Entry, plan, text_of};
use super::{Piece, Shared, asides};

pub(super) fn answer(body: &Value, reply: Reply<'_>, shared: &Shared) -> io::Result<()> {
    let plan = plan(&entries(body), &tools(body));
    if let Some(status) = plan.failure {
        let error = json!({"error": {"message": "fake error", "type": "server_error"}});
        return reply.json(status, &error);
    }
    let id = format!("chatcmpl-{}", shared.id());
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
    let model = &body["model"];
    let end = if plan.call.is_some() {
        "tool_calls"
    } else {
        "stop"
    };
    let call = plan.call.as_ref().map(|call| {
        let function = json!({"name": call.tool, "arguments": call.arguments.to_string()});
        json!({"id": format!("call_{:08}", shared.id()), "type": "function", "function": function})
    });

    if body["stream"] != true {
        let message = json!({"role": "assistant", "content": plan.text, "tool_calls": call.map(|call| [call])});
        let choice = json!({"index": 0, "message": message, "finish_reason": end});
        let answer = json!({"id": id, "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": usage});
        return reply.json(200, &answer);
    }

    let mut events = reply.events()?;
    let chunk = |choices: Value, usage: Option<&Value>| {
        let mut chunk = json!({"id": id, "object": "chat.completion.chunk", "created": 1,
            "model": model, "choices": choices});
        if let Some(usage) = usage {
            chunk["usage"] = usage.clone();
        }
        chunk
    };
    let delta = |delta: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        chunk(json!([choice]), None)
    };
    events.data(&delta(json!({"role": "assistant", "content": ""})))?;
    asides(&plan, |piece| {
        events.data(&delta(match piece {
            Piece::Text(text) => json!({"content": text}),
            Piece::Thought(text) => json!({"reasoning_content": text}),
        }))
    })?;
    for word in plan.words() {
        events.data(&delta(json!({"content": word})))?;
    }
    if let Some(mut call) = call {
        // The arguments come in two pieces after the name, as they do in life.
        let arguments = call["function"]["arguments"].take();
        let arguments = arguments.as_str().unwrap_or_default();
        call["function"]["arguments"] = "".into();
        call["index"] = 0.into();
        events.data(&delta(json!({"tool_calls": [call]})))?;
        for piece in halves(arguments) {
            let piece = json!({"index": 0, "function": {"arguments": piece}});
            events.data(&delta(json!({"tool_calls": [piece]})))?;
        }
    }
    let last = json!({"index": 0, "delta": {}, "finish_reason": end});
    events.data(&chunk(json!([last]), Some(&usage)))?;
    if body["stream_options"]["include_usage"] == true {
        events.data(&chunk(json!([]), Some(&usage)))?;
    }
    events.text("[DONE]")?;
    events.end()
}

/// A text cut in two, between characters.
pub(super) fn halves(text: &str) -> [&str; 2] {
    let middle = text.floor_char_boundary(text.len() / 2);
    let (first, second) = text.split_at(middle);
    [first, second]
}

fn entries(body: &Value) -> Vec<Entry> {
    let messages = body["messages"].as_array().into_iter().flatten();
    messages
        .filter_map(|message| match message["role"].as_str()? {
            "user" => Some(Entry::User(text_of(&message["content"]))),
            "assistant" => Some(Entry::Assistant {
                calls_tools: message["tool_calls"].get(0).is_some(),
            }),
            "tool" => Some(Entry::ToolResult),
            _ => None,
        })
        .collect()
}

fn tools(body: &Value) -> Vec<Tool> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            let function = &tool["function"];
            let name = function["name"].as_str()?;
            Some(Tool::function(name, function["parameters"].clone()))
        })
        .collect()
}
