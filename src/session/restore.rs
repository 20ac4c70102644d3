//! `session/load`, `session/resume`, and prompts to sessions that are not live:
//! the conversation goes on with whatever the agent can still do.

use std::sync::Arc;

use super::asked::{self, Asked};
use super::attached::may_control;
use super::catch_up::Behind;
use super::client::Client;
use super::comeback::{Back, Comeback, Way};
use super::create::Refusal;
use super::followers::{Before, Rest};
use super::handshake::announced;
use super::host::Host;
use super::kept::forked_from;
use super::live::Live;
use super::sleep::SLEEPING;
use super::stored::{Following, check_agent};
use super::usage;
use crate::acp::extension::{Restored, Role, SessionMeta, SessionState, Tier};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};

impl Host {
    /// Handles `session/load` (`with_replay`) and `session/resume`, and answers. Once
    /// `decided` was called it must not be given up: clients would follow no more, and
    /// lack answers that were kept for them.
    pub async fn reconnect(
        self: &Arc<Host>,
        client: &Arc<Client>,
        id: &str,
        params: Option<&str>,
        with_replay: bool,
        decided: impl FnOnce(),
    ) -> Result<(), Refusal> {
        let session = params
            .and_then(|params| splice::member(params, "sessionId"))
            .and_then(message::string);
        let Some(session) = session else {
            return Err(Failure::invalid_params("`sessionId` is missing, a string").into());
        };
        let options = asked::options(params.unwrap_or("null"))?;
        let starts = options.start != Some(false);
        let asked = starts.then(|| Asked::parse(params)).transpose()?;
        if starts {
            self.restarts.forgive(&session);
        }
        let slot = self.registry.slot(&session);
        let mut slot = slot.lock().await;
        let back = match (slot.live(), asked) {
            (Some(live), _) => Back {
                result: self.selection(&live).await?,
                live,
                rest: Rest::default(),
                restored: Restored::by(Tier::Attach),
            },
            (None, None) => {
                let following = Following {
                    client,
                    id,
                    params: params.unwrap_or("{}"),
                    role: options.role,
                    after: with_replay.then(|| options.after.unwrap_or(0)),
                };
                let followed = self.follow_stored(&session, slot, following, decided);
                return followed.await;
            }
            (None, Some(mut asked)) => {
                let rest = slot.settle().await;
                rest.complete(&mut asked);
                let mut back = self.restore(&session, client, Some(&asked), params).await?;
                back.rest = rest;
                slot.set(Arc::clone(&back.live));
                back
            }
        };
        let forked_from = forked_from(&back.live.state().row);
        let role = options.role;
        let after = with_replay.then(|| options.after.unwrap_or(0));
        decided();
        let behind = back
            .live
            .attach_and_answer(client, role, &back.rest, after, |last_seq| {
                let meta = SessionMeta {
                    agent: back.live.agent_name.clone(),
                    vm: back.live.vm_name.clone(),
                    last_seq,
                    usage: usage::shown(&back.live.state().row.usage),
                    restored: Some(back.restored.clone()),
                    state: (!starts).then_some(SessionState::Live),
                    forked_from: forked_from.clone(),
                    warnings: back.live.warnings(),
                };
                let public = format!("\"{}\"", back.live.id);
                message::result(id, &announced(&back.result, &public, &meta))
            })
            .await?;
        back.live.adopt(self.restarts.take_left(&session));
        // One that reads slowly keeps nobody else from the session.
        drop(slot);
        if let Err(failure) = behind.run().await {
            // Its answer may be on its way already: it cannot get another one.
            client.let_go(&failure);
            return Ok(());
        }
        // It has its answer by now.
        back.live.ask_again_soon(client);
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
        let before = rest.of_client(client);
        before.map_or(Ok(()), |before| may_control(before.role))?;
        self.restarts.check(session)?;
        let (asked, params) = rest.wanted_by(client);
        let restoring = self.restore(session, client, asked.as_ref(), params.as_deref());
        let back = match restoring.await {
            Ok(back) => back,
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(Refusal::Agent(raw)) => {
                let what = format!("the session could not be brought back: {raw}");
                return Err(Failure::internal(Phase::Session, what));
            }
        };
        slot.set(Arc::clone(&back.live));
        let (live, client) = (Arc::clone(&back.live), Arc::clone(client));
        let left = self.restarts.take_left(session);
        // Also if whoever asked gives up: others follow, and their prompts wait.
        let welcomed = tokio::spawn(async move {
            let shown = live.attach_and_show(&client, &rest).await;
            live.adopt(left);
            shown
        });
        let stopped = |error: tokio::task::JoinError| {
            Failure::internal(Phase::Session, format!("the session's clients: {error}"))
        };
        welcomed.await.map_err(stopped)??;
        Ok(back.live)
    }

