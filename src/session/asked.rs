//! What a client asks for when it names a session's folder, and what is stored of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::acp::Failure;
use crate::acp::extension::SessionOptions;
use crate::acp::methods;
use crate::config::check_variable_name;
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};

/// What a client asks for with `session/new`, `session/load` or `session/resume`.
#[derive(Debug, Clone)]
pub struct Asked {
    pub cwd: PathBuf,
    pub additional_directories: Vec<PathBuf>,
    /// Raw; an array. Absent where a client leaves it out.
    pub mcp_servers: Option<Box<str>>,
    pub options: SessionOptions,
}

impl Asked {
    /// Reads what these requests have in common. Errors name the field.
    pub fn parse(params: Option<&str>) -> Result<Asked, Failure> {
        Asked::parse_in(params, None)
    }

    /// The same for a session whose folder is known, where `cwd` may be left out.
    pub(super) fn parse_in(params: Option<&str>, known: Option<&Path>) -> Result<Asked, Failure> {
        let params = params.unwrap_or("null");
        let Some(members) = splice::members(params) else {
            return Err(Failure::invalid_params(
                "`params` must be an object with `cwd` and `mcpServers`",
            ));
        };
        let value = |key: &str| splice::value(&members, key);
        let named = value("cwd").and_then(message::string);
        let known = known
            .filter(|_| value("cwd").is_none())
            .and_then(Path::to_str);
        let Some(cwd) = named.or(known.map(Cow::Borrowed)) else {
            return Err(Failure::invalid_params(
                "`cwd` is missing: the absolute path of the working folder, a string",
            ));
        };
        // ACP asks for an absolute path; some clients send a relative one and mean their own folder.
        let cwd = std::path::absolute(&*cwd)
            .map_err(|error| Failure::invalid_params(format!("`cwd` {cwd:?}: {error}")))?;
        let mcp_servers = value("mcpServers").filter(|raw| *raw != "null");
        if mcp_servers.is_some_and(|raw| serde_json::from_str::<Vec<&RawValue>>(raw).is_err()) {
            return Err(Failure::invalid_params("`mcpServers` must be an array"));
        }
        let additional_directories = match value("additionalDirectories") {
            None | Some("null") => Vec::new(),
            Some(raw) => serde_json::from_str(raw).map_err(|_| {
                Failure::invalid_params(
                    "`additionalDirectories` must be an array of absolute paths",
                )
            })?,
        };
        Ok(Asked {
            cwd,
            additional_directories,
            mcp_servers: mcp_servers.map(Into::into),
            options: options(params)?,
        })
    }

    /// The MCP servers, raw; an array.
    pub fn mcp_servers(&self) -> &str {
        self.mcp_servers.as_deref().unwrap_or("[]")
    }

    /// What is stored of it: everything but the values of variables and headers.
    pub fn stored(&self) -> String {
        let servers: Value = serde_json::from_str(self.mcp_servers()).unwrap_or_default();
        serde_json::json!({
            "additionalDirectories": self.additional_directories,
            "mcpServers": redacted(servers),
            "envNames": self.options.env.keys().collect::<Vec<_>>(),
            "additionalInstructions": self.options.additional_instructions,
            "skipOsInstructions": self.options.skip_os_instructions,
        })
        .to_string()
    }
}

