//! Pieces of ACP messages as [`Item`](super::item::Item) parts.

use serde_json::Value;

use super::diff;
use super::item::{Answer, Block, Image, Permission, PlanEntry, Status, Tool, ToolContent};
use super::printable::printable_line;

/// JSON shown in a note is cut to this many characters.
const JSON_CHARACTERS: usize = 200;

/// The kinds of pictures that every browser shows and that hold no script.
const IMAGE_KINDS: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The largest picture that is kept, in characters of base64: 3 MiB.
const IMAGE_CHARACTERS: usize = 4 * 1024 * 1024;

/// A string member, or "".
pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or("")
}

/// A string member on one line.
pub(super) fn line(value: &Value, member: &str) -> String {
    printable_line(text(value, member))
}

pub(super) fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value
        .get(member)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A value on one line: a string as it is, anything else as JSON, cut.
pub(super) fn brief(value: &Value) -> String {
    let whole = match value {
        Value::String(text) => printable_line(text),
        other => printable_line(&other.to_string()),
    };
    match whole.char_indices().nth(JSON_CHARACTERS) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

/// A content block; one of an unknown type shows its JSON.
pub(super) fn block(value: &Value) -> Block {
    let mime = line(value, "mimeType");
    match text(value, "type") {
        "text" => Block::Text(text(value, "text").to_owned()),
        kind @ ("image" | "audio") => {
            let data = text(value, "data");
            let placeholder = placeholder(kind, &[&mime, &base64_size(data), &line(value, "uri")]);
            match IMAGE_KINDS.iter().find(|known| **known == mime) {
                Some(mime) if kind == "image" && is_picture(data) => Block::Image(Image {
                    placeholder,
                    mime,
                    data: data.into(),
                }),
                _ => Block::Placeholder(placeholder),
            }
        }
        "resource_link" => {
            let size = value
                .get("size")
                .and_then(Value::as_u64)
                .map(bytes)
                .unwrap_or_default();
            let name = [line(value, "title"), line(value, "name")]
                .into_iter()
                .find(|name| !name.is_empty());
            let uri = line(value, "uri");
            let name = name.filter(|name| *name != uri).unwrap_or_default();
            Block::Placeholder(placeholder("file", &[&name, &uri, &mime, &size]))
        }
        "resource" => {
            let resource = value.get("resource").unwrap_or(&Value::Null);
            let size = match resource.get("text").and_then(Value::as_str) {
                Some(text) => bytes(text.len() as u64),
                None => base64_size(text(resource, "blob")),
            };
            let uri = line(resource, "uri");
            Block::Placeholder(placeholder(
                "resource",
                &[&uri, &line(resource, "mimeType"), &size],
            ))
        }
        "" => Block::Text(value.as_str().map_or_else(|| brief(value), str::to_owned)),
        other => Block::Placeholder(placeholder(&printable_line(other), &[&brief(value)])),
    }
}

/// `content` of a prompt or chunk: one block, or (against the protocol) several.
pub(super) fn blocks(value: Option<&Value>) -> Vec<Block> {
    match value {
        Some(Value::Array(values)) => values.iter().map(block).collect(),
        Some(Value::Null) | None => Vec::new(),
        Some(value) => vec![block(value)],
    }
}

/// Takes over what an update says; what it leaves out stays.
pub(super) fn update_tool(tool: &mut Tool, update: &Value) {
    let title = [line(update, "title"), line(update, "name")]
        .into_iter()
        .find(|title| !title.is_empty());
    if let Some(title) = title {
        tool.title = title;
    }
    if tool.title.is_empty() {
        tool.title = match update.pointer("/rawInput/command") {
            Some(command) => brief(command),
            None => tool.id.clone(),
        };
    }
    if !text(update, "kind").is_empty() {
        tool.kind = line(update, "kind");
    }
    if !text(update, "status").is_empty() {
        tool.status = Status::parse(text(update, "status"));
    }
    if let Some(content) = update.get("content").and_then(Value::as_array) {
        tool.content = content.iter().map(tool_content).collect();
    }
}

fn tool_content(value: &Value) -> ToolContent {
    match text(value, "type") {
        "diff" => {
            let old = value.get("oldText").and_then(Value::as_str);
            ToolContent::Diff {
                path: line(value, "path"),
                is_new: old.is_none(),
                lines: diff::lines(old.unwrap_or(""), text(value, "newText")),
            }
        }
        "content" => ToolContent::Block(block(value.get("content").unwrap_or(&Value::Null))),
        "terminal" => ToolContent::Block(Block::Placeholder(placeholder(
            "terminal",
            &[&line(value, "terminalId")],
        ))),
        _ => ToolContent::Block(block(value)),
    }
}

pub(super) fn plan(entries: &[Value]) -> Vec<PlanEntry> {
    let entry = |value: &Value| PlanEntry {
        text: line(value, "content"),
        status: Status::parse(text(value, "status")),
    };
    entries.iter().map(entry).collect()
}

pub(super) fn permission(params: &Value, tool_title: Option<&str>) -> Permission {
    let call = params.get("toolCall").unwrap_or(&Value::Null);
    let title = match line(call, "title") {
        title if title.is_empty() => {
            tool_title.map_or_else(|| line(call, "toolCallId"), str::to_owned)
        }
        title => title,
    };
    let options = list(params, "options")
        .iter()
        .map(|option| line(option, "name"))
        .collect();
    Permission {
        title,
        options,
        answer: None,
    }
}

/// The client's answer in the words of the option that it chose.
pub(super) fn permission_answer(result: &Value, params: &Value) -> Answer {
    let outcome = result.get("outcome").unwrap_or(&Value::Null);
    if text(outcome, "outcome") != "selected" {
        let word = line(outcome, "outcome");
        return Answer {
            text: if word.is_empty() { brief(result) } else { word },
            is_allowed: false,
        };
    }
    let id = outcome.get("optionId");
    match list(params, "options")
        .iter()
        .find(|option| option.get("optionId") == id)
    {
        Some(option) => Answer {
            text: line(option, "name"),
            is_allowed: text(option, "kind").starts_with("allow"),
        },
        None => Answer {
            text: format!("{} (not offered)", id.map(brief).unwrap_or_default()),
            is_allowed: false,
        },
    }
}

/// `used` and `size` of the context window, and the cost.
pub(super) fn usage_update(update: &Value) -> String {
    let number = |member| update.get(member).and_then(Value::as_u64).unwrap_or(0);
    let (used, size) = (number("used"), number("size"));
    let mut usage = format!("context {}", thousands(used));
    if size > 0 {
        usage += &format!(
            " of {} tokens ({} %)",
            thousands(size),
            u128::from(used) * 100 / u128::from(size)
        );
    }
    if let Some(amount) = update.pointer("/cost/amount").and_then(Value::as_f64) {
        usage += &format!(", {amount:.4} {}", line(&update["cost"], "currency"));
    }
    usage.trim_end().to_owned()
}

/// `usage` of a prompt's result. `None` if it holds no number.
pub(super) fn turn_usage(usage: &Value) -> Option<String> {
    const COUNTS: [(&str, &str); 5] = [
        ("inputTokens", "in"),
        ("cachedReadTokens", "cached"),
        ("outputTokens", "out"),
        ("thoughtTokens", "thought"),
        ("totalTokens", "in all"),
    ];
    let count = |(member, name): (&str, &str)| {
        let number = usage.get(member)?.as_u64().filter(|number| *number > 0)?;
        Some(format!("{} {name}", thousands(number)))
    };
    let counts: Vec<String> = COUNTS.into_iter().filter_map(count).collect();
    if counts.is_empty() {
        None
    } else {
        Some(format!("tokens: {}", counts.join(", ")))
    }
}

/// `12 KiB`
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count.div_ceil(1024)),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// `12,345`
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Whether a picture's data is plain base64 and not too much.
fn is_picture(data: &str) -> bool {
    let digits = data.trim_end_matches('=');
    (1..=IMAGE_CHARACTERS).contains(&data.len())
        && data.len() - digits.len() <= 2
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn base64_size(data: &str) -> String {
    let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
    bytes((data.len() * 3 / 4).saturating_sub(padding) as u64)
}

fn placeholder(what: &str, details: &[&str]) -> String {
    let mut line = format!("[{what}");
    for detail in details.iter().filter(|detail| !detail.is_empty()) {
        line.push(' ');
        line.push_str(detail);
    }
    line.push(']');
    line
}