    async fn restore(
        self: &Arc<Host>,
        session: &str,
        client: &Arc<Client>,
        asked: Option<&Asked>,
        params: Option<&str>,
    ) -> Result<Back, Refusal> {
        let restored = self.restore_now(session, client, asked, params).await;
        if restored.is_err() {
            // However it shows, it says nothing of the session if acpbox ends.
            self.restarts.may_start()?;
        }
        restored
    }

    async fn restore_now(
        self: &Arc<Host>,
        session: &str,
        client: &Arc<Client>,
        asked: Option<&Asked>,
        params: Option<&str>,
    ) -> Result<Back, Refusal> {
        self.known(session).await?;
        let lease = self.lease(session).await?;
        // Until then another process may have driven it.
        let row = self.known(session).await?;
        let was_asleep = row.state == SLEEPING;
        self.complete_fork(&row).await?;
        let ended = self.end_interrupted(session).await;
        ended.map_err(Failure::from)?;
        let row = usage::caught_up(&self.store, row)
            .await
            .map_err(Failure::from)?;
        check_agent(&row, asked.and_then(|asked| asked.options.agent.as_deref()))?;
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
        let back = self.bring_back(comeback).await?;
        if was_asleep {
            back.live.record_wake(back.restored.tier).await;
        }
        Ok(back)
    }
}

impl Live {
    /// Lets a client follow: it gets what it has not seen (all above `after`), then
    /// the answer, then whatever comes, once what is returned runs. Nothing is
    /// missing and nothing comes twice.
    pub(super) async fn attach_and_answer(
        self: &Arc<Self>,
        client: &Arc<Client>,
        role: Role,
        rest: &Rest,
        after: Option<i64>,
        answer: impl FnOnce(i64) -> String,
    ) -> Result<Behind, Failure> {
        let _order = self.order().await;
        if role == Role::Observer {
            self.stop_asking(client, "the client became an observer")
                .await;
        }
        let behind = self.attach_behind(client, Some(role));
        let followers = self.attach_followers(rest, client);
        // What clients sent before this is to be replayed too.
        let flushed = self.flush().await;
        let last_seq = self.state().stored;
        let mut held = self.take_held();
        if after.is_some() {
            // The updates that were held are in the transcript.
            held.retain(|line| !is_update(line));
        }
        let mut lines = vec![answer(last_seq)];
        lines.append(&mut held.clone());
        let woke = self.state().woke.take();
        if let Err(failure) = flushed {
            // The agent is ended. Others see that, and follow the next one.
            self.show_followers(followers, held, woke, last_seq);
            return Err(failure);
        }
        lines.extend(woke.clone().filter(|_| wants_notices(client)));
        let cursor = after.map_or(last_seq, |after| after.min(last_seq));
        behind.set_out(cursor, last_seq, &lines);
        self.show_followers(followers, held, woke, last_seq);
        Ok(behind)
    }

    /// Attaches the client that had a session brought back by using it.
    async fn attach_and_show(
        self: &Arc<Self>,
        client: &Arc<Client>,
        rest: &Rest,
    ) -> Result<(), Failure> {
        let _order = self.order().await;
        let before = rest.of_client(client);
        let behind = self.attach_behind(client, before.map(|before| before.role));
        let followers = self.attach_followers(rest, client);
        let flushed = self.flush().await;
        let last_seq = self.state().stored;
        let mut held = self.take_held();
        // Another process may have driven the session meanwhile.
        let cursor = match before {
            Some(before) => {
                held.retain(|line| !is_update(line));
                before.seen.min(last_seq)
            }
            None => last_seq,
        };
        let woke = self.state().woke.take();
        let mut lines = held.clone();
        lines.extend(woke.clone().filter(|_| wants_notices(client)));
        behind.set_out(cursor, last_seq, &lines);
        behind.run_aside();
        self.show_followers(followers, held, woke, last_seq);
        flushed
    }

    /// What came while nobody was there; from now on clients are.
    fn take_held(&self) -> Vec<String> {
        let mut state = self.state();
        state.is_announced = true;
        state.held_bytes = 0;
        std::mem::take(&mut state.held)
    }

    /// Sends those who followed before what they have not seen.
    fn show_followers(
        &self,
        followers: Vec<(Behind, Before)>,
        mut held: Vec<String>,
        woke: Option<String>,
        last_seq: i64,
    ) {
        held.retain(|line| !is_update(line));
        for (behind, before) in followers {
            let mut lines = held.clone();
            lines.extend(woke.clone().filter(|_| wants_notices(behind.client())));
            behind.set_out(before.seen.min(last_seq), last_seq, &lines);
            behind.run_aside();
        }
    }
}

fn wants_notices(client: &Client) -> bool {
    client.offer().options.agent_notifications
}

fn is_update(line: &str) -> bool {
    splice::member(line, "method")
        .and_then(message::string)
        .as_deref()
        == Some(methods::SESSION_UPDATE)
}