/// `_meta.acpbox` of the params of such a request.
pub(super) fn options(params: &str) -> Result<SessionOptions, Failure> {
    let meta = splice::member(params, "_meta");
    let options = match meta.and_then(|meta| splice::member(meta, "acpbox")) {
        None | Some("null") => SessionOptions::default(),
        Some(raw) => serde_json::from_str(raw)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox`: {error}")))?,
    };
    for name in options.env.keys() {
        check_variable_name(name, "write the name alone as a key")
            .map_err(|why| Failure::invalid_params(format!("`_meta.acpbox.env` {why}")))?;
    }
    Ok(options)
}

/// A request of a client's as it is stored: without secrets.
pub(super) fn stored_line<'a>(method: &str, text: &'a str) -> Cow<'a, str> {
    let is_of_agent = [methods::AUTHENTICATE, methods::LOGOUT].contains(&method)
        || method.starts_with("providers/")
        || method.starts_with("auth/");
    if is_of_agent {
        return without_values(text).into();
    }
    // Others than `session/new` name MCP servers too, `session/fork` for one.
    match method.starts_with("session/") && method != methods::SESSION_PROMPT {
        true => redacted_line(text).into(),
        false => text.into(),
    }
}

/// A request about the agent's login or its providers: where in its params the
/// secret is, only the agent knows. What merely names things is kept.
fn without_values(text: &str) -> String {
    const NAMES: [&str; 3] = ["methodId", "providerId", "sessionId"];
    let mut edits = Edits::of(text);
    for params in all(text, "params") {
        match splice::members(params) {
            Some(members) => {
                for member in members {
                    if !NAMES.contains(&member.key.as_ref()) {
                        edits.replace(member.value, REDACTED);
                    }
                }
            }
            None => {
                edits.replace(params, "null");
            }
        }
    }
    edits.apply()
}

/// `session/new` as it is stored: values of variables and headers left out,
/// also of keys that come twice.
pub(super) fn redacted_line(text: &str) -> String {
    let mut edits = Edits::of(text);
    for params in all(text, "params") {
        for raw in all(params, "mcpServers") {
            match serde_json::from_str(raw) {
                Ok(servers) if raw.len() > 2 => {
                    edits.replace(raw, redacted(servers).to_string());
                }
                Ok(_) => {}
                // Text that cannot be read is not kept either.
                Err(_) => {
                    edits.replace(raw, "null");
                }
            }
        }
        let ours = all(params, "_meta").flat_map(|meta| all(meta, "acpbox"));
        for env in ours.flat_map(|ours| all(ours, "env")) {
            for variable in splice::members(env).unwrap_or_default() {
                edits.replace(variable.value, REDACTED);
            }
        }
    }
    edits.apply()
}

/// What stands for a value that is not stored, as JSON.
const REDACTED: &str = "\"***\"";

/// The values of every member of that name.
fn all<'a>(object: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    let members = splice::members(object).unwrap_or_default();
    members
        .into_iter()
        .filter(move |member| member.key == key)
        .map(|member| member.value)
}

/// MCP servers without the values of their variables and headers, as ACP writes
/// them (an array of names and values) or as others do (an object).
fn redacted(mut servers: Value) -> Value {
    let hide = |value: &mut Value| *value = Value::from("***");
    for server in servers.as_array_mut().into_iter().flatten() {
        for list in ["env", "headers"] {
            match server.get_mut(list) {
                Some(Value::Array(entries)) => {
                    for entry in entries {
                        match entry.get_mut("value") {
                            Some(value) => hide(value),
                            None => hide(entry),
                        }
                    }
                }
                Some(Value::Object(entries)) => entries.values_mut().for_each(hide),
                Some(Value::Null) | None => {}
                Some(other) => hide(other),
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_and_headers_are_not_stored() {
        let line = r#"{"id":1,"params":{"cwd":"/w","mcpServers":[{"name":"a","env":[{"name":"K","value":"canary1"}],"headers":[{"name":"H","value":"canary2"}]}],"_meta":{"acpbox":{"env":{"S":"canary3","T":"canary4"}},"x":1}}}"#;
        let stored = redacted_line(line);
        assert!(!stored.contains("canary"), "{stored}");
        assert!(
            stored.contains(r#""env":{"S":"***","T":"***"}"#),
            "{stored}"
        );
        let asked = Asked::parse(splice::member(line, "params")).unwrap();
        assert!(!asked.stored().contains("canary"));
        assert!(asked.stored().contains("\"S\""), "names are kept");
    }

    #[test]
    fn wrong_fields_are_named() {
        let check = |params: &str, words: &str| {
            let failure = Asked::parse(Some(params)).unwrap_err();
            assert!(
                failure.message.contains(words),
                "{params}: {}",
                failure.message
            );
        };
        check("[]", "`params`");
        check("{}", "`cwd`");
        check(r#"{"cwd":3}"#, "`cwd`");
        check(r#"{"cwd":"/","mcpServers":{}}"#, "`mcpServers`");
        check(
            r#"{"cwd":"/","additionalDirectories":[1]}"#,
            "`additionalDirectories`",
        );
        check(r#"{"cwd":"/","_meta":{"acpbox":{"agnt":"x"}}}"#, "agnt");
        let env = r#"{"cwd":"/","_meta":{"acpbox":{"env":{"A=b":"c"}}}}"#;
        check(env, "`_meta.acpbox.env` has `A=…`");
    }
}
