//! What happens beside the conversation, one line each.

use serde_json::Value;

use super::content::{brief, bytes, line, list, text};
use super::item::Item;
use super::printable::printable_line;

/// Details shown below a problem.
const DETAIL_LINES: usize = 20;

/// A request or notification, from either side or from acpbox. `None` for what
/// would tell a reader nothing.
pub(super) fn of_call(method: &str, params: &Value) -> Option<Item> {
    let path = line(params, "path");
    let note = match method {
        "session/new" | "session/load" | "session/resume" | "session/fork" => {
            format!("{method} in {}", line(params, "cwd"))
        }
        "session/cancel" => "the client cancelled the turn".to_owned(),
        "session/set_mode" => format!("the client set the mode {}", line(params, "modeId")),
        "session/set_model" => format!("the client set the model {}", line(params, "modelId")),
        "session/set_config_option" => {
            let value = params.get("value").map(brief).unwrap_or_default();
            format!("the client set {} to {value}", line(params, "configId"))
        }
        "fs/read_text_file" => format!("the agent read {path}{}", range(params)),
        "fs/write_text_file" => {
            format!(
                "the agent wrote {path} ({})",
                bytes(text(params, "content").len() as u64)
            )
        }
        "terminal/create" => {
            let words = list(params, "args").iter().map(brief);
            let command: Vec<String> = std::iter::once(line(params, "command"))
                .chain(words)
                .collect();
            format!("the agent ran `{}`", command.join(" "))
        }
        "terminal/kill" => "the agent killed its command".to_owned(),
        // Asked again and again while a command runs.
        "terminal/output" | "terminal/release" | "terminal/wait_for_exit" => return None,
        "elicitation/create" => match line(params, "url") {
            url if url.is_empty() => format!("the agent asked: {}", line(params, "message")),
            url => format!("the agent asked: {} ({url})", line(params, "message")),
        },
        "$/cancel_request" => "a request was withdrawn".to_owned(),
        "_acpbox/turn/start" => match line(params, "from") {
            from if from.is_empty() => return None,
            from => format!("the turn of a prompt from {from} began"),
        },
        "_acpbox/turn/end" => {
            return Some(problem(
                params,
                "detail",
                &format!("the turn ended: {}", line(params, "reason")),
            ));
        }
        "_acpbox/agent/exit" if params.get("closed") == Some(&true.into()) => {
            "the agent was ended with its session".to_owned()
        }
        "_acpbox/agent/exit" => {
            let details = list(params, "stderr").iter().map(brief).collect();
            return Some(Item::Problem {
                text: format!("the agent ended: {}", line(params, "exit")),
                details,
            });
        }
        "_acpbox/session/sleep" => match text(params, "reason") {
            "asked" => "the session was put to sleep with its VM".to_owned(),
            _ => "the session went to sleep: nothing went on".to_owned(),
        },
        "_acpbox/session/restored" => return Some(restored(params)),
        "_acpbox/session/wake" => format!("the session woke ({})", line(params, "tier")),
        "_acpbox/permission/decided" => decided(params),
        "_acpbox/permission/denied" => {
            let asked = line(params, "method");
            return Some(problem(
                params,
                "reason",
                &format!("acpbox refused {asked}"),
            ));
        }
        _ => format!(
            "{} {}",
            printable_line(method),
            brief(&without_session(params))
        ),
    };
    Some(Item::Note(note))
}

/// Who answered in a person's place.
fn decided(params: &Value) -> String {
    let what = match text(params, "decision") {
        "allow" => "allowed",
        _ => "refused",
    };
    let number = |member| params.get(member).map(brief);
    match (number("rule"), number("remembered")) {
        (Some(rule), _) => format!("acpbox {what} it by rule {rule}"),
        (None, Some(id)) => format!("acpbox {what} it by the remembered answer {id}"),
        (None, None) => format!("acpbox {what} it by default"),
    }
}

/// How a session came back, and what it lost by that.
fn restored(params: &Value) -> Item {
    let way = match text(params, "tier") {
        "resume" => "the agent resumed it".to_owned(),
        "load" => "the agent loaded it".to_owned(),
        "fork" => "the agent forked it".to_owned(),
        "new" if params.get("preamble").is_some() => {
            "a new session of the agent, which is told the history".to_owned()
        }
        "new" => "a new session of the agent".to_owned(),
        tier => printable_line(tier),
    };
    let mut note = format!("the session came back: {way}");
    for (what, key) in [("put back", "putBack"), ("missing", "missing")] {
        let names: Vec<String> = list(params, key).iter().map(brief).collect();
        if !names.is_empty() {
            note = format!("{note}; {what}: {}", names.join(", "));
        }
    }
    for reason in list(params, "reasons") {
        note = format!("{note}; {}", brief(reason));
    }
    Item::Note(note)
}

