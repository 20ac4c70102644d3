//! Sleep and wake: idle agents and idle VMs are ended until they are needed.
//! Those who follow a session go on following it, and miss nothing.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ending::Cause;
use super::host::Host;
use super::live::Live;
use super::state::{Batch, State, Waiting};
use super::vms::Stopped;
use crate::acp::extension::{SessionSleep, SessionWake, SleepReason, Tier};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::splice;

/// The state of a session whose agent sleeps, as it is stored.
pub const SLEEPING: &str = "sleeping";

/// How long an agent that goes to sleep may take to end after SIGTERM: nobody
/// waits for it, and it may have something to put away.
const SLEEP_GRACE: Duration = Duration::from_secs(2);

/// The least time between two looks at what is idle.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// A client's message on its way to an agent, which does not go to sleep meanwhile.
pub struct Visit(Arc<Live>);

impl Deref for Visit {
    type Target = Arc<Live>;

    fn deref(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.state().visits -= 1;
    }
}

impl State {
    /// Whether anybody waits for anything here.
    fn is_waited_for(&self) -> bool {
        let is_waited_for = |waiting: &Waiting| !matches!(waiting, Waiting::Abandoned { .. });
        self.is_busy()
            || self.visits > 0
            || !self.is_stored
            || self.pending.find(is_waited_for).is_some()
    }
}

impl Live {
    /// Keeps the agent awake while a message is brought to it. `None` where it
    /// is going to sleep: whoever takes the session's place then finds it ended.
    pub fn visit(self: &Arc<Self>) -> Option<Visit> {
        let mut state = self.state();
        if state.is_leaving {
            return None;
        }
        state.visits += 1;
        state.active = Instant::now();
        drop(state);
        Some(Visit(Arc::clone(self)))
    }

    /// When anything last went on.
    pub(super) fn last_activity(&self) -> Instant {
        self.state().active
    }

    fn is_idle(&self, state: &State) -> bool {
        !state.is_waited_for() && state.questions.is_empty() && !self.terminals.is_running()
    }

    /// Whether nothing goes on, and nobody waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.is_idle(&self.state())
    }

    /// Since when nothing goes on; `None` while a turn runs, somebody waits for an
    /// answer either way, or a command runs in a terminal.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        self.is_idle(&state).then_some(state.active)
    }

    /// Whether the agent can be given its conversation back as it was.
    fn can_come_back(&self, state: &State) -> bool {
        if state.row.agent_session.is_none() {
            return false;
        }
        let initialized = self.initialized();
        let capabilities = splice::member(&initialized, "agentCapabilities").unwrap_or("{}");
        let resume = splice::member(capabilities, "sessionCapabilities")
            .and_then(|sessions| splice::member(sessions, "resume"));
        resume.is_some_and(|resume| resume != "null" && resume != "false")
            || splice::member(capabilities, "loadSession") == Some("true")
    }

    /// Ends the agent until it is needed, unless `may` says otherwise. From the
    /// moment that it says yes, no message goes to the agent any more.
    async fn sleep(&self, reason: SleepReason, may: impl FnOnce(&State) -> bool) -> bool {
        {
            let mut state = self.state();
            if state.is_leaving || state.ended.is_some() || !may(&state) {
                return false;
            }
            state.is_leaving = true;
        }
        self.end(Cause::Asleep(reason), SLEEP_GRACE).await;
        true
    }

    /// Records that the agent goes to sleep; returns the line.
    pub(super) fn record_sleep(
        &self,
        state: &mut State,
        batch: &mut Batch,
        reason: SleepReason,
    ) -> String {
        state.row.state = SLEEPING.to_owned();
        let params = SessionSleep {
            session_id: self.id.to_string(),
            reason,
        };
        state.record_own(batch, methods::SESSION_SLEEP, &params)
    }

    /// Records that a sleeping session is back, for its clients to be told.
    pub(super) async fn record_wake(&self, tier: Tier) {
        let params = SessionWake {
            session_id: self.id.to_string(),
            tier,
        };
        self.note(|state, batch| {
            let line = state.record_own(batch, methods::SESSION_WAKE, &params);
            state.woke = Some(line);
        })
        .await;
    }
}

