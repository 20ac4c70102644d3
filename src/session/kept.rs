//! What a stored session was created with, and what its client says anew.

use std::collections::BTreeMap;

use serde_json::Value;

use super::asked::Asked;
use super::host::Host;
use crate::acp::extension::{ForkedFrom, SessionOptions};
use crate::acp::failure::RESOURCE_NOT_FOUND;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::config::VmPlan;
use crate::rpc::splice::{self, Edits};
use crate::store::{EventPage, SessionRow};

/// How a stored session is to go on.
pub(super) struct Kept {
    pub(super) asked: Asked,
    pub(super) plan: VmPlan,
    /// What a row is to store of it.
    pub(super) options: String,
    /// See [`Restored::missing`](crate::acp::extension::Restored::missing).
    pub(super) missing: Vec<String>,
    /// What is not as the client asked, or not as it was.
    pub(super) reasons: Vec<String>,
    /// Whether the MCP servers are the client's, with all their values.
    pub(super) has_servers: bool,
    /// Whether the client said something that the agent was not told before.
    pub(super) has_new_instructions: bool,
}

impl Host {
    /// Puts what is stored of a session together with what a client asks for now.
    /// Errors say what is gone and how to go on without it.
    pub(super) fn kept(&self, row: &SessionRow, asked: Option<&Asked>) -> Result<Kept, Failure> {
        let stored: Value = serde_json::from_str(&row.options).unwrap_or_default();
        let mut kept = as_stored(row, &stored);
        let mut has_new_instructions = false;
        let mut has_servers = false;
        if let Some(asked) = asked {
            if asked.mcp_servers.is_some() {
                kept.mcp_servers.clone_from(&asked.mcp_servers);
                has_servers = true;
            }
            if !asked.additional_directories.is_empty() {
                kept.additional_directories
                    .clone_from(&asked.additional_directories);
            }
            let (options, new) = (&mut kept.options, &asked.options);
            options.env.clone_from(&new.env);
            if new.agent.is_some() {
                options.agent.clone_from(&new.agent);
            }
            if new.vm.is_some() {
                options.vm.clone_from(&new.vm);
            }
            if new.additional_instructions.is_some()
                && new.additional_instructions != options.additional_instructions
            {
                options
                    .additional_instructions
                    .clone_from(&new.additional_instructions);
                has_new_instructions = true;
            }
            options.skip_os_instructions |= new.skip_os_instructions;
        }
        let agent = kept.options.agent.as_deref().unwrap_or(&row.agent);
        if let Err(error) = self.catalog.get(agent) {
            return Err(Failure::internal(
                Phase::Spawn,
                format!("the session's agent is not configured any more: {error}"),
            )
            .hint(readable(row)));
        }
        let mut reasons = Vec::new();
        let plan = self.plan_again(row, asked, &mut kept, &mut reasons)?;
        let mut missing = self.missing_variables(&stored, &kept);
        if !has_servers {
            missing.extend(missing_of_servers(&stored));
        }
        let options = restored_options(stored, &kept, has_servers);
        Ok(Kept {
            asked: kept,
            plan,
            options,
            missing,
            reasons,
            has_servers,
            has_new_instructions,
        })
    }

    /// The VM and the folder. A folder that the client names now counts if the
    /// session's VM shares it, or if the one that the session had is gone.
    fn plan_again(
        &self,
        row: &SessionRow,
        asked: Option<&Asked>,
        kept: &mut Asked,
        reasons: &mut Vec<String>,
    ) -> Result<VmPlan, Failure> {
        let vm = kept.options.vm.clone();
        let named = asked.map(|asked| &asked.cwd).filter(|cwd| **cwd != row.cwd);
        if let Some(cwd) = named {
            kept.cwd.clone_from(cwd);
            match self.plan(kept, vm.as_deref()) {
                Ok(plan) => return Ok(plan),
                Err(failure) if row.cwd.is_dir() => {
                    let here = row.cwd.display();
                    reasons.push(format!("the session stays in {here}: {}", failure.message));
                    kept.cwd.clone_from(&row.cwd);
                }
                Err(_) => {
                    // The folder has moved, and the old VM belonged to the old place.
                    let asked_vm = asked.and_then(|asked| asked.options.vm.clone());
                    kept.options.vm = asked_vm;
                    let plan = self.plan(kept, None)?;
                    reasons.push(format!(
                        "{} is gone: the session goes on in {}, in VM `{}`",
                        row.cwd.display(),
                        cwd.display(),
                        plan.spec.name
                    ));
                    return Ok(plan);
                }
            }
        }
        if !kept.cwd.is_dir() {
            let what = format!(
                "Resource not found: the session's folder {} is gone",
                kept.cwd.display()
            );
            let failure = Failure::new(Phase::Session, RESOURCE_NOT_FOUND, what);
            let hint = "put it back, or load the session with the `cwd` where it is now";
            return Err(failure.hint(format!("{hint}; {}", readable(row))));
        }
        self.plan(kept, vm.as_deref())
            .map_err(|failure| failure.hint(readable(row)))
    }