/// An update that is neither message, tool call, plan nor usage.
pub(super) fn of_update(kind: &str, update: &Value) -> Option<Item> {
    let note = match kind {
        "available_commands_update" => {
            let commands = list(update, "availableCommands");
            let names: Vec<String> = commands
                .iter()
                .map(|command| format!("/{}", line(command, "name")))
                .collect();
            let plural = if names.len() == 1 { "" } else { "s" };
            format!("{} command{plural}: {}", names.len(), names.join(" "))
        }
        "current_mode_update" => format!("mode: {}", line(update, "currentModeId")),
        "config_option_update" => {
            let option = |option: &Value| {
                format!(
                    "{}: {}",
                    line(option, "name"),
                    option.get("currentValue").map(brief).unwrap_or_default()
                )
            };
            list(update, "configOptions")
                .iter()
                .map(option)
                .collect::<Vec<_>>()
                .join(", ")
        }
        "session_info_update" => match line(update, "title") {
            title if title.is_empty() => return None,
            title => format!("title: {title}"),
        },
        "plan_removed" => "the plan was dropped".to_owned(),
        "notice" => {
            let title = line(update, "title");
            return Some(match text(update, "severity") {
                "error" | "warning" => problem(update, "description", &title),
                _ => Item::Note(
                    [title, line(update, "description")]
                        .join(" ")
                        .trim_end()
                        .to_owned(),
                ),
            });
        }
        "compaction_update" => match text(update, "status") {
            "failed" => return Some(problem(update, "error", "compaction failed")),
            status => format!("compaction: {}", status.replace('_', " ")),
        },
        "subagent_update" => {
            let name = [line(update, "title"), line(update, "sessionId")]
                .into_iter()
                .find(|name| !name.is_empty());
            let state = update.get("state").map(state_word).unwrap_or_default();
            format!("subagent {} {state}", name.unwrap_or_default())
        }
        "session_message" | "session_message_chunk" => {
            let content = update.get("content").map(words).unwrap_or_default();
            format!(
                "{} → {}: {content}",
                party(update, "senderSessionId"),
                party(update, "recipientSessionId")
            )
        }
        "" => brief(update),
        kind => {
            let mut rest = update.clone();
            if let Value::Object(members) = &mut rest {
                members.shift_remove("sessionUpdate");
                members.shift_remove("_meta");
            }
            format!("{} {}", printable_line(kind), brief(&rest))
        }
    };
    Some(Item::Note(note.trim_end().to_owned()))
}

/// A result worth a line.
pub(super) fn of_result(method: &str, result: &Value) -> Option<String> {
    match method {
        "terminal/wait_for_exit" => Some(match (result.get("exitCode"), text(result, "signal")) {
            (_, signal) if !signal.is_empty() => {
                format!("the command was ended by {}", line(result, "signal"))
            }
            (Some(code), _) => format!("the command exited with {}", brief(code)),
            (None, _) => "the command ended".to_owned(),
        }),
        "elicitation/create" => Some(format!("answered: {}", line(result, "action"))),
        _ => None,
    }
}

/// A JSON-RPC error with what `data` adds to it.
pub(super) fn of_error(method: &str, error: &Value) -> Item {
    let code = error.get("code").map(brief).unwrap_or_default();
    let mut details = Vec::new();
    match error.get("data") {
        None | Some(Value::Null) => {}
        Some(Value::Object(members)) => {
            for (name, value) in members {
                match value {
                    Value::Array(lines) => details.extend(lines.iter().map(brief)),
                    value => details.push(format!("{}: {}", printable_line(name), brief(value))),
                }
            }
        }
        Some(Value::String(data)) => details.extend(data.lines().map(printable_line)),
        Some(data) => details.push(brief(data)),
    }
    if details.len() > DETAIL_LINES {
        details.drain(..details.len() - DETAIL_LINES);
    }
    Item::Problem {
        text: format!("{method}: {} ({code})", line(error, "message")),
        details,
    }
}

fn problem(value: &Value, detail: &str, text: &str) -> Item {
    let details = match value.get(detail).and_then(Value::as_str) {
        Some(detail) => detail
            .lines()
            .take(DETAIL_LINES)
            .map(printable_line)
            .collect(),
        None => Vec::new(),
    };
    Item::Problem {
        text: text.to_owned(),
        details,
    }
}

fn range(params: &Value) -> String {
    let number = |member| params.get(member).and_then(Value::as_u64);
    match (number("line"), number("limit")) {
        (None, None) => String::new(),
        (from, None) => format!(" from line {}", from.unwrap_or(1)),
        (from, Some(limit)) => format!(" from line {}, {limit} lines", from.unwrap_or(1)),
    }
}

fn state_word(state: &Value) -> String {
    match state
        .get("state")
        .or_else(|| state.get("status"))
        .or_else(|| state.get("type"))
    {
        Some(word) => brief(word),
        None => brief(state),
    }
}

fn party(update: &Value, member: &str) -> String {
    match line(update, member) {
        id if id.is_empty() => "this session".to_owned(),
        id => id,
    }
}

/// The text of one or several content blocks.
fn words(content: &Value) -> String {
    let texts: Vec<String> = match content {
        Value::Array(blocks) => blocks.iter().map(|block| line(block, "text")).collect(),
        block => vec![line(block, "text")],
    };
    texts.join(" ")
}

fn without_session(params: &Value) -> Value {
    let mut params = params.clone();
    if let Value::Object(members) = &mut params {
        members.shift_remove("sessionId");
        members.shift_remove("_meta");
    }
    params
}
