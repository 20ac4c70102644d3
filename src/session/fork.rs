//! `session/fork`: another session that goes on from where one is, or was.
//!
//! The fork has the events up to its point under the same numbers, and an agent's
//! process of its own. The agent forks its own session where it can and where the
//! point is the end; else it is told the history.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::asked::{Asked, redacted_line};
use super::client::Client;
use super::comeback::{Back, Comeback, Way};
use super::create::Refusal;
use super::handshake::announced;
use super::host::Host;
use super::kept::{Kept, forked_from};
use super::registry::Lease;
use super::selection;
use super::state::now;
use super::usage;
use crate::acp::extension::{ForkedFrom, Role, SessionMeta, Tier};
use crate::acp::methods::{self, response_kind};
use crate::acp::{Failure, Phase};
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};
use crate::store::{Direction, EventPage, EventRow, SessionRow, StoreError, TurnRow};
use crate::transcript::meta::renamed;

/// A fork whose events are being copied.
pub(super) const FORKING: &str = "forking";

/// How often the removal of a fork that failed is tried again.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);

const PAGE_EVENTS: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// What the title of a fork ends with.
const MARK: &str = " (fork)";

impl Host {
    /// Handles `session/fork` and answers it.
    pub async fn fork_session(
        self: &Arc<Host>,
        client: &Arc<Client>,
        text: &str,
        id: &str,
        params: Option<&str>,
    ) -> Result<(), Refusal> {
        let named = params.and_then(|params| splice::member(params, "sessionId"));
        let Some(source) = named.and_then(message::string) else {
            return Err(Failure::invalid_params("`sessionId` is missing, a string").into());
        };
        let asked = Asked::parse(params)?;
        let source_slot = self.registry.slot(&source);
        // What is sent to it waits until its agent's session is forked, if it is not live.
        let mut still = Some(source_slot.lock().await);
        if let Some(held) = &mut still {
            match held.live() {
                Some(_) => still = None,
                None => {
                    held.settle().await;
                }
            }
        }
        let row = self.store.session(&source).await.map_err(Failure::from)?;
        let Some(row) = row else {
            return Err(Failure::unknown_session(&source).into());
        };
        if let Some(live) = self.registry.live(&source) {
            live.flush().await?;
        }
        let last = self.store.last_seq(&source).await.map_err(Failure::from)?;
        let seq = match asked.options.seq {
            None => last,
            Some(seq) if (1..=last).contains(&seq) => seq,
            Some(seq) => {
                let what = format!("`_meta.acpbox.seq` must be from 1 to {last}, not {seq}");
                return Err(Failure::invalid_params(what).into());
            }
        };
        let from = ForkedFrom {
            session_id: source.into_owned(),
            seq,
        };
        let mut kept = self.kept(&row, Some(&asked))?;
        kept.options = with_origin(&kept.options, &from);
        let fork = new_row(&row, &kept, seq);
        let slot = self.registry.slot(&fork.id);
        let mut slot = slot.lock().await;
        let lease = self.registry.lease(&fork.id)?;
        self.store
            .create_session(&fork)
            .await
            .map_err(Failure::from)?;
        let unmade = Unmade(Some((Arc::clone(self), fork.id.clone())));
        let made = async {
            self.copy(&fork, &from).await?;
            // What runs in the other session, or ended later, goes on there alone.
            let ended = self.end_interrupted(&fork.id).await;
            ended.map_err(Failure::from)?;
            self.record_request(&fork, text).await?;
            let params = self.params_again(&fork.id, params, &kept).await?;
            let mut reasons = kept.reasons.clone();
            if still.is_none() && self.registry.live(&row.id).is_none() {
                // It ended or went to sleep meanwhile.
                let mut held = source_slot.lock().await;
                if held.live().is_none() {
                    held.settle().await;
                    still = Some(held);
                }
            }
            let (ways, _held) = match self.agents_own(&row, &kept, seq == last) {
                Ok((way, held)) => (vec![way], held),
                Err(reason) => {
                    reasons.push(reason);
                    (Vec::new(), None)
                }
            };
            let comeback = Comeback {
                row: fork.clone(),
                kept: &kept,
                client,
                lease,
                ways,
                params: &params,
                reasons,
            };
            self.bring_back(comeback).await
        };
        let made = made.await;
        let back = match made {
            Ok(back) => back,
            Err(refusal) => {
                unmade.remove().await;
                return Err(refusal);
            }
        };
        unmade.keep();
        slot.set(Arc::clone(&back.live));
        drop(slot);
        drop(still);
        answer(back, client, asked.options.role, id, &from).await
    }

