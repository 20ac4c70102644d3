//! `session/load`, `session/resume`, and prompts to sessions that are not live:
//! the conversation goes on with whatever the agent can still do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::asked::Asked;
use super::client::Client;
use super::create::Refusal;
use super::followers::Rest;
use super::handshake::{agent_params, announced};
use super::host::Host;
use super::live::{Live, Unclaimed};
use super::sleep::SLEEPING;
use super::start::Start;
use super::state::OwnError;
use crate::acp::extension::{Restored, SessionMeta, SessionOptions, Tier};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::store::SessionRow;

/// A session that is live again, and what its agent answered.
pub struct Back {
    pub live: Arc<Live>,
    /// What was kept of it in this process.
    rest: Rest,
    pub restored: Restored,
    /// The agent's raw result of `session/resume`, `load` or `new`; an object.
    pub result: Box<str>,
}

impl Host {
    /// Handles `session/load` (`with_replay`) and `session/resume`, and answers.
    pub async fn reconnect(
        self: &Arc<Host>,
        client: &Arc<Client>,
        id: &str,
        params: Option<&str>,
        with_replay: bool,
    ) -> Result<(), Refusal> {
        let session = params
            .and_then(|params| splice::member(params, "sessionId"))
            .and_then(message::string);
        let Some(session) = session else {
            return Err(Failure::invalid_params("`sessionId` is missing, a string").into());
        };
        let mut asked = Asked::parse(params)?;
        self.restarts.forgive(&session);
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let back = match slot.live() {
            Some(live) => Back {
                live,
                rest: Rest::default(),
                restored: Restored {
                    tier: Tier::Attach,
                    reasons: Vec::new(),
                },
                result: "{}".into(),
            },
            None => {
                let rest = slot.settle().await;
                rest.complete(&mut asked);
                let mut back = self.restore(&session, client, Some(&asked)).await?;
                back.rest = rest;
                slot.set(Arc::clone(&back.live));
                back
            }
        };
        let after = with_replay.then(|| asked.options.after.unwrap_or(0));
        back.live
            .attach_and_answer(client, &back.rest, after, |last_seq| {
                let meta = SessionMeta {
                    agent: back.live.agent_name.clone(),
                    vm: back.live.vm_name.clone(),
                    last_seq,
                    restored: Some(back.restored.clone()),
                    warnings: back.live.vm.warnings(),
                };
                let public = format!("\"{}\"", back.live.id);
                message::result(id, &announced(&back.result, &public, &meta))
            })
            .await?;
        back.live.adopt(self.restarts.take_left(&session));
        Ok(())
    }

    /// The live session, brought back first if need be.
    pub async fn ensure(
        self: &Arc<Host>,
        client: &Arc<Client>,
        session: &str,
    ) -> Result<Arc<Live>, Failure> {
        let slot = self.registry.slot(session);
        let mut slot = slot.lock().await;
        if let Some(live) = slot.live() {
            live.attach(client);
            live.adopt(self.restarts.take_left(session));
            return Ok(live);
        }
        let rest = slot.settle().await;
        self.restarts.check(session)?;
        let back = match self.restore(session, client, rest.asked.as_ref()).await {
            Ok(back) => back,
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(Refusal::Agent(raw)) => {
                let what = format!("the session could not be brought back: {raw}");
                return Err(Failure::internal(Phase::Session, what));
            }
        };
        slot.set(Arc::clone(&back.live));
        back.live.attach_and_show(client, &rest).await?;
        back.live.adopt(self.restarts.take_left(session));
        Ok(back.live)
    }

