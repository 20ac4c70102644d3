//! Gemini generateContent and streamGenerateContent.

use std::io;

use serde_json::{Value, json};

use super::call::Tool;
use super::http::Reply;
use super::plan::{Entry, plan, text_of};
use super::{Piece, Shared, asides};

pub(super) fn answer(
    body: &Value,
    streaming: bool,
    reply: Reply<'_>,
    shared: &Shared,
) -> io::Result<()> {
    let plan = plan(&entries(body), &tools(body));
    if let Some(status) = plan.failure {
        let error = json!({"code": status, "message": "fake error", "status": "UNAVAILABLE"});
        return reply.json(status, &json!({"error": error}));
    }
    let response_id = format!("r{}", shared.id());
    let candidate = |parts: Value, end: Option<&str>| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(end) = end {
            candidate["finishReason"] = end.into();
        }
        json!({"candidates": [candidate], "modelVersion": "fake", "responseId": response_id,
            "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}})
    };
    let call = plan
        .call
        .as_ref()
        .map(|call| json!([{"functionCall": {"name": call.tool, "args": call.arguments}}]));

    let config = &body["generationConfig"];
    let wants_json = config["responseMimeType"] == "application/json"
        || config.get("responseJsonSchema").is_some();
    if wants_json {
        // gemini-cli asks such questions about the conversation itself.
        let verdict = json!({"reasoning": "fake", "next_speaker": "user", "model_choice": "flash",
            "complexity_reasoning": "x", "complexity_score": 1});
        let answer = candidate(json!([{"text": verdict.to_string()}]), Some("STOP"));
        if !streaming {
            return reply.json(200, &answer);
        }
        let mut events = reply.events()?;
        events.data(&answer)?;
        return events.end();
    }
    if !streaming {
        let parts = call.unwrap_or_else(|| json!([{"text": plan.text}]));
        return reply.json(200, &candidate(parts, Some("STOP")));
    }

    let mut events = reply.events()?;
    asides(&plan, |piece| {
        let part = match piece {
            Piece::Text(text) => json!({"text": text}),
            Piece::Thought(text) => json!({"text": format!("**Think** {text}"), "thought": true}),
        };
        events.data(&candidate(json!([part]), None))
    })?;
    for word in plan.words() {
        events.data(&candidate(json!([{"text": word}]), None))?;
    }
    let last = call.unwrap_or_else(|| json!([{"text": ""}]));
    events.data(&candidate(last, Some("STOP")))?;
    events.end()
}

fn entries(body: &Value) -> Vec<Entry> {
    let contents = body["contents"].as_array().into_iter().flatten();
    let mut entries = Vec::new();
    for content in contents {
        let parts = || content["parts"].as_array().into_iter().flatten();
        let count = |kind: &str| parts().filter(|part| part.get(kind).is_some()).count();
        if content["role"] == "model" {
            let calls_tools = count("functionCall") > 0;
            entries.push(Entry::Assistant { calls_tools });
            continue;
        }
        entries.extend((0..count("functionResponse")).map(|_| Entry::ToolResult));
        let text = text_of(&content["parts"]);
        if !text.is_empty() {
            entries.push(Entry::User(text));
        }
    }
    entries
}

fn tools(body: &Value) -> Vec<Tool> {
    let tools = body["tools"].as_array().into_iter().flatten();
    let functions = tools.flat_map(|tool| tool["functionDeclarations"].as_array());
    functions
        .flatten()
        .filter_map(|function| {
            let schema = function.get("parametersJsonSchema");
            let schema = schema.or_else(|| function.get("parameters"));
            let name = function["name"].as_str()?;
            Some(Tool::function(name, schema.cloned().unwrap_or_default()))
        })
        .collect()
}
