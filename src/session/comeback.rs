//! An agent gets its conversation back: the best way that works, each in a
//! process that nothing has gone wrong in, with everything set as it was.

use std::sync::{Arc, PoisonError};

use serde_json::Value;

use super::client::Client;
use super::create::Refusal;
use super::followers::Rest;
use super::handshake::agent_params;
use super::host::Host;
use super::kept::Kept;
use super::live::{Live, Unclaimed};
use super::preamble::Knowledge;
use super::registry::Lease;
use super::selection;
use super::start::Start;
use super::state::OwnError;
use crate::acp::extension::{Restored, SessionSettings, Tier};
use crate::acp::failure::{AUTH_REQUIRED, INTERNAL_ERROR};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};
use crate::store::SessionRow;

/// The longest error of an agent's that a reason quotes, in bytes.
const QUOTED_BYTES: usize = 2000;

/// A session that is live again, and what its agent answered.
pub(super) struct Back {
    pub(super) live: Arc<Live>,
    /// What was kept of it in this process.
    pub(super) rest: Rest,
    pub(super) restored: Restored,
    /// The agent's raw result of `session/resume`, `load`, `fork` or `new`, as it
    /// would be now; an object.
    pub(super) result: Box<str>,
}

/// A stored session that is to be live.
pub(super) struct Comeback<'a> {
    pub(super) row: SessionRow,
    pub(super) kept: &'a Kept,
    pub(super) client: &'a Arc<Client>,
    pub(super) lease: Lease,
    /// The best first. `session/new` comes behind all of them.
    pub(super) ways: Vec<Way>,
    /// For any of the methods, without `sessionId`.
    pub(super) params: &'a str,
    /// Why better ways are not among them.
    pub(super) reasons: Vec<String>,
}

/// A way to give an agent its conversation back.
pub(super) struct Way {
    pub(super) tier: Tier,
    /// The agent's own id of the session that it is to bring back or to fork.
    pub(super) session: Option<String>,
}

impl Way {
    fn method(&self) -> &'static str {
        match self.tier {
            Tier::Resume => methods::SESSION_RESUME,
            Tier::Load => methods::SESSION_LOAD,
            Tier::Fork => methods::SESSION_FORK,
            Tier::New | Tier::Attach => methods::SESSION_NEW,
        }
    }
}

/// An agent's process that may be tried in one way after the other.
struct Running {
    live: Arc<Live>,
    unclaimed: Unclaimed,
}

impl Host {
    /// Makes a session live again. The row in the database is left as it is until
    /// a way has worked; the error names each way and what was wrong with it.
    pub(super) async fn bring_back(
        self: &Arc<Host>,
        comeback: Comeback<'_>,
    ) -> Result<Back, Refusal> {
        let Comeback {
            row,
            kept,
            client,
            lease,
            mut ways,
            params,
            mut reasons,
        } = comeback;
        let knowledge = self.knowledge(&row.id).await?;
        let mut wanted = self.settings(&row.id).await?;
        ways.push(Way {
            tier: Tier::New,
            session: None,
        });
        let mut lease = Some(lease);
        let mut running = None;
        let mut at = 0;
        while let Some(way) = ways.get(at) {
            let agent = match running.take() {
                Some(agent) => agent,
                None => {
                    let started = self.start_again(&row, kept, client, lease.take()).await;
                    started.map_err(|failure| all_failed(&reasons, failure.into()))?
                }
            };
            if !agent.live.offers(way) {
                reasons.push(format!("the agent does not offer {}", way.method()));
                running = Some(agent);
                at += 1;
                continue;
            }
            let refusal = match agent.live.go(way, params, &kept.plan).await {
                Ok(result) => {
                    let live = &agent.live;
                    let put_back = live.put_back(&wanted, result).await;
                    if !live.is_over() {
                        reasons.extend(put_back.reasons);
                        let restored = Restored {
                            tier: way.tier,
                            agent_session: live.state().row.agent_session.clone(),
                            reasons,
                            missing: kept.missing.clone(),
                            put_back: put_back.done,
                            preamble: None,
                            settings: put_back.settings,
                        };
                        let result = put_back.result;
                        return self.settle(agent, kept, knowledge, restored, result).await;
                    }
                    let failure = live.failure_of_end();
                    if wanted.is_empty() {
                        Refusal::Failed(failure)
                    } else {
                        // Once more as it comes: better another mode than no session.
                        reasons.push(format!(
                            "its settings could not be put back: {}",
                            failure.message
                        ));
                        wanted = SessionSettings::default();
                        lease = end(agent).await;
                        continue;
                    }
                }
                Err(refusal) => refusal,
            };
            if way.tier == Tier::New {
                end(agent).await;
                return Err(all_failed(&reasons, refusal));
            }
            at += 1;
            match refusal {
                Refusal::Agent(raw) => {
                    reasons.push(format!("{} failed: {}", way.method(), brief(&raw)));
                    running = Some(agent);
                }
                Refusal::Failed(failure) => {
                    reasons.push(format!("{} failed: {}", way.method(), in_short(&failure)));
                    // What it still sends for this way must not get into the next.
                    lease = end(agent).await;
                }
            }
        }
        Err(all_failed(
            &reasons,
            Failure::internal(Phase::Session, "no way is left").into(),
        ))
    }

