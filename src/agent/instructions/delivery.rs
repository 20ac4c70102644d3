//! Instructions turned into variables, arguments, files and fields.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::vm::ProcessSpec;

use super::{Channel, INLINE_BYTES, Instructions, VARIABLE};

/// What is to be added so that an agent reads its instructions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delivery {
    /// Set over what the environment has.
    pub env: Vec<(String, String)>,
    /// Appended.
    pub args: Vec<String>,
    /// Absolute guest path and content.
    pub files: Vec<(PathBuf, String)>,
    /// Those of the files that are programs.
    pub executables: Vec<PathBuf>,
    /// To be merged into the `_meta` of `session/new`, `session/load` and
    /// `session/resume`, with [`add_to_session_params`].
    pub meta: Option<Value>,
    /// A text block to put in front of the first prompt's own blocks, once,
    /// after `session/new`.
    pub first_prompt: Option<String>,
}

impl Instructions {
    /// Works out how the text goes through `channel`.
    ///
    /// `folder` is the session's own, see [`super::session_folder`]; `home` and
    /// `env` are what the agent will have.
    pub fn deliver(
        &self,
        channel: &Channel,
        folder: &Path,
        home: &Path,
        env: &BTreeMap<String, String>,
    ) -> Delivery {
        let text = self.text();
        let mut delivery = Delivery::default();
        if text.is_empty() || *channel == Channel::None {
            return delivery;
        }
        let short = text.len() <= INLINE_BYTES;
        if short {
            delivery.env.push((VARIABLE.to_owned(), text.clone()));
        }
        let file = folder.join("instructions.md");
        let path = file.to_string_lossy().into_owned();
        let file = (file, text.clone());
        match channel {
            Channel::Meta(pointer) => delivery.meta = Some(nested(pointer, text)),
            Channel::Environment(name) if short => delivery.env.push((name.clone(), text)),
            Channel::EnvironmentFile(name) => {
                delivery.env.push((name.clone(), path));
                delivery.files.push(file);
            }
            Channel::Argument(flag) if short => delivery.args.extend([flag.clone(), text]),
            Channel::ArgumentFile(flag) => {
                delivery.args.extend([flag.clone(), path]);
                delivery.files.push(file);
            }
            Channel::ConfigContent { variable, key } => {
                let Some(mut content) = json_object(env.get(variable)) else {
                    delivery.first_prompt = Some(text);
                    return delivery;
                };
                match content.entry(key.clone()).or_insert_with(|| json!([])) {
                    Value::Array(list) => list.push(json!(path)),
                    other => *other = json!([path]),
                }
                delivery
                    .env
                    .push((variable.clone(), Value::Object(content).to_string()));
                delivery.files.push(file);
            }
            Channel::Codex if short => {
                const KEY: &str = "developer_instructions";
                let Some(mut content) = json_object(env.get("CODEX_CONFIG")) else {
                    delivery.first_prompt = Some(text);
                    return delivery;
                };
                let earlier = content.get(KEY).and_then(Value::as_str);
                let text = joined(earlier, &text);
                // A JSON string is a TOML string too, but for DEL, which TOML wants escaped.
                let value = json!(text).to_string().replace('\u{7f}', "\\u007f");
                delivery
                    .args
                    .extend(["-c".to_owned(), format!("{KEY}={value}")]);
                content.insert(KEY.to_owned(), json!(text));
                (delivery.env).push((
                    "CODEX_CONFIG".to_owned(),
                    Value::Object(content).to_string(),
                ));
            }
            Channel::Wrapper {
                variable,
                command,
                flag,
                also,
            } => {
                let program = env.get(variable).unwrap_or(command);
                let wrapper = folder.join(file_name(program));
                let script = wrapper_script(program, flag, &path, also.as_deref());
                delivery
                    .env
                    .push((variable.clone(), wrapper.to_string_lossy().into_owned()));
                delivery.files.extend([file, (wrapper.clone(), script)]);
                delivery.executables.push(wrapper);
            }
            Channel::File(path) => {
                let path = match path.strip_prefix("~/") {
                    Some(rest) => home.join(rest),
                    None => PathBuf::from(path),
                };
                delivery.files.push((path, text));
            }
            Channel::Unknown => delivery.first_prompt = self.additional.clone(),
            Channel::None => {}
            // What is too long for a variable or an argument comes here too.
            Channel::FirstPrompt
            | Channel::Environment(_)
            | Channel::Argument(_)
            | Channel::Codex => delivery.first_prompt = Some(text),
        }
        delivery
    }
}

