//! From a directive to a call of one of the agent's own tools.

use serde_json::{Map, Value, json};

/// A tool that the agent offers.
pub(super) struct Tool {
    pub(super) name: String,
    /// The JSON Schema of its arguments, or `null`.
    pub(super) schema: Value,
    /// Takes text of its own form instead of JSON (OpenAI's custom tools).
    pub(super) custom: bool,
}

impl Tool {
    pub(super) fn function(name: &str, schema: Value) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            custom: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) tool: String,
    pub(super) custom: bool,
    /// An object.
    pub(super) arguments: Value,
    /// What a custom tool gets.
    pub(super) input: String,
}

/// The call that carries out a directive, with whichever tool fits best; a
/// command stands in for missing file tools. `None` when nothing fits.
pub(super) fn call(kind: &str, argument: &str, tools: &[Tool]) -> Option<Call> {
    if kind == "raw" {
        let (tool, arguments) = argument.split_once('|')?;
        return Some(Call {
            tool: tool.to_owned(),
            custom: false,
            arguments: serde_json::from_str(arguments).ok()?,
            input: arguments.to_owned(),
        });
    }
    if let Some(tool) = pick(kind, tools) {
        return Some(build(kind, argument, tool));
    }
    let command = as_command(kind, argument)?;
    pick("shell", tools).map(|tool| build("shell", &command, tool))
}

/// Names of tools by what they do, the best first.
fn preferred(kind: &str) -> &'static [&'static str] {
    match kind {
        "write" => &[
            "mcp__acp__Write",
            "write_file",
            "Write",
            "write",
            "WriteFile",
            "create_file",
            "write_to_file",
            "file_editor",
            "str_replace_editor",
            "create",
            "editor",
            "apply_patch",
            "edit_file",
            "write_text_file",
        ],
        "edit" => &[
            "mcp__acp__Edit",
            "edit",
            "Edit",
            "replace",
            "edit_file",
            "StrReplaceFile",
            "search_replace",
            "str_replace",
            "file_editor",
            "str_replace_editor",
            "apply_patch",
        ],
        "read" => &[
            "mcp__acp__Read",
            "read_file",
            "Read",
            "read",
            "ReadFile",
            "view",
            "read_text_file",
            "file_editor",
            "str_replace_editor",
        ],
        _ => &[
            "mcp__acp__Bash",
            "bash",
            "Bash",
            "shell",
            "Shell",
            "run_shell_command",
            "exec_command",
            "shell_command",
            "execute_bash",
            "terminal",
            "run_command",
            "execute_command",
            "developer__shell",
            "exec",
            "local_shell",
        ],
    }
}

fn pick<'a>(kind: &str, tools: &'a [Tool]) -> Option<&'a Tool> {
    let named = |name: &&str| tools.iter().find(|tool| tool.name == *name);
    preferred(kind).iter().find_map(named).or_else(|| {
        let mut tools = tools.iter();
        // Codex' write_stdin types into a running command.
        tools.find(|tool| tool.name != "write_stdin" && tool.name.to_lowercase().contains(kind))
    })
}

fn as_command(kind: &str, argument: &str) -> Option<String> {
    let mut parts = argument.splitn(3, '|');
    let path = parts.next()?;
    match kind {
        "write" => Some(format!("printf %s '{}' > {path}", parts.next()?)),
        "edit" => Some(format!(
            "sed -i 's/{}/{}/' {path}",
            parts.next()?,
            parts.next()?
        )),
        "read" => Some(format!("cat {path}")),
        _ => None,
    }
}

fn build(kind: &str, argument: &str, tool: &Tool) -> Call {
    let parts: Vec<&str> = argument.split('|').collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let (arguments, input) = if tool.name == "apply_patch" {
        let patch = patch(kind, part(0), part(1), part(2));
        (json!({"input": patch, "patchText": patch}), patch)
    } else {
        let arguments = Value::Object(fill(kind, argument, [part(0), part(1), part(2)], tool));
        let input = arguments.to_string();
        (arguments, input)
    };
    Call {
        tool: tool.name.clone(),
        custom: tool.custom,
        arguments,
        input,
    }
}

/// A patch as OpenAI's `apply_patch` takes it.
fn patch(kind: &str, path: &str, old: &str, new: &str) -> String {
    let change = if kind == "write" {
        let lines: String = old.split('\n').map(|line| format!("+{line}\n")).collect();
        format!("*** Add File: {path}\n{lines}")
    } else {
        format!("*** Update File: {path}\n@@\n-{old}\n+{new}\n")
    };
    format!("*** Begin Patch\n{change}*** End Patch\n")
}

/// Arguments as the tool's schema names them; what is required and unknown gets
/// the first value that is allowed.
fn fill(kind: &str, argument: &str, parts: [&str; 3], tool: &Tool) -> Map<String, Value> {
    let empty = Map::new();
    let properties = tool.schema["properties"].as_object().unwrap_or(&empty);
    let is_required = |name: &str| {
        let required = tool.schema["required"].as_array();
        required.is_some_and(|all| all.iter().any(|it| it == name))
    };
    let mut arguments = Map::new();
    for (name, property) in properties {
        let value = known(kind, name, property, argument, parts)
            .or_else(|| is_required(name).then(|| any_value(kind, property)));
        if let Some(value) = value {
            arguments.insert(name.clone(), value);
        }
    }
    arguments
}

fn known(
    kind: &str,
    name: &str,
    property: &Value,
    argument: &str,
    [path, first, second]: [&str; 3],
) -> Option<Value> {
    let is_array = property["type"] == "array";
    Some(match (kind, name) {
        (
            "write" | "edit" | "read",
            "path" | "file_path" | "filePath" | "absolute_path" | "filepath" | "filename" | "file"
            | "target_file" | "absolutePath",
        ) => path.into(),
        (
            "write",
            "content" | "contents" | "file_text" | "text" | "file_content" | "new_content",
        ) => first.into(),
        ("edit", "old_string" | "oldString" | "old_str" | "old" | "oldText" | "old_text") => {
            first.into()
        }
        ("edit", "new_string" | "newString" | "new_str" | "new" | "newText" | "new_text") => {
            second.into()
        }
        ("edit", "edits") => json!([{"oldText": first, "newText": second}]),
        ("edit", "edit") => json!({"old": first, "new": second}),
        ("read", "files" | "paths") if property["items"]["type"] == "string" => json!([path]),
        ("read", "files" | "paths") => json!([{"path": path}]),
        ("shell", "command" | "cmd" | "script") if is_array => json!(["bash", "-lc", argument]),
        ("shell", "command" | "cmd" | "script") => argument.into(),
        ("shell", "commands") => json!([argument]),
        // Editors with one tool for everything name the wish in `command`.
        ("write" | "edit" | "read", "command") => {
            let wish = match kind {
                "write" => "create",
                "edit" => "str_replace",
                _ => "view",
            };
            let wishes = property["enum"].as_array()?;
            wishes.iter().any(|it| it == wish).then(|| wish.into())?
        }
        _ => return None,
    })
}

fn any_value(kind: &str, property: &Value) -> Value {
    if let Some(first) = property["enum"].get(0) {
        return first.clone();
    }
    match property["type"].as_str() {
        Some("boolean") => false.into(),
        Some("integer" | "number") => 10_000.into(),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => format!("fake {kind}").into(),
    }
}