    async fn start_again(
        self: &Arc<Host>,
        row: &SessionRow,
        kept: &Kept,
        client: &Arc<Client>,
        lease: Option<Lease>,
    ) -> Result<Running, Failure> {
        let lease = match lease {
            Some(lease) => lease,
            None => self.registry.lease(&row.id)?,
        };
        let next_seq = self.store.last_seq(&row.id).await? + 1;
        let start = Start {
            row: SessionRow {
                state: "open".into(),
                agent: kept
                    .asked
                    .options
                    .agent
                    .clone()
                    .unwrap_or(row.agent.clone()),
                vm: kept.plan.spec.name.clone(),
                cwd: kept.asked.cwd.clone(),
                options: kept.options.clone(),
                ..row.clone()
            },
            plan: &kept.plan,
            asked: &kept.asked,
            offer: client.offer(),
            next_seq,
            is_stored: true,
            lease: Some(lease),
        };
        let live = self.start_agent(start).await?;
        let unclaimed = Unclaimed::new(Arc::clone(&live));
        live.set_roots(self.roots(&kept.plan, &kept.asked));
        let mut known = kept.asked.clone();
        if !kept.has_servers {
            // They lack what was not stored: the next time they are read again.
            known.mcp_servers = None;
        }
        live.set_asked(&known);
        // Nobody is attached yet: what comes behind the agent's answer is held.
        live.state().is_announced = false;
        Ok(Running { live, unclaimed })
    }

    /// Everything worked: what the agent is to be told first, and what is stored.
    async fn settle(
        self: &Arc<Host>,
        agent: Running,
        kept: &Kept,
        knowledge: Knowledge,
        mut restored: Restored,
        result: Box<str>,
    ) -> Result<Back, Refusal> {
        let Running { live, unclaimed } = agent;
        let is_new = restored.tier == Tier::New;
        let history = match is_new || knowledge.lacks_history {
            true => self.history(&live.id).await?,
            false => None,
        };
        {
            let mut state = live.state();
            state.selection = selection::of(&result);
            let instructions = state.first_prompt.take();
            let instructions =
                instructions.filter(|_| is_new || knowledge.is_fresh || kept.has_new_instructions);
            let told = history.map(|(text, note)| {
                restored.preamble = Some(note);
                text
            });
            let texts: Vec<String> = instructions.into_iter().chain(told).collect();
            state.first_prompt = (!texts.is_empty()).then(|| texts.join("\n\n"));
        }
        live.record_own(methods::SESSION_RESTORED, &restored).await;
        // First that the agent is yet to be told the history, then which session
        // of its own that is: a kill between the two must not leave it without.
        live.flush().await?;
        let row = live.state().row.clone();
        self.store
            .update_session(&row)
            .await
            .map_err(Failure::from)?;
        live.state().is_coming_back = false;
        unclaimed.claim();
        Ok(Back {
            rest: Rest::default(),
            live,
            restored,
            result,
        })
    }
}