    /// Variables that the client set at creation and that the agent now lacks.
    fn missing_variables(&self, stored: &Value, kept: &Asked) -> Vec<String> {
        let agent = kept.options.agent.as_deref();
        let agent = agent.and_then(|agent| self.catalog.get(agent).ok());
        let is_there = |name: &str| {
            kept.options.env.contains_key(name)
                || agent.is_some_and(|agent| {
                    agent.env.contains_key(name)
                        || (agent.pass_env.iter().any(|passed| passed == name)
                            && self.environment.variable(name).is_some())
                })
        };
        let names = stored.get("envNames").and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        let missing = names.filter(|name| !is_there(name));
        missing.map(str::to_owned).collect()
    }

    /// The params of a request that brings a session back, for any of the agent's
    /// methods and without `sessionId`: the client's, with what only its creation had.
    pub(super) async fn params_again(
        &self,
        session: &str,
        params: Option<&str>,
        kept: &Kept,
    ) -> Result<String, Failure> {
        let page = EventPage {
            session: session.to_owned(),
            after: Some(0),
            // It is among the first.
            before: Some(1000),
            limit: 1,
            max_bytes: usize::MAX,
            kinds: vec![methods::SESSION_NEW.to_owned()],
        };
        let created = self.store.events(page).await?.pop();
        let created = created
            .as_ref()
            .and_then(|row| splice::member(&row.raw, "params"));
        let params = merged(params.unwrap_or("{}"), created.unwrap_or("{}"));
        let mut edits = Edits::of(&params);
        edits.remove(&params, "sessionId");
        let mut params = edits.apply();
        if is_empty(&params) {
            params = serde_json::json!({"cwd": kept.plan.cwd}).to_string();
        }
        let mut edits = Edits::of(&params);
        let folders = &kept.plan.additional_directories;
        edits.set(&params, "mcpServers", kept.asked.mcp_servers().to_owned());
        if folders.is_empty() {
            // Agents that do not know the field need not see it.
            edits.remove(&params, "additionalDirectories");
        } else {
            let folders = serde_json::to_string(folders).unwrap_or_else(|_| "[]".into());
            edits.set(&params, "additionalDirectories", folders);
        }
        Ok(edits.apply())
    }
}

/// Where a session was forked from, if it was.
pub fn forked_from(row: &SessionRow) -> Option<ForkedFrom> {
    let from = splice::member(&row.options, "forkedFrom")?;
    serde_json::from_str(from).ok()
}

fn readable(row: &SessionRow) -> String {
    format!(
        "the transcript can be read with `acpbox sessions show {}` and _acpbox/session/events",
        row.id
    )
}

fn is_empty(object: &str) -> bool {
    splice::members(object).is_none_or(|members| members.is_empty())
}

/// `params`, with the members of `created` that it lacks; the same for `_meta`.
fn merged(params: &str, created: &str) -> String {
    if is_empty(params) {
        return created.to_owned();
    }
    let lacks = |object: &str, key: &str| splice::member(object, key).is_none();
    let mut edits = Edits::of(params);
    for member in splice::members(created).unwrap_or_default() {
        let key = member.key.as_ref();
        if key == "_meta" {
            let ours = splice::member(params, "_meta").filter(|ours| !is_empty(ours));
            let Some(ours) = ours else {
                edits.set(params, key, member.value);
                continue;
            };
            for theirs in splice::members(member.value).unwrap_or_default() {
                if theirs.key != "acpbox" && lacks(ours, &theirs.key) {
                    edits.set(ours, &theirs.key, theirs.value);
                }
            }
        } else if lacks(params, key) {
            edits.set(params, key, member.value);
        }
    }
    edits.apply()
}

fn as_stored(row: &SessionRow, stored: &Value) -> Asked {
    let text = |key: &str| stored.get(key).and_then(Value::as_str).map(str::to_owned);
    let directories = stored
        .get("additionalDirectories")
        .cloned()
        .unwrap_or_default();
    Asked {
        cwd: row.cwd.clone(),
        additional_directories: serde_json::from_value(directories).unwrap_or_default(),
        mcp_servers: Some(servers_without_secrets(stored).into()),
        options: SessionOptions {
            agent: Some(row.agent.clone()),
            vm: Some(row.vm.clone()),
            env: BTreeMap::new(),
            additional_instructions: text("additionalInstructions"),
            skip_os_instructions: stored.get("skipOsInstructions") == Some(&Value::Bool(true)),
            ..SessionOptions::default()
        },
    }
}