    async fn restore(
        self: &Arc<Host>,
        session: &str,
        client: &Arc<Client>,
        asked: Option<&Asked>,
    ) -> Result<Back, Refusal> {
        let known = async || {
            let row = self.store.session(session).await.map_err(Failure::from)?;
            row.ok_or_else(|| Failure::unknown_session(session))
        };
        known().await?;
        let lease = self.lease(session).await?;
        // Until then another process may have driven it.
        let row = known().await?;
        let was_asleep = row.state == SLEEPING;
        let ended = self.end_interrupted(session).await;
        ended.map_err(Failure::from)?;
        let kept = as_kept(&row, asked);
        let plan = self.plan(&kept, Some(&row.vm))?;
        let next_seq = self.store.last_seq(session).await.map_err(Failure::from)? + 1;
        let agent_session = row.agent_session.clone();
        let start = Start {
            row: SessionRow {
                state: "open".into(),
                ..row
            },
            plan: &plan,
            asked: &kept,
            offer: client.offer(),
            next_seq,
            is_stored: true,
            lease: Some(lease),
        };
        let live = self.start_agent(start).await?;
        let unclaimed = Unclaimed::new(Arc::clone(&live));
        live.set_roots(self.roots(&plan, &kept));
        live.set_asked(&kept);
        // Nobody is attached yet: what comes behind the agent's answer is held.
        live.state().is_announced = false;
        let params = serde_json::json!({
            "cwd": plan.cwd,
            "mcpServers": serde_json::from_str::<Value>(kept.mcp_servers()).unwrap_or_else(|_| Value::Array(Vec::new())),
            "additionalDirectories": plan.additional_directories,
        });
        let params = agent_params(&without_empty(params), &plan, live.meta.as_ref());
        match live.rejoin(agent_session, &params).await {
            Ok((restored, result)) => {
                live.record_own(methods::SESSION_RESTORED, &restored).await;
                if was_asleep {
                    live.record_wake(restored.tier).await;
                }
                let row = live.state().row.clone();
                self.store
                    .update_session(&row)
                    .await
                    .map_err(Failure::from)?;
                unclaimed.claim();
                Ok(Back {
                    live,
                    rest: Rest::default(),
                    restored,
                    result,
                })
            }
            Err(refusal) => {
                live.close().await;
                Err(refusal)
            }
        }
    }
}

