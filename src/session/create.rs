//! `session/new`: an agent's session, and the first lines of a transcript.

use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::asked::{Asked, redacted_line};
use super::client::Client;
use super::handshake::{agent_params, announced, with_context};
use super::host::Host;
use super::live::{Live, Unclaimed};
use super::selection;
use super::start::Start;
use super::state::{OwnError, now};
use crate::acp::extension::{SessionMeta, SessionOptions};
use crate::acp::failure::AUTH_REQUIRED;
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::config::VmPlan;
use crate::rpc::message;
use crate::rpc::splice;
use crate::store::{Direction, SessionRow};

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
        tracing::Span::current().record("id", session.as_str());
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let row = self.row(&session, &asked, &plan);
        let live = match client.unpark(&row.agent, &row.vm, &asked.options) {
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
        live.set_asked(&asked);
        live.attach_as(client, Some(asked.options.role));
        let outcome = self
            .begin(&live, client, &asked, &plan, text, id, params)
            .await;
        match outcome {
            Ok(()) => {
                unclaimed.claim();
                if *live.id == *session {
                    slot.set(live);
                } else {
                    drop(slot);
                    let own = self.registry.slot(&live.id);
                    own.lock().await.set(live);
                }
                Ok(())
            }
            Err(Refusal::Agent(error)) if code(&error) == Some(AUTH_REQUIRED) => {
                live.detach(client);
                unclaimed.claim();
                if let Some(other) = client.park(live, asked.options) {
                    other.close().await;
                }
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
            mcp_servers: None,
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
            usage: "{}".into(),
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
        .await;
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
        let warnings = live.warnings();
        live.transact(|state, batch| {
            let early = std::mem::take(&mut state.early);
            batch.events.extend(early);
            // The session is there with its first events, or not at all.
            batch.creates = Some(Box::new(row));
            state.is_stored = true;
            let meta = SessionMeta {
                agent: live.agent_name.clone(),
                vm: live.vm_name.clone(),
                last_seq: state.next_seq,
                usage: None,
                restored: None,
                state: None,
                forked_from: None,
                warnings,
            };
            state.selection = selection::of(&result);
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
}

fn code(error: &str) -> Option<i32> {
    splice::member(error, "code")?.parse().ok()
}
