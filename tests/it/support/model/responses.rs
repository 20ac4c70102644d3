//! OpenAI Responses.

use std::io;

use serde_json::{Value, json};

use super::call::Tool;
use super::http::{Events, Reply};
use super::plan::{Entry, Plan, plan, text_of};
use super::{Piece, Shared, asides};

pub(super) fn answer(body: &Value, reply: Reply<'_>, shared: &Shared) -> io::Result<()> {
    let plan = plan(&entries(body), &tools(body));
    if let Some(status) = plan.failure {
        let error = json!({"error": {"message": "fake error", "type": "server_error"}});
        return reply.json(status, &error);
    }
    let mut response = json!({
        "id": format!("resp_{}", shared.id()), "object": "response", "created_at": 1,
        "status": "in_progress", "model": body["model"], "output": [],
        "parallel_tool_calls": false, "tools": [], "tool_choice": "auto", "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {},
        "temperature": 1.0, "top_p": 1.0,
    });
    if body["stream"] != true {
        let item = message(&format!("msg_{}", shared.id()), "completed", &plan.text);
        response["output"] = [Some(item), call(&plan, shared)]
            .into_iter()
            .flatten()
            .collect();
        finish(&mut response);
        return reply.json(200, &response);
    }
    let mut stream = Stream {
        events: reply.events()?,
        number: 0,
    };
    stream.send("response.created", json!({"response": response}))?;
    let said = stream.say(&plan, &format!("msg_{}", shared.id()))?;
    let call = call(&plan, shared);
    if let Some(call) = &call {
        stream.call(call)?;
    }
    response["output"] = [Some(said), call].into_iter().flatten().collect();
    finish(&mut response);
    stream.send("response.completed", json!({"response": response}))?;
    stream.events.end()
}

struct Stream<'a> {
    events: Events<'a>,
    number: u64,
}

impl Stream<'_> {
    /// Sends an event with its type and its place in the order.
    fn send(&mut self, name: &str, mut fields: Value) -> io::Result<()> {
        fields["type"] = name.into();
        fields["sequence_number"] = self.number.into();
        self.number += 1;
        self.events.named(name, &fields)
    }

    /// Streams the message and returns it whole.
    fn say(&mut self, plan: &Plan, id: &str) -> io::Result<Value> {
        let mut started = message(id, "in_progress", "");
        started["content"] = json!([]);
        let at = |mut fields: Value| {
            fields["item_id"] = id.into();
            fields["output_index"] = 0.into();
            fields["content_index"] = 0.into();
            fields
        };
        self.send(
            "response.output_item.added",
            json!({"output_index": 0, "item": started}),
        )?;
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        self.send("response.content_part.added", at(json!({"part": part("")})))?;
        let mut whole = String::new();
        let delta = "response.output_text.delta";
        asides(plan, |piece| {
            if let Piece::Text(text) = piece {
                whole.push_str(text);
                self.send(delta, at(json!({"delta": text})))?;
            }
            Ok(())
        })?;
        for word in plan.words() {
            whole.push_str(word);
            self.send(delta, at(json!({"delta": word})))?;
        }
        self.send("response.output_text.done", at(json!({"text": whole})))?;
        self.send(
            "response.content_part.done",
            at(json!({"part": part(&whole)})),
        )?;
        let item = message(id, "completed", &whole);
        self.send(
            "response.output_item.done",
            json!({"output_index": 0, "item": item}),
        )?;
        Ok(item)
    }

    fn call(&mut self, call: &Value) -> io::Result<()> {
        let mut started = call.clone();
        started["status"] = "in_progress".into();
        if call.get("arguments").is_some() {
            started["arguments"] = "".into();
        }
        self.send(
            "response.output_item.added",
            json!({"output_index": 1, "item": started}),
        )?;
        if let Some(arguments) = call.get("arguments") {
            let at = json!({"item_id": call["id"], "output_index": 1});
            let mut delta = at.clone();
            delta["delta"] = arguments.clone();
            self.send("response.function_call_arguments.delta", delta)?;
            let mut done = at;
            done["arguments"] = arguments.clone();
            self.send("response.function_call_arguments.done", done)?;
        }
        self.send(
            "response.output_item.done",
            json!({"output_index": 1, "item": call}),
        )
    }
}

fn message(id: &str, status: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": "assistant", "status": status,
        "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn call(plan: &Plan, shared: &Shared) -> Option<Value> {
    let call = plan.call.as_ref()?;
    let call_id = format!("call_{}", shared.id());
    Some(if call.custom {
        json!({"type": "custom_tool_call", "id": format!("ctc_{}", shared.id()),
            "call_id": call_id, "name": call.tool, "input": call.input, "status": "completed"})
    } else {
        json!({"type": "function_call", "id": format!("fc_{}", shared.id()),
            "call_id": call_id, "name": call.tool, "arguments": call.arguments.to_string(),
            "status": "completed"})
    })
}

fn finish(response: &mut Value) {
    response["status"] = "completed".into();
    response["usage"] = json!({
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 10, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 110,
    });
}

fn entries(body: &Value) -> Vec<Entry> {
    if let Some(text) = body["input"].as_str() {
        return vec![Entry::User(text.to_owned())];
    }
    let items = body["input"].as_array().into_iter().flatten();
    items
        .filter_map(|item| match item["role"].as_str() {
            Some("user") => Some(Entry::User(text_of(&item["content"]))),
            // Its calls are items of their own.
            Some("assistant") => Some(Entry::Assistant { calls_tools: false }),
            _ if item["type"].as_str()?.ends_with("_output") => Some(Entry::ToolResult),
            _ => None,
        })
        .collect()
}

fn tools(body: &Value) -> Vec<Tool> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            let custom = match tool["type"].as_str()? {
                "function" => false,
                "custom" => true,
                _ => return None,
            };
            Some(Tool {
                name: tool["name"].as_str()?.to_owned(),
                schema: tool["parameters"].clone(),
                custom,
            })
        })
        .collect()
}
