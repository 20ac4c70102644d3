//! An agent is started: its VM, its process, its answer to `initialize`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::asked::Asked;
use super::client::Offer;
use super::ending::Cause;
use super::handshake::initialize_params;
use super::hooks::Watch;
use super::host::{Bounds, Host};
use super::live::{Live, Parts, Unclaimed};
use super::policy::ToolCalls;
use super::registry::Lease;
use super::roots::Roots;
use super::state::{OwnError, State};
use crate::acp::extension::SessionOptions;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::agent::catalog::{Agent, LocateError, Located};
use crate::agent::instructions::{Facts, Instructions, session_folder};
use crate::agent::process::AgentProcess;
use crate::config::VmPlan;
use crate::rpc::{Pending, splice};
use crate::store::SessionRow;
use crate::vm::{Io, Mount, ProcessSpec};

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

impl Host {
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
            mcp_servers: None,
            options: SessionOptions::default(),
        };
        let plan = self.plan(&asked, Some(&row.name))?;
        let mounts = self.agent_mounts(&plan, None);
        self.vms.get(&plan, mounts).await?;
        Ok(())
    }

    /// The session's folders, as the client and as the VM name them.
    pub(super) fn roots(&self, plan: &VmPlan, asked: &Asked) -> Roots {
        Roots::of(plan, &asked.cwd, &asked.additional_directories)
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
        // Sessions that are over hold their VM until their place is swept.
        self.registry.sweep();
        self.restarts.may_start()?;
        let running = self.vms.get(plan, mounts).await?;
        self.restarts.may_start()?;
        let environment = agent.environment(&self.environment, &located, &plan.guest);
        let mut without_secrets = agent.clone();
        without_secrets.env.clear();
        without_secrets.pass_env.clear();
        let base_environment =
            without_secrets.environment(&self.environment, &located, &plan.guest);
        let facts = Facts::of(plan);
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
            stored: next_seq - 1,
            lost: None,
            is_coming_back: is_stored,
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
            leaving: Vec::new(),
            questions: Vec::new(),
            turn: None,
            fence: None,
            queue: VecDeque::new(),
            tool_calls: ToolCalls::default(),
            turn_rows: Vec::new(),
            started: Vec::new(),
            shown: next_seq - 1,
            first_prompt: delivery.first_prompt,
            ended: None,
            active: tokio::time::Instant::now(),
            visits: 0,
            is_leaving: false,
            followers: Vec::new(),
            woke: None,
            selection: "{}".into(),
            row,
        };
        let watch = Watch::new(&state.session, self.hooks.clone());
        let live = Live::new(Parts {
            state,
            agent: process,
            vm: running.vm,
            store: self.store.clone(),
            bounds,
            rules: Arc::clone(&self.rules),
            base_environment,
            meta: delivery.meta,
            lease,
            usage: running.usage,
            restarts: Arc::clone(&self.restarts),
            is_served: self.is_served(),
            watch,
        });
        tokio::spawn(self.drive(&live, output));
        if self.restarts.may_start().is_err() {
            // acpbox began to end while it was started, and does not know it.
            live.end_for(Cause::Stopped);
        }
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
