//! `session/new`: a VM, an agent in it, and the first lines of a transcript.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Client, Offer};
use super::host::{Bounds, Host};
use super::live::{Live, Parts, Unclaimed};
use super::registry::Lease;
use super::roots::Roots;
use super::state::{OwnError, State, now, set_meta};
use crate::acp::extension::{SessionMeta, SessionOptions};
use crate::acp::failure::AUTH_REQUIRED;
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::agent::catalog::{Agent, LocateError, Located};
use crate::agent::instructions::{Facts, Instructions, add_to_session_params, session_folder};
use crate::agent::process::AgentProcess;
use crate::config::VmPlan;
use crate::rpc::splice::{self, Edits};
use crate::rpc::{Pending, message};
use crate::store::{Direction, SessionRow};
use crate::vm::{Io, Mount, ProcessSpec};

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
    pub asked: &'a Asked,
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
            return Err(Failure::invalid_params(
                "`params` must be an object with `cwd` and `mcpServers`",
            ));
        };
        let value = |key: &str| {
            members
                .iter()
                .rev()
                .find(|member| member.key == key)
                .map(|member| member.value)
        };
        let Some(cwd) = value("cwd").and_then(message::string) else {
            return Err(Failure::invalid_params(
                "`cwd` is missing: the absolute path of the working folder, a string",
            ));
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
                Failure::invalid_params(
                    "`additionalDirectories` must be an array of absolute paths",
                )
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

    /// Whether any running agent would do.
    fn is_plain(&self) -> bool {
        self.options.env.is_empty() && self.options.additional_instructions.is_none()
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
        let session = Uuid::now_v7().to_string();
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let row = self.row(&session, &asked, &plan);
        let live = match asked
            .is_plain()
            .then(|| client.unpark(&row.agent, &row.vm))
            .flatten()
        {
            // It asked for authentication before; its id was never announced.
            Some(parked) => parked,
            None => {
                let start = Start {
                    lease: Some(self.registry.lease(&session)?),
                    row,
                    plan: &plan,
                    asked: &asked,
                    offer: client.offer(),
                    next_seq: 1,
                    is_stored: false,
                };
                self.start_agent(start).await?
            }
        };
        let unclaimed = Unclaimed::new(Arc::clone(&live));
        live.set_roots(self.roots(&plan, &asked));
        live.attach(client);
        let outcome = self
            .begin(&live, client, &asked, &plan, text, id, params)
            .await;
        match outcome {
            Ok(()) => {
                unclaimed.claim();
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
                unclaimed.claim();
                client.park(live);
                Err(Refusal::Agent(error))
            }
            Err(refusal) => {
                live.close().await;
                Err(refusal)
            }
        }
    }

    /// Starts the default agent without a session, for methods that concern the agent.
    pub async fn start_without_session(
        self: &Arc<Host>,
        client: &Arc<Client>,
        cwd: PathBuf,
    ) -> Result<Arc<Live>, Failure> {
        let asked = Asked {
            cwd,
            additional_directories: Vec::new(),
            mcp_servers: "[]".into(),
            options: SessionOptions::default(),
        };
        let plan = self.plan(&asked, None)?;
        let session = Uuid::now_v7().to_string();
        let row = self.row(&session, &asked, &plan);
        self.start_agent(Start {
            lease: Some(self.registry.lease(&session)?),
            row,
            plan: &plan,
            asked: &asked,
            offer: client.offer(),
            next_seq: 1,
            is_stored: false,
        })
        .await
    }

    fn row(&self, session: &str, asked: &Asked, plan: &VmPlan) -> SessionRow {
        SessionRow {
            id: session.to_owned(),
            agent: asked
                .options
                .agent
                .clone()
                .unwrap_or_else(|| self.config.default_agent.clone()),
            vm: plan.spec.name.clone(),
            agent_session: None,
            cwd: asked.cwd.clone(),
            title: None,
            created: now(),
            updated: now(),
            state: "open".into(),
            options: asked.stored(),
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
        text: &str,
        id: &str,
        params: Option<&str>,
    ) -> Result<(), Refusal> {
        live.note(|state, batch| {
            state.record(
                batch,
                Direction::Client,
                methods::SESSION_NEW.into(),
                redacted_line(text),
            );
        })
        .await?;
        let south = agent_params(params.unwrap_or("{}"), plan, live.meta.as_ref());
        let patience = live.bounds.session_timeout;
        let result = live
            .request(methods::SESSION_NEW, &south, patience)
            .await
            .map_err(|error| match error {
                OwnError::Agent(raw) => Refusal::Agent(with_context(&raw, live)),
                OwnError::Failed(failure) => Refusal::Failed(failure),
            })?;
        let Some(theirs) = splice::member(&result, "sessionId").and_then(message::string) else {
            let what = format!(
                "the agent `{}` answered session/new without a `sessionId`",
                live.agent_name
            );
            return Err(Failure::internal(Phase::Session, what)
                .stderr(live.agent.last_words())
                .into());
        };
        let row = {
            let mut state = live.state();
            state.row.agent_session = Some(theirs.into_owned());
            state.row.cwd.clone_from(&asked.cwd);
            state.row.options = asked.stored();
            state.row.clone()
        };
        self.store
            .create_session(&row)
            .await
            .map_err(Failure::from)?;
        live.open_log().await;
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
            state.record(
                batch,
                Direction::Agent,
                response_kind(methods::SESSION_NEW, false),
                line.as_str(),
            );
            batch.durable = true;
            batch.send(client, &[&line]);
            state.is_announced = true;
            for held in std::mem::take(&mut state.held) {
                batch.send(client, &[&held]);
            }
        })
        .await?;
        // Not waited for: the client knows the session, and nothing may come between.
        let live = Arc::clone(live);
        tokio::spawn(async move { live.open_log().await });
        Ok(())
    }

    /// Plans the VM of what is asked for.
    pub(super) fn plan(&self, asked: &Asked, vm: Option<&str>) -> Result<VmPlan, Failure> {
        let vm = vm.or(asked.options.vm.as_deref());
        self.config
            .vm_for(vm, &asked.cwd, &asked.additional_directories)
            .map_err(|error| Failure::invalid_params(error.to_string()))
    }

    /// Boots a VM that sessions have used before.
    pub async fn wake(&self, row: &crate::store::VmRow) -> Result<(), Failure> {
        let Some(workspace) = row.workspaces.first() else {
            let what = format!("VM `{}` has no workspace", row.name);
            return Err(Failure::internal(Phase::Boot, what));
        };
        let asked = Asked {
            cwd: workspace.clone(),
            additional_directories: row.workspaces[1..].to_vec(),
            mcp_servers: "[]".into(),
            options: SessionOptions::default(),
        };
        let plan = self.plan(&asked, Some(&row.name))?;
        let mounts = self.agent_mounts(&plan, None);
        self.vms.get(&plan, mounts, || true).await?;
        Ok(())
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
    pub(super) async fn start_agent(
        self: &Arc<Host>,
        start: Start<'_>,
    ) -> Result<Arc<Live>, Failure> {
        let Start {
            row,
            plan,
            asked,
            offer,
            next_seq,
            is_stored,
            lease,
        } = start;
        let agent = self
            .catalog
            .get(&row.agent)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox.agent`: {error}")))?;
        let agent = &match plan.driver.as_str() {
            "host" => agent.clone(),
            _ => agent.clone().caged(),
        };
        let located = self
            .locate(agent, plan)
            .map_err(|error| Failure::internal(Phase::Spawn, error.to_string()))?;
        let mounts = if plan.driver == "host" {
            Vec::new()
        } else {
            self.agent_mounts(plan, Some(&located))
        };
        let running = self
            .vms
            .get(plan, mounts, || {
                !self.registry.in_vm(&plan.spec.name).is_empty()
            })
            .await?;
        let environment = agent.environment(&self.environment, &located, &plan.guest);
        let mut without_secrets = agent.clone();
        without_secrets.env.clear();
        without_secrets.pass_env.clear();
        let base_environment =
            without_secrets.environment(&self.environment, &located, &plan.guest);
        let facts = Facts {
            vm: &plan.spec.name,
            driver: &plan.driver,
            workspaces: &plan.spec.workspaces,
            home: &plan.guest.home,
            network: plan.spec.network,
            protected: &plan.spec.protected,
        };
        let facts = (!asked.options.skip_os_instructions).then_some(&facts);
        let additional = asked.options.additional_instructions.as_deref();
        let delivery = Instructions::new(facts, additional).deliver(
            &agent.channel,
            &session_folder(&row.id),
            &plan.guest.home,
            &environment,
        );
        let mut spec = ProcessSpec {
            command: located.command.to_string_lossy().into_owned(),
            args: located.args.clone(),
            env: environment,
            cwd: plan.cwd.clone(),
            files: Vec::new(),
            io: Io::Pipes,
        };
        delivery.apply(&mut spec);
        spec.env.extend(asked.options.env.clone());
        let spawned = async {
            let process = running.vm.spawn(spec).await?;
            AgentProcess::connect(process, self.config.limits.line_bytes).map_err(|error| {
                crate::vm::SpawnError::Failed {
                    command: row.agent.clone(),
                    detail: error.to_string(),
                }
            })
        };
        let (process, output) = spawned.await.map_err(|error| {
            Failure::internal(
                Phase::Spawn,
                format!("the agent `{}` did not start: {error}", row.agent),
            )
            .hint("`acpbox doctor` checks what agents need")
        })?;
        let bounds = Bounds::from(&self.config.limits);
        let session: Arc<str> = row.id.as_str().into();
        let state = State {
            session,
            next_seq,
            is_stored,
            known_ids: self.registry.known_ids(),
            early: Vec::new(),
            backlog: Vec::new(),
            early_bytes: 0,
            early_log: VecDeque::new(),
            is_announced: is_stored,
            held: Vec::new(),
            held_bytes: 0,
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
            meta: delivery.meta,
            lease,
        }));
        tokio::spawn(Arc::clone(&live).run(output));
        let unclaimed = Unclaimed::new(Arc::clone(&live));
        match self.initialize(&live, &offer).await {
            Ok(()) => {
                unclaimed.claim();
                Ok(live)
            }
            Err(failure) => {
                live.close().await;
                Err(failure)
            }
        }
    }

    async fn initialize(&self, live: &Arc<Live>, offer: &Offer) -> Result<(), Failure> {
        let patience = live.bounds.initialize_timeout;
        let result = match live
            .request(methods::INITIALIZE, &initialize_params(offer), patience)
            .await
        {
            Ok(result) => result,
            Err(OwnError::Failed(failure)) => return Err(failure),
            Err(OwnError::Agent(raw)) => {
                let what = format!(
                    "the agent `{}` refused to initialize: {raw}",
                    live.agent_name
                );
                return Err(
                    Failure::internal(Phase::Initialize, what).stderr(live.agent.last_words())
                );
            }
        };
        // Some agents echo whatever they are sent; one that answers otherwise does not speak it.
        let version = splice::member(&result, "protocolVersion").unwrap_or("1");
        if version != "1" {
            let what = format!(
                "the agent `{}` speaks ACP version {version}, acpbox version 1",
                live.agent_name
            );
            return Err(Failure::internal(Phase::Initialize, what)
                .hint("use a version of the agent that speaks ACP 1"));
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

    /// Finds an agent's program as a VM of that plan will see it.
    pub fn locate(&self, agent: &Agent, plan: &VmPlan) -> Result<Located, LocateError> {
        let own = self.vms.executable_in_guest(&plan.driver);
        agent.locate(&self.environment, &plan.spec.root, &own)
    }

    /// The installation folders of every agent that can be found, since mounts
    /// are fixed when a VM boots and sessions of other agents may follow.
    fn agent_mounts(&self, plan: &VmPlan, located: Option<&Located>) -> Vec<Mount> {
        let others = self
            .catalog
            .list()
            .filter_map(|agent| self.locate(agent, plan).ok());
        let mut mounts = located
            .map(|located| located.mounts.clone())
            .unwrap_or_default();
        for mount in others.flat_map(|other| other.mounts) {
            if !mounts.contains(&mount) {
                mounts.push(mount);
            }
        }
        mounts
    }
}

/// Where an agent's answer to `initialize` is remembered.
pub fn capabilities_key(agent: &str) -> String {
    format!("agent/{agent}/initialize")
}

/// The agent's view of `session/new`, `load` and `resume`: our options taken
/// out, its own put in, paths as the VM has them.
pub(super) fn agent_params(params: &str, plan: &VmPlan, meta: Option<&Value>) -> String {
    let mut edits = Edits::of(params);
    let members = splice::members(params).unwrap_or_default();
    let value = |key: &str| {
        members
            .iter()
            .rev()
            .find(|member| member.key == key)
            .map(|member| member.value)
    };
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
    };
    let mut edits = Edits::of(raw);
    edits.set(
        raw,
        "data",
        serde_json::to_string(&data).unwrap_or_else(|_| "null".into()),
    );
    edits.apply().into()
}

fn code(error: &str) -> Option<i32> {
    splice::member(error, "code")?.parse().ok()
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
    }
}
