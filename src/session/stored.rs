//! `session/load` and `session/resume` with `start: false` of a session that is not
//! live: the client is shown what is stored and follows it. Nothing is started;
//! whoever uses the session next brings it back, and what comes then is shown too.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::asked::Asked;
use super::attached::Follower;
use super::client::Client;
use super::create::Refusal;
use super::followers::{Said, Waiter};
use super::fork::FORKING;
use super::handshake::announced;
use super::host::Host;
use super::kept::forked_from;
use super::registry::Held;
use super::replay::{self, Reading};
use super::sleep::SLEEPING;
use super::usage;
use crate::acp::Failure;
use crate::acp::extension::{Role, SessionMeta, SessionState};
use crate::rpc::message;
use crate::store::SessionRow;
use crate::transcript::Shown;

/// How a client is to follow.
pub(super) struct Following<'a> {
    pub(super) client: &'a Arc<Client>,
    /// That of its request, raw.
    pub(super) id: &'a str,
    /// Raw, with how it wants the session to come back.
    pub(super) params: &'a str,
    pub(super) role: Role,
    /// Events with higher numbers are shown to it; none that are stored if absent.
    pub(super) after: Option<i64>,
}

impl Host {
    /// Lets a client follow a session that is not live, and answers. Once `decided`
    /// was called it must not be given up.
    pub(super) async fn follow_stored(
        self: &Arc<Host>,
        session: &str,
        mut slot: Held<'_>,
        following: Following<'_>,
        decided: impl FnOnce(),
    ) -> Result<(), Refusal> {
        // Its agent may just be ending: what it says last is stored then.
        slot.settle().await;
        let row = self.known(session).await?;
        let asked = Asked::parse_in(Some(following.params), Some(&row.cwd))?;
        check_agent(&row, asked.options.agent.as_deref())?;
        self.end_what_was_cut_short(&row).await?;
        let row = self.known(session).await?;
        let last_seq = self.store.last_seq(session).await.map_err(Failure::from)?;
        decided();
        let Following { client, role, .. } = following;
        let waiter = Waiter {
            follower: Follower {
                client: Arc::downgrade(client),
                role,
            },
            seen: last_seq,
            said: Some(Arc::new(Said {
                asked,
                params: following.params.into(),
            })),
        };
        slot.follow(waiter, &row.vm);
        let public: Arc<str> = session.into();
        let turnstile = client.turnstile(&public);
        let mut turn = pin!(turnstile.lock());
        // Whoever brings the session back shows the client the rest behind this. One
        // that reads slowly keeps nobody else from the session.
        let first = futures::poll!(turn.as_mut());
        drop(slot);
        let _turn = match first {
            Poll::Ready(turn) => turn,
            Poll::Pending => turn.await,
        };
        // Other processes are told that it is followed.
        self.registry.sweep();
        let after = following.after.unwrap_or(last_seq);
        if let Err(failure) = self.show_stored(client, session, after, last_seq).await {
            client.let_go(&failure);
            return Ok(());
        }
        let meta = SessionMeta {
            agent: row.agent.clone(),
            vm: row.vm.clone(),
            last_seq,
            usage: usage::shown(&row.usage),
            restored: None,
            state: Some(state_of(&row)),
            forked_from: forked_from(&row),
            warnings: Vec::new(),
        };
        let result = announced("{}", &format!("\"{session}\""), &meta);
        let _ = client
            .outbox
            .send(&message::result(following.id, &result))
            .await;
        Ok(())
    }

    /// The row of a session that there must be.
    pub async fn known(&self, session: &str) -> Result<SessionRow, Failure> {
        let row = self.store.session(session).await?;
        row.ok_or_else(|| Failure::unknown_session(session))
    }

    /// Whoever follows sees how the turns ended that nobody drives any more. A session
    /// that another process drives is left to it.
    async fn end_what_was_cut_short(&self, row: &SessionRow) -> Result<(), Failure> {
        let left = self.restarts.left(&row.id);
        let open = self.store.open_turns(&row.id).await?;
        let is_open = open.iter().any(|turn| !left.contains(&turn.prompt));
        if !is_open && row.state != FORKING {
            return Ok(());
        }
        let Ok(_lease) = self.lease(&row.id).await else {
            return Ok(());
        };
        // Until then another process may have driven it.
        let row = self.known(&row.id).await?;
        self.complete_fork(&row).await?;
        Ok(self.end_interrupted(&row.id).await?)
    }

    async fn show_stored(
        &self,
        client: &Client,
        session: &str,
        after: i64,
        until: i64,
    ) -> Result<(), Failure> {
        if after >= until {
            return Ok(());
        }
        let shown = Shown::new(session, client.outbox.framing());
        let mut reading = Reading {
            shown: replay::look_back(&self.store, session, shown, after).await?,
            own: VecDeque::new(),
            after,
            until,
        };
        while reading.after < reading.until {
            reading = replay::read(&self.store, session, reading).await?;
            let bytes = reading.shown.take();
            if !bytes.is_empty() && client.outbox.send_encoded(bytes).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// # Errors
/// Where the client names another agent than the session's.
pub(super) fn check_agent(row: &SessionRow, asked: Option<&str>) -> Result<(), Failure> {
    match asked.filter(|other| *other != row.agent) {
        None => Ok(()),
        Some(other) => {
            let what = format!(
                "`_meta.acpbox.agent` is `{other}`, but the session is one of `{}`",
                row.agent
            );
            let hint = "leave it out; session/fork goes on with another agent";
            Err(Failure::invalid_params(what).hint(hint))
        }
    }
}

fn state_of(row: &SessionRow) -> SessionState {
    match row.state.as_str() {
        "closed" => SessionState::Closed,
        SLEEPING => SessionState::Sleeping,
        _ => SessionState::Open,
    }
}