impl Live {
    fn offers(&self, way: &Way) -> bool {
        let initialized = self.initialized();
        let capabilities = splice::member(&initialized, "agentCapabilities").unwrap_or("{}");
        let of_sessions = |name: &str| {
            splice::member(capabilities, "sessionCapabilities")
                .and_then(|sessions| splice::member(sessions, name))
                .is_some_and(|offered| offered != "null" && offered != "false")
        };
        match way.tier {
            Tier::Resume => of_sessions("resume"),
            Tier::Load => splice::member(capabilities, "loadSession") == Some("true"),
            Tier::Fork => of_sessions("fork"),
            Tier::New | Tier::Attach => true,
        }
    }

    /// Tries one way; the agent's result is an object.
    async fn go(
        &self,
        way: &Way,
        params: &str,
        plan: &crate::config::VmPlan,
    ) -> Result<Box<str>, Refusal> {
        let params = agent_params(params, plan, self.meta.as_ref());
        let mut edits = Edits::of(&params);
        if let Some(session) = &way.session {
            edits.set(
                &params,
                "sessionId",
                Value::from(session.as_str()).to_string(),
            );
        }
        let makes_one = matches!(way.tier, Tier::New | Tier::Fork);
        {
            let mut state = self.state();
            // What the agent calls a session that it is yet to name is not known.
            state.row.agent_session = way.session.clone().filter(|_| !makes_one);
            // Whatever history it sends is in the transcript already.
            state.is_swallowing = way.tier != Tier::New;
        }
        let method = way.method();
        let patience = self.bounds.session_timeout;
        let answer = self.request(method, &edits.apply(), patience).await;
        self.state().is_swallowing = false;
        let result = match answer {
            Ok(result) if result.trim_start().starts_with('{') => result,
            Ok(_) => "{}".into(),
            Err(OwnError::Agent(raw)) => return Err(Refusal::Agent(raw)),
            Err(OwnError::Failed(failure)) => return Err(failure.into()),
        };
        if makes_one {
            let theirs = splice::member(&result, "sessionId").and_then(message::string);
            let Some(theirs) = theirs else {
                let what = format!(
                    "the agent `{}` answered {method} without a `sessionId`",
                    self.agent_name
                );
                let failure = Failure::internal(Phase::Session, what);
                return Err(failure.stderr(self.agent.last_words()).into());
            };
            self.state().row.agent_session = Some(theirs.into_owned());
        }
        Ok(result)
    }
}

/// Ends a process for which there is no use, and keeps the right to the session
/// for the next, where it is still there to be kept.
async fn end(agent: Running) -> Option<Lease> {
    let lease = agent.live.lease.lock();
    let lease = lease.unwrap_or_else(PoisonError::into_inner).take();
    agent.live.close().await;
    agent.live.finished().await;
    agent.unclaimed.claim();
    lease
}

/// An agent's error object for a reason: as it is, but not without end.
pub(super) fn brief(raw: &str) -> String {
    if raw.len() <= QUOTED_BYTES {
        return raw.to_owned();
    }
    format!("{}…", &raw[..raw.floor_char_boundary(QUOTED_BYTES)])
}

fn in_short(failure: &Failure) -> String {
    match &failure.data.exit {
        Some(exit) => format!("{} ({exit})", failure.message),
        None => failure.message.clone(),
    }
}

/// The last failure, with those before it.
fn all_failed(reasons: &[String], last: Refusal) -> Refusal {
    let last = match last {
        // The client is to log in; it looks for the agent's own words.
        Refusal::Agent(raw) if code(&raw) == Some(AUTH_REQUIRED) => return Refusal::Agent(raw),
        Refusal::Agent(raw) if reasons.is_empty() => return Refusal::Agent(raw),
        Refusal::Agent(raw) => {
            let what = format!("{} failed: {}", methods::SESSION_NEW, brief(&raw));
            Failure::new(Phase::Session, code(&raw).unwrap_or(INTERNAL_ERROR), what)
        }
        Refusal::Failed(failure) => failure,
    };
    if reasons.is_empty() {
        return last.into();
    }
    let what = format!(
        "the session could not be brought back: {}; {}",
        reasons.join("; "),
        last.message
    );
    Failure {
        message: what,
        ..last
    }
    .into()
}

fn code(error: &str) -> Option<i32> {
    splice::member(error, "code")?.parse().ok()
}
