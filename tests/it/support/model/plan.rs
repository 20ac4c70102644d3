//! From a conversation, in any API's form, to the next step.

use serde_json::Value;

use super::call::{self, Call, Tool};

/// One entry of a conversation, as far as the next step depends on it.
pub(super) enum Entry {
    User(String),
    Assistant { calls_tools: bool },
    ToolResult,
}

/// What to say, and which tool to call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What comes first, in the first step of a turn only.
    pub(super) asides: Vec<Aside>,
    pub(super) call: Option<Call>,
    /// What is said before the call, or as the last word.
    pub(super) text: String,
    /// An HTTP status to fail with instead.
    pub(super) failure: Option<u16>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Aside {
    Slow(u64),
    Think(String),
}

impl Plan {
    /// The text in the pieces in which it is streamed.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_inclusive(' ')
    }
}

/// Decides the next step.
pub(super) fn plan(entries: &[Entry], tools: &[Tool]) -> Plan {
    let start = turn_start(entries);
    let text = match start.map(|start| &entries[start]) {
        Some(Entry::User(text)) => text.as_str(),
        _ => "",
    };
    let since = start.map_or(0, |start| start + 1);
    let results = entries[since..]
        .iter()
        .filter(|entry| matches!(entry, Entry::ToolResult))
        .count();

    let mut plan = Plan {
        text: format!("DONE with {results} tool results. Hello from the fake model."),
        ..Plan::default()
    };
    let (mut steps, mut said) = (Vec::new(), None);
    for (name, argument) in directives(text) {
        match name {
            "slow" => plan.asides.extend(argument.parse().ok().map(Aside::Slow)),
            "think" => plan.asides.push(Aside::Think(argument.to_owned())),
            "err" => plan.failure = argument.parse().ok(),
            "say" => said = said.or(Some(argument.to_owned())),
            "write" | "edit" | "read" | "shell" | "raw" => steps.push((name, argument)),
            _ => {}
        }
    }
    plan.text = said.unwrap_or(plan.text);
    if results > 0 {
        plan.asides.clear();
        plan.failure = None;
    }
    // Requests without tools are about something else, such as a title.
    if let Some((name, argument)) = steps.get(results)
        && let Some(call) = call::call(name, argument, tools)
    {
        plan.text = format!("Calling {}. ", call.tool);
        plan.call = Some(call);
    }
    plan
}

/// The text of a content field: a string, or a list of parts with texts.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// Whether a text tells the model what to do.
pub(super) fn has_directive(text: &str) -> bool {
    directives(text).next().is_some()
}

/// The user's message that began the turn: the last one with a directive, since
/// agents add messages of their own; but a later one when the assistant has had
/// its last word in between.
fn turn_start(entries: &[Entry]) -> Option<usize> {
    let users = || {
        let entries = entries.iter().enumerate().rev();
        entries.filter_map(|(index, entry)| match entry {
            Entry::User(text) => Some((index, text)),
            _ => None,
        })
    };
    let last = users().next()?.0;
    let directed = users().find(|(_, text)| has_directive(text));
    let Some((directed, _)) = directed else {
        return Some(last);
    };
    let answered = entries[directed..last]
        .iter()
        .any(|entry| matches!(entry, Entry::Assistant { calls_tools: false }));
    Some(if answered { last } else { directed })
}

/// The `[[name:argument]]` of a text, in order.
fn directives(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let inside = &rest[rest.find("[[")? + 2..];
            let end = inside.find("]]")?;
            rest = &inside[end + 2..];
            if let Some((name, argument)) = inside[..end].split_once(':')
                && !name.is_empty()
                && name.bytes().all(|it| it.is_ascii_alphanumeric())
            {
                return Some((name, argument));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shell() -> Vec<Tool> {
        let schema = json!({"properties": {"command": {"type": "string"}}});
        vec![Tool::function("bash", schema)]
    }

    fn user(text: &str) -> Entry {
        Entry::User(text.to_owned())
    }

    const CALLING: Entry = Entry::Assistant { calls_tools: true };
    const LAST_WORD: Entry = Entry::Assistant { calls_tools: false };

    #[test]
    fn steps_follow_each_other_and_then_comes_the_last_word() {
        let prompt = || user("[[think:hm]] [[shell:one]] [[shell:two]]");
        let command = |plan: &Plan| plan.call.as_ref().map(|call| call.arguments.clone());

        let first = plan(&[prompt()], &shell());
        assert_eq!(command(&first), Some(json!({"command": "one"})));
        assert_eq!(first.asides, [Aside::Think("hm".to_owned())]);

        let reminder = user("a reminder that the agent adds");
        let second = plan(&[prompt(), CALLING, Entry::ToolResult, reminder], &shell());
        assert_eq!(command(&second), Some(json!({"command": "two"})));
        assert_eq!(second.asides, []);

        let done = [
            prompt(),
            CALLING,
            Entry::ToolResult,
            CALLING,
            Entry::ToolResult,
        ];
        let done = plan(&done, &shell());
        assert!(done.call.is_none());
        assert!(done.text.starts_with("DONE with 2 tool results"));
    }

    #[test]
    fn a_later_prompt_begins_a_turn_of_its_own() {
        let entries = [
            user("[[shell:one]]"),
            CALLING,
            Entry::ToolResult,
            LAST_WORD,
            user("hi"),
        ];
        let plan = plan(&entries, &shell());
        assert!(plan.call.is_none());
        assert!(plan.text.starts_with("DONE with 0 tool results"));
    }

    #[test]
    fn a_request_without_tools_is_answered_in_words() {
        assert!(
            plan(&[user("A title for: [[shell:one]]")], &[])
                .call
                .is_none()
        );
    }
}
