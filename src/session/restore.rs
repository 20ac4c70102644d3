//! `session/load`, `session/resume`, and prompts to sessions that are not live:
//! the conversation goes on with whatever the agent can still do.

use std::sync::Arc;

use super::asked::Asked;
use super::client::Client;
use super::comeback::{Back, Comeback, Way};
use super::create::Refusal;
use super::handshake::announced;
use super::host::Host;
use super::kept::forked_from;
use super::live::Live;
use super::usage;
use crate::acp::extension::{Restored, SessionMeta, Tier};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};

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
        let asked = Asked::parse(params)?;
        self.restarts.forgive(&session);
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let back = match slot.clone().filter(|live| !live.is_over()) {
            Some(live) => Back {
                live,
                restored: Restored::by(Tier::Attach),
                result: "{}".into(),
            },
            None => {
                if let Some(ending) = slot.take() {
                    ending.finished().await;
                }
                let back = self.restore(&session, client, Some(&asked), params).await?;
                *slot = Some(Arc::clone(&back.live));
                back
            }
        };
        let forked_from = forked_from(&back.live.state().row);
        let after = with_replay.then(|| asked.options.after.unwrap_or(0));
        back.live
            .attach_and_answer(client, after, |last_seq| {
                let meta = SessionMeta {
                    agent: back.live.agent_name.clone(),
                    vm: back.live.vm_name.clone(),
                    last_seq,
                    usage: usage::shown(&back.live.state().row.usage),
                    restored: Some(back.restored.clone()),
                    forked_from: forked_from.clone(),
                    warnings: back.live.warnings(),
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
        if let Some(live) = slot.clone().filter(|live| !live.is_over()) {
            live.attach(client);
            live.adopt(self.restarts.take_left(session));
            return Ok(live);
        }
        if let Some(ending) = slot.take() {
            ending.finished().await;
        }
        self.restarts.check(session)?;
        let back = match self.restore(session, client, None, None).await {
            Ok(back) => back,
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(Refusal::Agent(raw)) => {
                let what = format!("the session could not be brought back: {raw}");
                return Err(Failure::internal(Phase::Session, what));
            }
        };
        back.live.attach_and_show(client).await;
        *slot = Some(Arc::clone(&back.live));
        back.live.adopt(self.restarts.take_left(session));
        Ok(back.live)
    }

    async fn restore(
        self: &Arc<Host>,
        session: &str,
        client: &Arc<Client>,
        asked: Option<&Asked>,
        params: Option<&str>,
    ) -> Result<Back, Refusal> {
        let row = self.store.session(session).await.map_err(Failure::from)?;
        let Some(row) = row else {
            return Err(Failure::unknown_session(session).into());
        };
        let lease = self.lease(session).await?;
        self.complete_fork(&row).await?;
        let ended = self.end_interrupted(session).await;
        ended.map_err(Failure::from)?;
        let row = usage::caught_up(&self.store, row)
            .await
            .map_err(Failure::from)?;
        let other = asked.and_then(|asked| asked.options.agent.as_deref());
        if let Some(other) = other.filter(|other| *other != row.agent) {
            let what = format!(
                "`_meta.acpbox.agent` is `{other}`, but the session is one of `{}`",
                row.agent
            );
            let hint = "leave it out; session/fork goes on with another agent";
            return Err(Failure::invalid_params(what).hint(hint).into());
        }
        let kept = self.kept(&row, asked)?;
        let params = self.params_again(session, params, &kept).await?;
        let way = |tier| Way {
            tier,
            session: row.agent_session.clone(),
        };
        let ways = match &row.agent_session {
            Some(_) => vec![way(Tier::Resume), way(Tier::Load)],
            None => Vec::new(),
        };
        let comeback = Comeback {
            reasons: kept.reasons.clone(),
            row,
            kept: &kept,
            client,
            lease,
            ways,
            params: &params,
        };
        self.bring_back(comeback).await
    }
}

impl Live {
    /// Sends a client what it has not seen (all above `after`), then the answer,
    /// then whatever comes: nothing is missing and nothing comes twice.
    pub(super) async fn attach_and_answer(
        &self,
        client: &Arc<Client>,
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
        self.show_held(client).await;
        Ok(())
    }

    /// Attaches the client that had a session brought back by using it.
    async fn attach_and_show(&self, client: &Arc<Client>) {
        let _order = self.order().await;
        self.show_held(client).await;
    }

    /// Attaches a client and sends it what came while nobody was. The order must be held.
    async fn show_held(&self, client: &Arc<Client>) {
        let held = {
            let mut state = self.state();
            state.is_announced = true;
            state.held_bytes = 0;
            std::mem::take(&mut state.held)
        };
        self.attach(client);
        for line in held {
            let _ = client.outbox.send(&line).await;
        }
    }
}

fn is_update(line: &str) -> bool {
    splice::member(line, "method")
        .and_then(message::string)
        .as_deref()
        == Some(methods::SESSION_UPDATE)
}
