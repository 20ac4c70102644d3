//! `session/new`: a VM, an agent in it, and the first lines of a transcript.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Client, Offer};
use super::host::{Bounds, Host};
use super::live::{Live, Parts};
use super::registry::Lease;
use super::roots::Roots;
use super::state::{OwnError, State, now, set_meta};
use crate::acp::extension::{SessionMeta, SessionOptions};
use crate::acp::failure::AUTH_REQUIRED;
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::agent::instructions::Delivery;
use crate::agent::process::AgentProcess;
use crate::config::VmPlan;
use crate::rpc::splice::{self, Edits};
use crate::rpc::{Pending, message};
use crate::store::{Direction, SessionRow};
use crate::vm::{Io, ProcessSpec};

/// What a client asks for with `session/new`, `session/load` or `session/resume`.
#[derive(Debug)]
pub struct Asked {
    pub cwd: PathBuf,
    pub additional_directories: Vec<PathBuf>,
    /// Raw; an array.
    pub mcp_servers: Box<str>,
    pub options: SessionOptions,
}

/// An agent to start.
pub struct Start<'a> {
    pub row: SessionRow,
    pub plan: &'a VmPlan,
    /// From the client, over what the catalogue gives.
    pub env: BTreeMap<String, String>,
    pub delivery: Delivery,
    pub offer: Arc<Offer>,
    pub next_seq: i64,
    /// Whether the session is in the database and known to clients.
    pub is_stored: bool,
    pub lease: Option<Lease>,
}

/// Why no session came about.
#[derive(Debug)]
pub enum Refusal {
    /// The agent's own raw error object.
    Agent(Box<str>),
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Failed(failure)
    }
}