    /// Copies what is left of a fork that was cut short.
    pub(super) async fn complete_fork(&self, row: &SessionRow) -> Result<(), Failure> {
        match forked_from(row) {
            Some(from) if row.state == FORKING => self.copy(row, &from).await,
            _ => Ok(()),
        }
    }

    /// Copies the events that the fork does not have yet.
    async fn copy(&self, fork: &SessionRow, from: &ForkedFrom) -> Result<(), Failure> {
        let session: Arc<str> = fork.id.as_str().into();
        let mut after = self.store.last_seq(&fork.id).await?;
        while after < from.seq {
            let page = EventPage {
                session: from.session_id.clone(),
                after: Some(after),
                before: Some(from.seq + 1),
                limit: PAGE_EVENTS,
                max_bytes: PAGE_BYTES,
                ..EventPage::default()
            };
            let rows = self.store.events(page).await?;
            let Some(last) = rows.last() else {
                let what = format!("the session `{}` has no more events", from.session_id);
                return Err(Failure::internal(Phase::Store, what)
                    .hint("it was deleted while it was forked; fork another one"));
            };
            after = last.seq;
            let rows = rows.into_iter().map(|row| EventRow {
                raw: renamed(&row.raw, &from.session_id, &fork.id).into(),
                session: Arc::clone(&session),
                ..row
            });
            let rows = rows.collect();
            let is_last = after == from.seq;
            let turns = match is_last {
                true => self.store.turns_up_to(&from.session_id, from.seq).await?,
                false => Vec::new(),
            };
            let turns = turns.into_iter().map(|turn| TurnRow {
                session: Arc::clone(&session),
                ..turn
            });
            let permit = self.store.reserve().await?;
            permit
                .append_with_turns(rows, turns.collect(), is_last)
                .await?;
        }
        Ok(())
    }

    async fn record_request(&self, fork: &SessionRow, text: &str) -> Result<(), Failure> {
        let event = EventRow {
            session: fork.id.as_str().into(),
            seq: self.store.last_seq(&fork.id).await? + 1,
            time: now(),
            direction: Direction::Client,
            kind: methods::SESSION_FORK.into(),
            raw: redacted_line(text).into(),
        };
        let permit = self.store.reserve().await?;
        Ok(permit.append(vec![event], false).await?)
    }

    /// The agent's own fork, and what keeps its session still meanwhile; or why not.
    fn agents_own(
        &self,
        row: &SessionRow,
        kept: &Kept,
        is_at_end: bool,
    ) -> Result<(Way, Option<Lease>), String> {
        let Some(session) = &row.agent_session else {
            return Err("the agent has no session of its own to fork".into());
        };
        if !is_at_end {
            return Err("the agent's own fork would not end at the event asked for".into());
        }
        if kept.asked.options.agent.as_ref() != Some(&row.agent) {
            return Err("another agent goes on".into());
        }
        if kept.plan.spec.name != row.vm {
            return Err("the agent's session is in another VM".into());
        }
        let lease = match self.registry.live(&row.id) {
            Some(live) if live.state().turn.is_some() => {
                return Err("a turn runs, which the agent's own fork would cut anywhere".into());
            }
            Some(_) => None,
            None => Some(
                self.registry
                    .lease(&row.id)
                    .map_err(|failure| failure.message)?,
            ),
        };
        let way = Way {
            tier: Tier::Fork,
            session: Some(session.clone()),
        };
        Ok((way, lease))
    }
}

