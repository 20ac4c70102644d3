//! Terminals in tool calls. A terminal is acpbox's own, in the VM: a client that
//! looked its id up would find nothing, so it is shown what the terminal printed.

use serde_json::json;
use serde_json::value::RawValue;

use crate::rpc::message;
use crate::rpc::splice::{self, Edits};

/// The `content` of an update, raw, where it shows terminals: an array.
pub fn terminals_in(update: &str) -> Option<(&str, Vec<String>)> {
    let content = splice::member(update, "content")?;
    let ids: Vec<String> = items(content).filter_map(terminal_id).collect();
    (!ids.is_empty()).then_some((content, ids))
}

/// `content` with the text of each terminal that `text_of` knows in its place.
pub fn with_texts(content: &str, text_of: impl Fn(&str) -> Option<String>) -> String {
    let mut edits = Edits::of(content);
    for item in items(content) {
        let Some(text) = terminal_id(item).and_then(|id| text_of(&id)) else {
            continue;
        };
        let block = json!({"type": "content", "content": {"type": "text", "text": text}});
        edits.replace(item, block.to_string());
    }
    edits.apply()
}

/// What a terminal printed, as Markdown, and how it ended if that is worth saying.
pub fn text(output: &str, is_cut: bool, ending: Option<&str>) -> String {
    let longest = output
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let cut = if is_cut { "…\n" } else { "" };
    let newline = if output.is_empty() || output.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let ending = ending
        .map(|ending| format!("\n{ending}"))
        .unwrap_or_default();
    format!("{fence}console\n{cut}{output}{newline}{fence}{ending}")
}

fn items(content: &str) -> impl Iterator<Item = &str> {
    let items: Vec<&RawValue> = serde_json::from_str(content).unwrap_or_default();
    items.into_iter().map(RawValue::get)
}

fn terminal_id(item: &str) -> Option<String> {
    let members = splice::members(item)?;
    let text = |key| splice::value(&members, key).and_then(message::string);
    (text("type")? == "terminal").then(|| text("terminalId").map(Into::into))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_terminal_becomes_its_text_and_the_rest_stays() {
        let content = r#"[ {"type":"terminal","terminalId":"a"}, {"type":"terminal","terminalId":"b","x":1e400}, 7]"#;
        let shown = with_texts(content, |id| (id == "a").then(|| "ok".to_owned()));
        assert_eq!(
            shown,
            r#"[ {"type":"content","content":{"type":"text","text":"ok"}}, {"type":"terminal","terminalId":"b","x":1e400}, 7]"#
        );
        let update = format!(r#"{{"toolCallId":"t","content":{content}}}"#);
        let (found, ids) = terminals_in(&update).unwrap();
        assert_eq!(
            (found, ids),
            (content, vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(terminals_in(r#"{"content":null}"#).is_none());
    }

    #[test]
    fn output_cannot_leave_its_fence() {
        assert_eq!(text("a", false, None), "```console\na\n```");
        assert_eq!(
            text("x\n````\n", true, Some("exit code 1")),
            "`````console\n…\nx\n````\n`````\nexit code 1"
        );
    }
}