impl Delivery {
    /// Adds everything that concerns the agent's process.
    ///
    /// Where a file must be a program, the process starts through a shell that
    /// makes it one and then becomes the agent: files are written without modes.
    pub fn apply(&self, process: &mut ProcessSpec) {
        process.env.extend(self.env.iter().cloned());
        process.args.extend(self.args.iter().cloned());
        process.files.extend(self.files.iter().cloned());
        if self.executables.is_empty() {
            return;
        }
        let paths: Vec<String> = self
            .executables
            .iter()
            .map(|path| quoted(&path.to_string_lossy()))
            .collect();
        let script = format!("chmod u+x {} && exec \"$@\"", paths.join(" "));
        let command = std::mem::replace(&mut process.command, "/bin/sh".to_owned());
        let args = ["-c".to_owned(), script, "sh".to_owned(), command];
        process.args.splice(0..0, args);
    }
}

/// Merges [`Delivery::meta`] into the params of `session/new`, `session/load`
/// or `session/resume`: texts are joined, with the client's own first.
///
/// A client that uses ACP's own `systemPrompt` gets the text there as well,
/// since agents that know it pass over `_meta.systemPrompt`.
pub fn add_to_session_params(params: &mut Map<String, Value>, meta: &Value) {
    if let Some(text) = meta.pointer("/systemPrompt/append").and_then(Value::as_str)
        && let Some(Value::Array(blocks)) = params
            .get_mut("systemPrompt")
            .and_then(|prompt| prompt.get_mut("content"))
    {
        blocks.push(json!({ "type": "text", "text": text }));
        return;
    }
    let own = params.entry("_meta").or_insert(Value::Null);
    if !own.is_object() {
        *own = json!({});
    }
    merge(own, meta);
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::String(into), Value::String(from)) => *into = joined(Some(into), from),
        // `_meta.systemPrompt` as a text replaces the agent's own: ours goes to its end.
        (Value::String(into), Value::Object(from)) => {
            for text in from.values().filter_map(Value::as_str) {
                *into = joined(Some(into), text);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// `{"a":{"b":text}}` for `/a/b`.
fn nested(pointer: &str, text: String) -> Value {
    pointer
        .split('/')
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .fold(Value::String(text), |inner, key| {
            let key = key.replace("~1", "/").replace("~0", "~");
            Value::Object(Map::from_iter([(key, inner)]))
        })
}

/// What a variable already has. `None` when it is no plain JSON object (it may
/// have comments): then it is the user's, and stays as it is.
fn json_object(text: Option<&String>) -> Option<Map<String, Value>> {
    match text {
        None => Some(Map::new()),
        Some(text) => serde_json::from_str(text).ok(),
    }
}

fn joined(earlier: Option<&str>, text: &str) -> String {
    match earlier {
        Some(earlier) if !earlier.is_empty() => format!("{earlier}\n\n{text}"),
        _ => text.to_owned(),
    }
}

fn wrapper_script(program: &str, flag: &str, path: &str, also: Option<&str>) -> String {
    let (program, path) = (quoted(program), quoted(path));
    let also = match also {
        Some(also) => format!("[ -f \"{also}\" ] && set -- {flag} \"{also}\" \"$@\"\n"),
        None => String::new(),
    };
    format!("#!/bin/sh\n{also}exec {program} {flag} {path} \"$@\"\n")
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn file_name(program: &str) -> String {
    Path::new(program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
