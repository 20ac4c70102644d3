//! What agents are sent and clients are answered when a session begins: the
//! message of one side, changed for the other.

use std::path::Path;

use serde_json::Value;

use super::client::Offer;
use super::live::Live;
use super::state::set_meta;
use crate::acp::Phase;
use crate::acp::extension::SessionMeta;
use crate::agent::instructions::add_to_session_params;
use crate::config::VmPlan;
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};

impl Live {
    /// What the user must hear when a session begins: of the database and of the VM.
    pub(super) fn warnings(&self) -> Vec<String> {
        [self.store.warnings(), self.vm.warnings()].concat()
    }
}

/// The agent's view of `session/new`, `load` and `resume`: our options taken
/// out, its own put in, paths as the VM has them.
pub(super) fn agent_params(params: &str, plan: &VmPlan, meta: Option<&Value>) -> String {
    let mut edits = Edits::of(params);
    let members = splice::members(params).unwrap_or_default();
    let value = |key: &str| splice::value(&members, key);
    let path = |path: &Path| Value::from(path.to_string_lossy()).to_string();
    match value("cwd") {
        Some(raw) if message::string(raw).is_some_and(|raw| Path::new(&*raw) == plan.cwd) => {}
        Some(raw) => {
            edits.replace(raw, path(&plan.cwd));
        }
        None => {
            edits.set(params, "cwd", path(&plan.cwd));
        }
    }
    if value("mcpServers").is_none() {
        edits.set(params, "mcpServers", "[]");
    }
    // Only what acpbox itself changes is decoded and written anew.
    let mut changed = serde_json::Map::new();
    if let Some(theirs) = value("_meta").filter(|theirs| theirs.starts_with('{')) {
        let mut kept = Edits::of(theirs);
        kept.remove(theirs, "acpbox");
        let kept = kept.apply();
        let Some(meta) = meta else {
            edits.replace(theirs, kept);
            return edits.apply();
        };
        changed.insert(
            "_meta".into(),
            serde_json::from_str(&kept).unwrap_or_default(),
        );
        with_instructions(&mut edits, params, changed, meta);
    } else if let Some(meta) = meta {
        with_instructions(&mut edits, params, changed, meta);
    }
    edits.apply()
}

fn with_instructions<'a>(
    edits: &mut Edits<'a>,
    params: &'a str,
    mut changed: serde_json::Map<String, Value>,
    meta: &Value,
) {
    if let Some(prompt) =
        splice::member(params, "systemPrompt").and_then(|raw| serde_json::from_str(raw).ok())
    {
        changed.insert("systemPrompt".into(), prompt);
    }
    add_to_session_params(&mut changed, meta);
    for (key, value) in &changed {
        edits.set(params, key, value.to_string());
    }
}

/// The capabilities of the client, less what the VM's border does not allow.
pub(super) fn initialize_params(offer: &Offer) -> String {
    let mut capabilities: Value = serde_json::from_str(&offer.capabilities).unwrap_or_default();
    if let Some(meta) = capabilities.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.shift_remove("acpbox");
    }
    // It would have the editor run the agent's program on the host to log in.
    if let Some(terminal) = capabilities.pointer_mut("/auth/terminal") {
        *terminal = Value::Bool(false);
    }
    if capabilities.is_null() {
        capabilities = serde_json::json!({});
    }
    let info = match &offer.info {
        Some(info) => info.clone(),
        None => own_info().to_string(),
    };
    format!(r#"{{"protocolVersion":1,"clientCapabilities":{capabilities},"clientInfo":{info}}}"#)
}

/// acpbox's own `agentInfo` and `clientInfo`.
pub fn own_info() -> Value {
    serde_json::json!({ "name": "acpbox", "title": "acpbox", "version": env!("CARGO_PKG_VERSION") })
}

/// A result with the public id and our `_meta`.
pub(super) fn announced(result: &str, public: &str, meta: &SessionMeta) -> String {
    let result = if result.trim_start().starts_with('{') {
        result
    } else {
        "{}"
    };
    let mut edits = Edits::of(result);
    if let Some(theirs) = splice::member(result, "sessionId") {
        edits.replace(theirs, public.to_owned());
    }
    set_meta(
        &mut edits,
        result,
        serde_json::to_string(meta).unwrap_or_else(|_| "{}".into()),
    );
    edits.apply()
}

/// An agent's error with what acpbox knows, where the agent gave no data of its own.
pub(super) fn with_context(raw: &str, live: &Live) -> Box<str> {
    let has_data = splice::member(raw, "data").is_some_and(|data| data != "null");
    if has_data || splice::members(raw).is_none() {
        return raw.into();
    }
    let data = crate::acp::failure::FailureData {
        phase: Phase::Session,
        exit: None,
        stderr: live.agent.last_words(),
        hint: None,
        ending: false,
    };
    let mut edits = Edits::of(raw);
    edits.set(
        raw,
        "data",
        serde_json::to_string(&data).unwrap_or_else(|_| "null".into()),
    );
    edits.apply().into()
}