impl Host {
    /// Puts what is idle to sleep, for as long as this host is there.
    pub fn watch_idleness(self: &Arc<Host>) {
        let Some(shortest) = self.config.shortest_patience() else {
            return;
        };
        let host = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut next = Instant::now() + shortest;
            loop {
                tokio::time::sleep_until(next).await;
                let Some(host) = host.upgrade() else { return };
                let now = Instant::now();
                // Nothing that begins from now on is due before that.
                let latest = now + shortest.max(LEAST_PAUSE);
                let due = host.put_idle_to_sleep().await;
                let later = due.filter(|due| *due > now);
                next = later.map_or(latest, |due| due.min(latest));
                next = next.max(Instant::now() + LEAST_PAUSE);
            }
        });
    }

    /// Returns when the next one is due, as far as that is known.
    async fn put_idle_to_sleep(self: &Arc<Host>) -> Option<Instant> {
        self.registry.sweep();
        let now = Instant::now();
        let all = self.registry.all();
        let due = |live: &Live| Some(live.idle_since()? + self.patience_with(live)?);
        let mut waits: Vec<Instant> = Vec::new();
        let mut tired = Vec::new();
        for live in &all {
            match due(live) {
                Some(due) if due <= now => tired.push(&*live.id),
                Some(due) => waits.push(due),
                None => {}
            }
        }
        let sleeping = tired.iter().map(|id| async {
            let slot = self.registry.slot(id);
            // Whoever works there needs the agent.
            let Some(held) = slot.try_lock() else { return };
            let Some(live) = held.live() else { return };
            let slept = live.sleep(SleepReason::Idle, |state| {
                let is_due = |patience| state.active + patience <= Instant::now();
                live.is_idle(state) && patience(self, &live, state).is_some_and(is_due)
            });
            if slept.await {
                tracing::debug!(session = &*live.id, "its idle agent sleeps");
            }
        });
        futures::future::join_all(sleeping).await;
        drop(all);
        // What sleeps now and is followed is marked as such.
        self.registry.sweep();
        for name in self.vms.names() {
            let Some(patience) = self.config.vm_settings(&name).sleep_after else {
                continue;
            };
            match self.vm_idle_since(&name).await {
                Some(since) if since + patience <= now => {
                    self.put_vm_to_sleep(&name, SleepReason::VmIdle).await;
                }
                Some(since) => waits.push(since + patience),
                None => {}
            }
        }
        waits.into_iter().min()
    }

    fn patience_with(&self, live: &Live) -> Option<Duration> {
        patience(self, live, &live.state())
    }

    /// Since when nothing goes on in a VM of this process and nobody who keeps it
    /// awake is attached to a session of it, be that one awake or not. `None` also where it does not run.
    pub async fn vm_idle_since(&self, name: &str) -> Option<Instant> {
        let last_use = self.vms.last_use(name).await?;
        self.registry.sweep();
        let lives = self.registry.in_vm(name);
        let is_attended = lives.iter().any(|live| live.is_attended());
        if is_attended || self.registry.is_attended_in(name) {
            return None;
        }
        let mut since = last_use;
        for live in &lives {
            since = since.max(live.idle_since()?);
        }
        Some(since)
    }

    /// When anything last went on in a VM of this process.
    pub async fn vm_last_activity(&self, name: &str) -> Option<Instant> {
        let last_use = self.vms.last_use(name).await?;
        let lives = self.registry.in_vm(name);
        let active = lives.iter().map(|live| live.last_activity());
        active.chain([last_use]).max()
    }

    /// Idle agents first, then the VM if that was all.
    async fn put_vm_to_sleep(&self, name: &str, reason: SleepReason) {
        let ids: BTreeSet<_> = (self.registry.in_vm(name).iter())
            .map(|live| Arc::clone(&live.id))
            .collect();
        let sleeping = ids.iter().map(|id| async {
            let slot = self.registry.slot(id);
            let Some(held) = slot.try_lock() else { return };
            let Some(live) = held.live() else { return };
            let is_unattended = |state: &State| live.is_idle(state) && !state.is_attended();
            live.sleep(reason, is_unattended).await;
        });
        futures::future::join_all(sleeping).await;
        if self.vms.sleep(name, false).await == Stopped::Yes {
            tracing::debug!(name, "the idle VM sleeps");
        }
    }

    /// Puts a VM's agents and then the VM to sleep because somebody asked for it.
    ///
    /// # Errors
    /// Without `force`, where a turn runs or an agent is being started in it.
    pub async fn sleep_vm(&self, name: &str, force: bool) -> Result<Stopped, Failure> {
        let lives = self.registry.in_vm(name);
        let refused = |what: String| {
            Err(Failure::internal(Phase::Request, what)
                .hint("wait, or cancel it, or say `force: true`"))
        };
        let in_turn = |live: &Arc<Live>| refused(turn_runs(name, live));
        if !force && let Some(live) = lives.iter().find(|live| live.is_busy()) {
            return in_turn(live);
        }
        let ended = lives.iter().map(|live| {
            let may = move |state: &State| force || !state.is_busy();
            live.sleep(SleepReason::Asked, may)
        });
        futures::future::join_all(ended).await;
        // One may have begun a turn just before it could be ended.
        if let Some(live) = lives.iter().find(|live| !force && live.is_busy()) {
            return in_turn(live);
        }
        match self.vms.sleep(name, force).await {
            Stopped::InUse => refused(format!(
                "an agent is being started in VM `{name}`, or asked to log in"
            )),
            stopped => Ok(stopped),
        }
    }
}

/// How long this agent may be idle; `None` for ever. One that would not know its
/// conversation any more is left alone.
fn patience(host: &Host, live: &Live, state: &State) -> Option<Duration> {
    let settings = host.config.vm_settings(&live.vm_name);
    let agent = settings.agent_sleep_after;
    let either = match state.is_attended() {
        true => agent,
        false => agent.into_iter().chain(settings.sleep_after).min(),
    };
    either.filter(|_| live.can_come_back(state))
}

fn turn_runs(vm: &str, live: &Live) -> String {
    format!(
        "VM `{vm}` cannot sleep: a turn runs in its session `{}`",
        live.id
    )
}