impl Asked {
    /// Reads what these requests have in common. Errors name the field.
    pub fn parse(params: Option<&str>) -> Result<Asked, Failure> {
        let params = params.unwrap_or("null");
        let Some(members) = splice::members(params) else {
            return Err(Failure::invalid_params("`params` must be an object with `cwd` and `mcpServers`"));
        };
        let value = |key: &str| members.iter().rev().find(|member| member.key == key).map(|member| member.value);
        let Some(cwd) = value("cwd").and_then(message::string) else {
            return Err(Failure::invalid_params("`cwd` is missing: the absolute path of the working folder, a string"));
        };
        // ACP asks for an absolute path; some clients send a relative one and mean their own folder.
        let cwd = std::path::absolute(&*cwd)
            .map_err(|error| Failure::invalid_params(format!("`cwd` {cwd:?}: {error}")))?;
        let mcp_servers = value("mcpServers").unwrap_or("[]");
        if serde_json::from_str::<Vec<&RawValue>>(mcp_servers).is_err() {
            return Err(Failure::invalid_params("`mcpServers` must be an array"));
        }
        let additional_directories = match value("additionalDirectories") {
            None | Some("null") => Vec::new(),
            Some(raw) => serde_json::from_str(raw).map_err(|_| {
                Failure::invalid_params("`additionalDirectories` must be an array of absolute paths")
            })?,
        };
        let options = match value("_meta").and_then(|meta| splice::member(meta, "acpbox")) {
            None | Some("null") => SessionOptions::default(),
            Some(raw) => serde_json::from_str(raw)
                .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox`: {error}")))?,
        };
        Ok(Asked {
            cwd,
            additional_directories,
            mcp_servers: mcp_servers.into(),
            options,
        })
    }

    /// What is stored of it: everything but the values of variables and headers.
    pub fn stored(&self) -> String {
        let servers: Value = serde_json::from_str(&self.mcp_servers).unwrap_or_default();
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

impl Host {
    /// Handles `session/new` and answers it.
    pub async fn new_session(
        self: &Arc<Host>,
        client: &Arc<Client>,
        text: &str,
        id: &str,
        params: Option<&str>,
    ) -> Result<(), Refusal> {
        let asked = Asked::parse(params)?;
        let plan = self.plan(&asked, None)?;
        let agent = asked.options.agent.clone().unwrap_or_else(|| self.config.default_agent.clone());
        let session = Uuid::now_v7().to_string();
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let row = SessionRow {
            id: session.clone(),
            agent,
            vm: plan.spec.name.clone(),
            agent_session: None,
            cwd: asked.cwd.clone(),
            title: None,
            created: now(),
            updated: now(),
            state: "open".into(),
            options: asked.stored(),
        };
        let delivery = self.instructions(&row.agent, &session, &plan, &asked)?;
        let meta = delivery.meta.clone();
        let live = match client.unpark(&row.agent, &row.vm).filter(|_| asked.options.env.is_empty()) {
            // It asked for authentication before; its id was never announced.
            Some(parked) => parked,
            None => {
                let start = Start {
                    lease: Some(self.registry.lease(&session)?),
                    row,
                    plan: &plan,
                    env: asked.options.env.clone(),
                    delivery,
                    offer: client.offer(),
                    next_seq: 1,
                    is_stored: false,
                };
                self.start_agent(start).await?
            }
        };
        live.set_roots(self.roots(&plan, &asked));
        live.attach(client);
        let outcome = self.begin(&live, client, &asked, &plan, meta, text, id, params).await;
        match outcome {
            Ok(()) => {
                if *live.id == *session {
                    *slot = Some(live);
                } else {
                    drop(slot);
                    let own = self.registry.slot(&live.id);
                    *own.lock().await = Some(live);
                }
                Ok(())
            }
            Err(Refusal::Agent(error)) if code(&error) == Some(AUTH_REQUIRED) => {
                live.detach(client);
                client.park(live);
                Err(Refusal::Agent(error))
            }
            Err(refusal) => {
                live.close().await;
                Err(refusal)
            }
        }
    }

    /// Asks the agent for its session, stores ours, and announces it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    async fn begin(
        &self,
        live: &Arc<Live>,
        client: &Arc<Client>,
        asked: &Asked,
        plan: &VmPlan,
        meta: Option<Value>,
        text: &str,
        id: &str,
        params: Option<&str>,
    ) -> Result<(), Refusal> {
        live.note(|state, batch| {
            state.record(batch, Direction::Client, methods::SESSION_NEW.into(), redacted_line(text));
        })
        .await?;
        let south = agent_params(params.unwrap_or("{}"), plan, meta);
        let patience = live.bounds.session_timeout;
        let result = live.request(methods::SESSION_NEW, &south, patience).await.map_err(|error| match error {
            OwnError::Agent(raw) => Refusal::Agent(with_context(&raw, live)),
            OwnError::Failed(failure) => Refusal::Failed(failure),
        })?;
        let Some(theirs) = splice::member(&result, "sessionId").and_then(message::string) else {
            let what = format!("the agent `{}` answered session/new without a `sessionId`", live.agent_name);
            return Err(Failure::internal(Phase::Session, what).stderr(live.agent.last_words()).into());
        };
        let row = {
            let mut state = live.state();
            state.row.agent_session = Some(theirs.into_owned());
            state.row.cwd.clone_from(&asked.cwd);
            state.row.options = asked.stored();
            state.row.clone()
        };
        self.store.create_session(&row).await.map_err(Failure::from)?;
        let warnings = live.vm.warnings();
        live.transact(|state, batch| {
            let early = std::mem::take(&mut state.early);
            batch.events.extend(early);
            state.is_stored = true;
            let meta = SessionMeta {
                agent: live.agent_name.clone(),
                vm: live.vm_name.clone(),
                last_seq: state.next_seq,
                restored: None,
                warnings,
            };
            let shown = announced(&result, &state.public_id(), &meta);
            let line = message::result(id, &shown);
            state.record(batch, Direction::Agent, response_kind(methods::SESSION_NEW, false), line.as_str());
            batch.durable = true;
            batch.send(client, &[&line]);
            state.is_announced = true;
            for held in std::mem::take(&mut state.held) {
                batch.send(client, &[&held]);
            }
        })
        .await?;
        Ok(())
    }

    /// Plans the VM of what is asked for.
    pub(super) fn plan(&self, asked: &Asked, vm: Option<&str>) -> Result<VmPlan, Failure> {
        let vm = vm.or(asked.options.vm.as_deref());
        self.config
            .vm_for(vm, &asked.cwd, &asked.additional_directories, &self.environment)
            .map_err(|error| Failure::invalid_params(error.to_string()))
    }

    /// The session's folders, as the client and as the VM name them.
    pub(super) fn roots(&self, plan: &VmPlan, asked: &Asked) -> Roots {
        let mut folders = vec![plan.cwd.clone(), asked.cwd.clone()];
        folders.extend(plan.additional_directories.iter().cloned());
        folders.extend(asked.additional_directories.iter().cloned());
        folders.dedup();
        Roots::pin(folders, plan.spec.protected.clone())
    }

    /// Boots the VM if need be, starts the agent in it and initializes it.
    pub(super) async fn start_agent(self: &Arc<Host>, start: Start<'_>) -> Result<Arc<Live>, Failure> {
        let Start { row, plan, env, delivery, offer, next_seq, is_stored, lease } = start;
        let agent = self
            .catalog
            .get(&row.agent)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox.agent`: {error}")))?;
        let located = agent
            .locate(&self.environment)
            .map_err(|error| Failure::internal(Phase::Spawn, error.to_string()))?;
        let mounts = if plan.driver == "host" { Vec::new() } else { self.catalog.mounts(&self.environment, &located) };
        let running = self
            .vms
            .get(plan, mounts, || !self.registry.in_vm(&plan.spec.name).is_empty())
            .await?;
        let mut environment = agent.environment(&self.environment, &plan.guest, &located);
        let base_environment = agent.base_environment(&self.environment, &plan.guest, &located);
        environment.extend(delivery.env);
        environment.extend(env);
        let mut args = located.args.clone();
        args.extend(delivery.args);
        let spec = ProcessSpec {
            command: located.command.to_string_lossy().into_owned(),
            args,
            env: environment,
            cwd: plan.cwd.clone(),
            files: delivery.files,
            io: Io::Pipes,
        };
        let spawned = async {
            let process = running.vm.spawn(spec).await?;
            AgentProcess::connect(process, self.config.limits.line_bytes)
                .map_err(|error| crate::vm::SpawnError::Failed { command: row.agent.clone(), detail: error.to_string() })
        };
        let (process, output) = spawned.await.map_err(|error| {
            Failure::internal(Phase::Spawn, format!("the agent `{}` did not start: {error}", row.agent))
                .hint("`acpbox doctor` checks what agents need")
        })?;
        let bounds = Bounds::from(&self.config.limits);
        let session: Arc<str> = row.id.as_str().into();
        let state = State {
            session,
            next_seq,
            is_stored,
            early: Vec::new(),
            is_announced: is_stored,
            held: Vec::new(),
            is_swallowing: false,
            pending: Pending::new(bounds.pending_requests),
            clients: Vec::new(),
            turn: None,
            queue: VecDeque::new(),
            first_prompt: delivery.first_prompt,
            ended: None,
            row,
        };
        let live = Arc::new(Live::new(Parts {
            state,
            agent: process,
            vm: running.vm,
            store: self.store.clone(),
            bounds,
            base_environment,
            lease,
        }));
        tokio::spawn(Arc::clone(&live).run(output));
        match self.initialize(&live, &offer).await {
            Ok(()) => Ok(live),
            Err(failure) => {
                live.close().await;
                Err(failure)
            }
        }
    }

    async fn initialize(&self, live: &Arc<Live>, offer: &Offer) -> Result<(), Failure> {
        let patience = live.bounds.initialize_timeout;
        let result = match live.request(methods::INITIALIZE, &initialize_params(offer), patience).await {
            Ok(result) => result,
            Err(OwnError::Failed(failure)) => return Err(failure),
            Err(OwnError::Agent(raw)) => {
                let what = format!("the agent `{}` refused to initialize: {raw}", live.agent_name);
                return Err(Failure::internal(Phase::Initialize, what).stderr(live.agent.last_words()));
            }
        };
        // Some agents echo whatever they are sent; one that answers otherwise does not speak it.
        let version = splice::member(&result, "protocolVersion").unwrap_or("1");
        if version != "1" {
            let what = format!("the agent `{}` speaks ACP version {version}, acpbox version 1", live.agent_name);
            return Err(Failure::internal(Phase::Initialize, what).hint("use a version of the agent that speaks ACP 1"));
        }
        live.set_initialized(&result);
        let key = capabilities_key(&live.agent_name);
        if self.store.setting(&key).await.ok().flatten().as_deref() != Some(&*result)
            && let Err(error) = self.store.set_setting(&key, &result).await
        {
            tracing::warn!(%error, "the agent's capabilities could not be kept");
        }
        Ok(())
    }

    /// The base instructions and the client's, as the agent takes them.
    pub(super) fn instructions(
        &self,
        agent: &str,
        session: &str,
        plan: &VmPlan,
        asked: &Asked,
    ) -> Result<Delivery, Failure> {
        let agent = self
            .catalog
            .get(agent)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox.agent`: {error}")))?;
        let additional = asked.options.additional_instructions.as_deref();
        Ok(agent.deliver(plan, session, asked.options.skip_os_instructions, additional))
    }
}

/// Where an agent's answer to `initialize` is remembered.
pub fn capabilities_key(agent: &str) -> String {
    format!("agent/{agent}/initialize")
}

/// The agent's view of `session/new`, `load` and `resume`: our options taken
/// out, its own put in, paths as the VM has them.
pub(super) fn agent_params(params: &str, plan: &VmPlan, meta: Option<Value>) -> String {
    let mut edits = Edits::of(params);
    let members = splice::members(params).unwrap_or_default();
    let value = |key: &str| members.iter().rev().find(|member| member.key == key).map(|member| member.value);
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
    match value("_meta").filter(|theirs| theirs.starts_with('{')) {
        Some(theirs) => {
            let mut kept = Edits::of(theirs);
            kept.remove(theirs, "acpbox");
            let kept = kept.apply();
            let merged = match meta {
                Some(Value::Object(ours)) => merge_meta(&kept, ours),
                _ => kept,
            };
            edits.replace(theirs, merged);
        }
        None => {
            if let Some(meta) = meta {
                edits.set(params, "_meta", meta.to_string());
            }
        }
    }
    edits.apply()
}

/// Adds our members to the client's `_meta`. Where both have one, texts are
/// joined; else the client's stays.
fn merge_meta(theirs: &str, ours: serde_json::Map<String, Value>) -> String {
    let mut text = theirs.to_owned();
    for (key, value) in ours {
        let existing = splice::member(&text, &key).and_then(|raw| serde_json::from_str::<Value>(raw).ok());
        let joined = match (existing, value) {
            (None, ours) => ours,
            (Some(Value::Object(mut theirs)), Value::Object(ours)) => {
                for (name, value) in ours {
                    match (theirs.get_mut(&name), value) {
                        (Some(Value::String(text)), Value::String(more)) => *text = format!("{more}\n\n{text}"),
                        (Some(_), _) => {}
                        (None, value) => {
                            theirs.insert(name, value);
                        }
                    }
                }
                Value::Object(theirs)
            }
            (Some(theirs), _) => theirs,
        };
        let mut edits = Edits::of(&text);
        edits.set(&text, &key, joined.to_string());
        text = edits.apply();
    }
    text
}

/// The capabilities of the client, less what the VM's border does not allow.
fn initialize_params(offer: &Offer) -> String {
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
    let result = if result.trim_start().starts_with('{') { result } else { "{}" };
    let mut edits = Edits::of(result);
    if let Some(theirs) = splice::member(result, "sessionId") {
        edits.replace(theirs, public.to_owned());
    }
    set_meta(&mut edits, result, serde_json::to_string(meta).unwrap_or_else(|_| "{}".into()));
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
    };
    let mut edits = Edits::of(raw);
    edits.set(raw, "data", serde_json::to_string(&data).unwrap_or_else(|_| "null".into()));
    edits.apply().into()
}

fn code(error: &str) -> Option<i32> {
    splice::member(error, "code")?.parse().ok()
}

/// `session/new` as it is stored: values of variables and headers left out.
pub(super) fn redacted_line(text: &str) -> String {
    let Some(params) = splice::member(text, "params") else {
        return text.to_owned();
    };
    let mut edits = Edits::of(text);
    if let Some(raw) = splice::member(params, "mcpServers")
        && let Ok(servers) = serde_json::from_str(raw)
        && raw.len() > 2
    {
        edits.replace(raw, redacted(servers).to_string());
    }
    let env = splice::member(params, "_meta")
        .and_then(|meta| splice::member(meta, "acpbox"))
        .and_then(|ours| splice::member(ours, "env"));
    for member in env.and_then(splice::members).unwrap_or_default() {
        edits.replace(member.value, "\"***\"");
    }
    edits.apply()
}

/// MCP servers without the values of their variables and headers.
fn redacted(mut servers: Value) -> Value {
    for server in servers.as_array_mut().into_iter().flatten() {
        for list in ["env", "headers"] {
            for entry in server.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(value) = entry.get_mut("value") {
                    *value = Value::from("***");
                }
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
        assert!(stored.contains(r#""env":{"S":"***","T":"***"}"#), "{stored}");
        let asked = Asked::parse(splice::member(line, "params")).unwrap();
        assert!(!asked.stored().contains("canary"));
        assert!(asked.stored().contains("\"S\""), "names are kept");
    }

    #[test]
    fn wrong_fields_are_named() {
        let check = |params: &str, words: &str| {
            let failure = Asked::parse(Some(params)).unwrap_err();
            assert!(failure.message.contains(words), "{params}: {}", failure.message);
        };
        check("[]", "`params`");
        check("{}", "`cwd`");
        check(r#"{"cwd":3}"#, "`cwd`");
        check(r#"{"cwd":"/","mcpServers":{}}"#, "`mcpServers`");
        check(r#"{"cwd":"/","additionalDirectories":[1]}"#, "`additionalDirectories`");
        check(r#"{"cwd":"/","_meta":{"acpbox":{"agnt":"x"}}}"#, "agnt");
    }
}