impl Live {
    /// Gives the agent its conversation back: the best way that works.
    async fn rejoin(
        &self,
        agent_session: Option<String>,
        params: &str,
    ) -> Result<(Restored, Box<str>), Refusal> {
        let initialized = self.initialized();
        let capabilities = splice::member(&initialized, "agentCapabilities").unwrap_or("{}");
        let can_resume = splice::member(capabilities, "sessionCapabilities")
            .and_then(|sessions| splice::member(sessions, "resume"))
            .is_some_and(|resume| resume != "null" && resume != "false");
        let can_load = splice::member(capabilities, "loadSession") == Some("true");
        let mut reasons = Vec::new();
        let ways = [
            (can_resume, Tier::Resume, methods::SESSION_RESUME),
            (can_load, Tier::Load, methods::SESSION_LOAD),
        ];
        for (can, tier, method) in ways {
            let Some(own) = &agent_session else { break };
            if !can {
                reasons.push(format!("the agent does not offer {method}"));
                continue;
            }
            let mut edits = splice::Edits::of(params);
            edits.set(params, "sessionId", Value::from(own.as_str()).to_string());
            // Whatever history it sends is in the transcript already.
            self.state().is_swallowing = true;
            let answer = self
                .request(method, &edits.apply(), self.bounds.session_timeout)
                .await;
            self.state().is_swallowing = false;
            match answer {
                Ok(result) => return Ok((Restored { tier, reasons }, object(result))),
                Err(OwnError::Agent(raw)) => reasons.push(format!("{method} failed: {raw}")),
                Err(OwnError::Failed(failure)) => return Err(failure.into()),
            }
        }
        self.state().row.agent_session = None;
        match self
            .request(methods::SESSION_NEW, params, self.bounds.session_timeout)
            .await
        {
            Ok(result) => {
                let theirs = splice::member(&result, "sessionId").and_then(message::string);
                let Some(theirs) = theirs.map(std::borrow::Cow::into_owned) else {
                    let what = format!(
                        "the agent `{}` answered session/new without a `sessionId`",
                        self.agent_name
                    );
                    return Err(Failure::internal(Phase::Session, what).into());
                };
                self.state().row.agent_session = Some(theirs);
                let restored = Restored {
                    tier: Tier::New,
                    reasons,
                };
                Ok((restored, object(result)))
            }
            Err(OwnError::Agent(raw)) => Err(Refusal::Agent(raw)),
            Err(OwnError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// Sends a client what it has not seen (all above `after`), then the answer,
    /// then whatever comes: nothing is missing and nothing comes twice.
    async fn attach_and_answer(
        &self,
        client: &Arc<Client>,
        rest: &Rest,
        after: Option<i64>,
        answer: impl FnOnce(i64) -> String,
    ) -> Result<(), Failure> {
        let _order = self.order().await;
        // What the client sent before this is to be replayed too.
        self.flush().await?;
        if let Some(after) = after {
            super::replay::replay(&self.store, &self.id, after, client).await?;
            // The updates that were held are in the transcript.
            self.state().held.retain(|line| !is_update(line));
        }
        let last_seq = self.store.last_seq(&self.id).await?;
        let _ = client.outbox.send(&answer(last_seq)).await;
        self.show_held(client, rest).await
    }

    /// Attaches the client that had a session brought back by using it.
    async fn attach_and_show(&self, client: &Arc<Client>, rest: &Rest) -> Result<(), Failure> {
        let _order = self.order().await;
        self.flush().await?;
        if rest.followers().any(|known| Arc::ptr_eq(&known, client)) {
            // Another process may have driven the session meanwhile.
            super::replay::replay(&self.store, &self.id, rest.seen, client).await?;
            self.state().held.retain(|line| !is_update(line));
        }
        self.show_held(client, rest).await
    }

    /// Attaches a client, and those who followed before, and sends what came
    /// while nobody was there. The order must be held.
    async fn show_held(&self, client: &Arc<Client>, rest: &Rest) -> Result<(), Failure> {
        let mut held = {
            let mut state = self.state();
            state.is_announced = true;
            state.held_bytes = 0;
            std::mem::take(&mut state.held)
        };
        self.attach(client);
        for line in &held {
            let _ = client.outbox.send(line).await;
        }
        held.retain(|line| !is_update(line));
        self.welcome(rest, client, &held).await
    }
}

fn is_update(line: &str) -> bool {
    splice::member(line, "method")
        .and_then(message::string)
        .as_deref()
        == Some(methods::SESSION_UPDATE)
}

fn object(result: Box<str>) -> Box<str> {
    if result.trim_start().starts_with('{') {
        result
    } else {
        "{}".into()
    }
}

/// What the session was created with, and what the client says anew.
fn as_kept(row: &SessionRow, asked: Option<&Asked>) -> Asked {
    let stored: Value = serde_json::from_str(&row.options).unwrap_or_default();
    let text = |key: &str| stored.get(key).and_then(Value::as_str).map(str::to_owned);
    let directories = stored
        .get("additionalDirectories")
        .cloned()
        .unwrap_or_default();
    let mut kept = Asked {
        cwd: row.cwd.clone(),
        additional_directories: serde_json::from_value::<Vec<PathBuf>>(directories)
            .unwrap_or_default(),
        mcp_servers: Some(servers_without_secrets(&stored).into()),
        options: SessionOptions {
            agent: Some(row.agent.clone()),
            vm: Some(row.vm.clone()),
            env: BTreeMap::new(),
            additional_instructions: text("additionalInstructions"),
            skip_os_instructions: stored.get("skipOsInstructions") == Some(&Value::Bool(true)),
            after: None,
        },
    };
    if let Some(asked) = asked {
        if asked.mcp_servers.is_some() {
            kept.mcp_servers.clone_from(&asked.mcp_servers);
        }
        kept.options.env.clone_from(&asked.options.env);
        if asked.options.additional_instructions.is_some() {
            kept.options
                .additional_instructions
                .clone_from(&asked.options.additional_instructions);
        }
    }
    kept
}

/// The stored MCP servers, less the variables and headers whose values were not stored.
fn servers_without_secrets(stored: &Value) -> String {
    let mut servers = stored
        .get("mcpServers")
        .cloned()
        .unwrap_or_else(|| Value::Array(Vec::new()));
    for server in servers.as_array_mut().into_iter().flatten() {
        for list in ["env", "headers"] {
            match server.get_mut(list) {
                Some(Value::Array(entries)) => entries.retain(|entry| {
                    *entry != "***" && entry.get("value") != Some(&Value::from("***"))
                }),
                Some(Value::Object(entries)) => entries.retain(|_, value| *value != "***"),
                _ => {}
            }
        }
    }
    servers.to_string()
}

/// Agents that do not know `additionalDirectories` need not see an empty one.
fn without_empty(mut params: Value) -> String {
    if let Some(params) = params.as_object_mut()
        && params
            .get("additionalDirectories")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
    {
        params.shift_remove("additionalDirectories");
    }
    params.to_string()
}