/// A fork that nobody knows of yet: it goes when whoever makes it gives up.
struct Unmade(Option<(Arc<Host>, String)>);

impl Unmade {
    fn keep(mut self) {
        self.0 = None;
    }

    async fn remove(mut self) {
        if let Some((host, fork)) = self.0.take()
            && let Err(error) = host.store.delete_session(&fork).await
        {
            tracing::warn!(%error, fork, "a fork that failed could not be removed yet");
            tokio::spawn(remove(host, fork));
        }
    }
}

impl Drop for Unmade {
    fn drop(&mut self) {
        if let Some((host, fork)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(remove(host, fork));
        }
    }
}

/// Tries until it is done: where there was no space for a fork, there may be none
/// to remove it either. Somebody who found it in a list may go on with it.
async fn remove(host: Arc<Host>, fork: String) {
    while let Ok(lease) = host.lease(&fork).await {
        match host.store.delete_session(&fork).await {
            Ok(_) | Err(StoreError::Stopped) => return,
            Err(error) => {
                tracing::debug!(%error, fork, "a fork that failed could not be removed yet");
            }
        }
        drop(lease);
        tokio::time::sleep(REMOVAL_PAUSE).await;
    }
}

/// Announces the fork: the answer is an event of its own.
async fn answer(
    back: Back,
    client: &Arc<Client>,
    role: Role,
    id: &str,
    from: &ForkedFrom,
) -> Result<(), Refusal> {
    let Back {
        live,
        restored,
        result,
        ..
    } = back;
    let warnings = live.warnings();
    live.transact(|state, batch| {
        let meta = SessionMeta {
            agent: live.agent_name.clone(),
            vm: live.vm_name.clone(),
            last_seq: state.next_seq,
            usage: usage::shown(&state.row.usage),
            restored: Some(restored),
            state: None,
            forked_from: Some(from.clone()),
            warnings,
        };
        state.selection = selection::of(&result);
        let public = state.public_id();
        let shown = announced(&with_session(&result, &public), &public, &meta);
        let line = message::result(id, &shown);
        let kind = response_kind(methods::SESSION_FORK, false);
        state.record(batch, Direction::Agent, kind, line.as_str());
        batch.durable = true;
        batch.send(client, &[&line]);
        state.is_announced = true;
        state.held_bytes = 0;
        for held in std::mem::take(&mut state.held) {
            batch.send(client, &[&held]);
        }
        state.attach(client, Some(role));
    })
    .await?;
    Ok(())
}

fn with_session(result: &str, public: &str) -> String {
    let mut edits = Edits::of(result);
    edits.set(result, "sessionId", public.to_owned());
    edits.apply()
}

fn with_origin(options: &str, from: &ForkedFrom) -> String {
    let mut edits = Edits::of(options);
    let from = serde_json::to_string(from).unwrap_or_else(|_| "null".into());
    edits.set(options, "forkedFrom", from);
    edits.apply()
}

fn new_row(source: &SessionRow, kept: &Kept, seq: i64) -> SessionRow {
    let title = source
        .title
        .as_ref()
        .map(|title| match title.ends_with(MARK) {
            true => title.clone(),
            false => format!("{title}{MARK}"),
        });
    SessionRow {
        id: Uuid::now_v7().to_string(),
        agent: kept
            .asked
            .options
            .agent
            .clone()
            .unwrap_or(source.agent.clone()),
        vm: kept.plan.spec.name.clone(),
        agent_session: None,
        cwd: kept.asked.cwd.clone(),
        title,
        created: now(),
        updated: now(),
        state: FORKING.into(),
        options: kept.options.clone(),
        usage: usage::nothing_up_to(seq),
    }
}