/// What the row had, with what is new; names of variables add up.
fn restored_options(stored: Value, kept: &Asked, has_servers: bool) -> String {
    let mut options = match stored {
        Value::Object(options) => options,
        _ => serde_json::Map::new(),
    };
    let mut names: Vec<Value> = options
        .get("envNames")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for name in kept.options.env.keys() {
        if !names.iter().any(|known| known == name.as_str()) {
            names.push(name.as_str().into());
        }
    }
    let new = serde_json::from_str::<Value>(&kept.stored()).unwrap_or_default();
    for (key, value) in new.as_object().into_iter().flatten() {
        match key.as_str() {
            "envNames" => {}
            // The values that are stored are less than what is kept of them.
            "mcpServers" if !has_servers => {}
            _ => {
                options.insert(key.clone(), value.clone());
            }
        }
    }
    options.insert("envNames".into(), names.into());
    Value::Object(options).to_string()
}

/// What stands for a value that was not stored.
const REDACTED: &str = "***";
/// The parts of an MCP server that have such.
const SECRETS: [&str; 2] = ["env", "headers"];

fn is_redacted(entry: &Value) -> bool {
    *entry == REDACTED || entry.get("value") == Some(&Value::from(REDACTED))
}

/// The stored MCP servers, less the variables and headers whose values were not stored.
fn servers_without_secrets(stored: &Value) -> String {
    let servers = stored.get("mcpServers").cloned();
    let mut servers = servers.unwrap_or_else(|| Value::Array(Vec::new()));
    for server in servers.as_array_mut().into_iter().flatten() {
        for list in SECRETS {
            match server.get_mut(list) {
                Some(Value::Array(entries)) => entries.retain(|entry| !is_redacted(entry)),
                Some(Value::Object(entries)) => entries.retain(|_, value| !is_redacted(value)),
                _ => {}
            }
        }
    }
    servers.to_string()
}

/// `mcpServers/NAME/env/VARIABLE` of each of those.
fn missing_of_servers(stored: &Value) -> Vec<String> {
    let servers = stored.get("mcpServers").and_then(Value::as_array);
    let mut missing = Vec::new();
    for server in servers.into_iter().flatten() {
        let name = server.get("name").and_then(Value::as_str).unwrap_or("?");
        for list in SECRETS {
            let mut add = |secret: &str| missing.push(format!("mcpServers/{name}/{list}/{secret}"));
            match server.get(list) {
                Some(Value::Array(entries)) => {
                    for entry in entries.iter().filter(|entry| is_redacted(entry)) {
                        add(entry.get("name").and_then(Value::as_str).unwrap_or("?"));
                    }
                }
                Some(Value::Object(entries)) => {
                    let hidden = entries.iter().filter(|(_, value)| is_redacted(value));
                    hidden.for_each(|(name, _)| add(name));
                }
                _ => {}
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_leaves_out_is_as_at_creation() {
        let check = |params: &str, created: &str, expected: &str| {
            let merged: Value = serde_json::from_str(&merged(params, created)).unwrap();
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(merged, expected, "{params} {created}");
        };
        check(
            "{}",
            r#"{"a":1,"_meta":{"x":2}}"#,
            r#"{"a":1,"_meta":{"x":2}}"#,
        );
        check(
            r#"{"a":3,"_meta":{"y":4}}"#,
            r#"{"a":1,"b":2,"_meta":{"x":2,"y":3,"acpbox":{}}}"#,
            r#"{"a":3,"b":2,"_meta":{"y":4,"x":2}}"#,
        );
        check("{}", r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#);
        check(
            r#"{"_meta":null}"#,
            r#"{"_meta":{"x":2,"y":3}}"#,
            r#"{"_meta":{"x":2,"y":3}}"#,
        );
        check(
            r#"{"_meta":{}}"#,
            r#"{"_meta":{"x":2,"y":3}}"#,
            r#"{"_meta":{"x":2,"y":3}}"#,
        );
    }

    #[test]
    fn what_was_not_stored_is_named() {
        let stored = serde_json::json!({"mcpServers": [
            {"name": "a", "env": [{"name": "K", "value": "***"}, {"name": "P", "value": "v"}]},
            {"name": "b", "headers": {"Authorization": "***"}},
        ]});
        assert_eq!(
            missing_of_servers(&stored),
            ["mcpServers/a/env/K", "mcpServers/b/headers/Authorization"]
        );
        assert_eq!(
            servers_without_secrets(&stored),
            r#"[{"name":"a","env":[{"name":"P","value":"v"}]},{"name":"b","headers":{}}]"#
        );
    }
}
