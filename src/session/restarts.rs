//! Agents that end by themselves are started anew by the next prompt, but not
//! for ever. Prompts that an agent left waiting start it anew too.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tracing::Instrument as _;

use super::client::Client;
use super::host::Host;
use super::live::Live;
use super::registry::Lease;
use super::state::QueuedPrompt;

use crate::acp::{Failure, Phase};
use crate::agent::process::AgentOutput;
use crate::config::Limits;

/// What becomes of sessions whose agents ended, by public id.
#[derive(Debug)]
pub struct Restarts {
    limit: usize,
    window: Duration,
    sessions: Mutex<HashMap<String, Ended>>,
    /// The agents that run, also those that nobody knows yet or any more.
    running: Mutex<HashMap<Arc<str>, Arc<Live>>>,
    /// acpbox ends: no agent is started any more.
    is_stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Ended {
    /// When its agents ended by themselves, the newest last.
    at: VecDeque<Instant>,
    /// Prompts for its next agent, in order.
    waiting: VecDeque<QueuedPrompt>,
    /// When events of its last agent could not be stored, and why not.
    lost: Option<(Instant, String)>,
}

impl Restarts {
    pub fn new(limits: &Limits) -> Restarts {
        Restarts {
            limit: limits.agent_restarts,
            window: limits.restart_window,
            sessions: Mutex::default(),
            running: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Ended>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Live>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no agent be started any more, and returns those that run, also for
    /// sessions that are still on their way back.
    pub(super) fn stop(&self) -> Vec<Arc<Live>> {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.running().values().map(Arc::clone).collect()
    }

    /// # Errors
    /// When acpbox ends.
    pub(super) fn may_start(&self) -> Result<(), Failure> {
        if self.is_stopping.load(Ordering::Relaxed) {
            let mut failure = Failure::internal(Phase::Spawn, "acpbox ends");
            failure.data.ending = true;
            return Err(failure);
        }
        Ok(())
    }

    /// An agent has ended; the session's next one may be there already.
    fn forget(&self, live: &Arc<Live>) {
        let mut running = self.running();
        if (running.get(&live.id)).is_some_and(|known| Arc::ptr_eq(known, live)) {
            running.remove(&live.id);
        }
    }

    /// Counts the end of a session's agent that nobody asked for.
    pub(super) fn count(&self, session: &str) {
        let mut sessions = self.sessions();
        self.sweep(&mut sessions);
        let ended = sessions.entry(session.to_owned()).or_default();
        ended.at.push_back(Instant::now());
        // More would not change the answer.
        while ended.at.len() > self.limit + 1 {
            ended.at.pop_front();
        }
    }

    /// Forgets what was long ago.
    fn sweep(&self, sessions: &mut HashMap<String, Ended>) {
        sessions.retain(|_, ended| {
            let is_recent = |at: &Instant| at.elapsed() < self.window;
            !ended.waiting.is_empty()
                || ended.at.back().is_some_and(is_recent)
                || ended.lost.as_ref().is_some_and(|(at, _)| is_recent(at))
        });
    }

    /// Whether a prompt may start the session's agent anew.
    pub(super) fn check(&self, session: &str) -> Result<(), Failure> {
        let sessions = self.sessions();
        let Some(ended) = sessions.get(session) else {
            return Ok(());
        };
        let recent = ended.at.iter().filter(|at| at.elapsed() < self.window);
        let count = recent.count();
        if count <= self.limit {
            return Ok(());
        }
        let what = format!(
            "the session's agent ended {count} times within {:?}; prompts do not start it again for now",
            self.window
        );
        Err(Failure::internal(Phase::Session, what).hint(format!(
            "see why with `acpbox logs {session}`; session/load or session/resume starts it and counts anew"
        )))
    }

    /// Somebody brings the session back on purpose: the count begins anew.
    pub(super) fn forgive(&self, session: &str) {
        let mut sessions = self.sessions();
        if let Some(ended) = sessions.get_mut(session) {
            ended.at.clear();
        }
    }

    /// Notes why events of a session could not be stored, for what is then said of
    /// the turns that lack their end.
    pub(super) fn lose(&self, session: &str, failure: &Failure) {
        let mut sessions = self.sessions();
        self.sweep(&mut sessions);
        let ended = sessions.entry(session.to_owned()).or_default();
        ended.lost = Some((Instant::now(), failure.message.clone()));
    }

    /// Why the session's last events could not be stored, if that was so.
    pub(super) fn lost(&self, session: &str) -> Option<String> {
        let sessions = self.sessions();
        let (_, why) = sessions.get(session)?.lost.as_ref()?;
        Some(why.clone())
    }

    /// All that is stored of the session has its end.
    pub(super) fn settle(&self, session: &str) {
        if let Some(ended) = self.sessions().get_mut(session) {
            ended.lost = None;
        }
    }

    /// Keeps prompts for the session's next agent.
    pub(super) fn leave(&self, session: &str, prompts: VecDeque<QueuedPrompt>) {
        if !prompts.is_empty() {
            let mut sessions = self.sessions();
            let ended = sessions.entry(session.to_owned()).or_default();
            ended.waiting.extend(prompts);
        }
    }

    /// The prompts that were left.
    pub(super) fn take_left(&self, session: &str) -> VecDeque<QueuedPrompt> {
        let mut sessions = self.sessions();
        let ended = sessions.get_mut(session);
        ended
            .map(|ended| std::mem::take(&mut ended.waiting))
            .unwrap_or_default()
    }

    /// The numbers of their events.
    pub(super) fn left(&self, session: &str) -> Vec<i64> {
        let sessions = self.sessions();
        let waiting = sessions
            .get(session)
            .into_iter()
            .flat_map(|ended| &ended.waiting);
        waiting.map(|prompt| prompt.seq).collect()
    }

    fn first_left(&self, session: &str) -> Option<Arc<Client>> {
        let sessions = self.sessions();
        let first = sessions.get(session)?.waiting.front()?.askers.first()?;
        Some(Arc::clone(&first.client))
    }

    /// Whether a prompt of this client's waits for an agent.
    pub fn owes(&self, client: &Arc<Client>) -> bool {
        let sessions = self.sessions();
        let waiting = sessions.values().flat_map(|ended| &ended.waiting);
        let mut askers = waiting.flat_map(|prompt| &prompt.askers);
        askers.any(|asker| Arc::ptr_eq(&asker.client, client))
    }
}

impl Host {
    /// Relays a session until its agent ends; starts the next agent if prompts wait for one.
    pub(super) fn drive(
        self: &Arc<Host>,
        live: &Arc<Live>,
        output: AgentOutput,
    ) -> impl Future<Output = ()> + Send + 'static {
        let live = Arc::clone(live);
        self.restarts
            .running()
            .insert(Arc::clone(&live.id), Arc::clone(&live));
        let (host, restarts) = (Arc::downgrade(self), Arc::clone(&self.restarts));
        let span = live.watch.span.clone();
        let driving = async move {
            let session = Arc::clone(&live.id);
            Arc::clone(&live).run(output).await;
            restarts.forget(&live);
            drop(live);
            if let Some(host) = Weak::upgrade(&host) {
                host.go_on(session).await;
            }
        };
        driving.instrument(span)
    }

    /// Takes the right to drive a session that is not live here. An agent of
    /// this process may be ending still, such as one that was given up while it
    /// came back.
    pub async fn lease(&self, session: &str) -> Result<Lease, Failure> {
        let ending = self.restarts.running().get(session).map(Arc::clone);
        if let Some(ending) = ending {
            ending.finished().await;
        }
        self.registry.lease(session)
    }

    /// Boxed, since starting an agent begins with driving it.
    fn go_on(self: Arc<Host>, session: Arc<str>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(client) = self.restarts.first_left(&session) else {
                return;
            };
            if let Err(failure) = self.ensure(&client, &session).await {
                let left = self.restarts.take_left(&session);
                self.refuse_left(&session, left, &failure).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_ends_within_the_window_are_enough() {
        let limits = Limits {
            agent_restarts: 2,
            restart_window: Duration::from_millis(300),
            ..Limits::default()
        };
        let restarts = Restarts::new(&limits);
        for _ in 0..2 {
            restarts.count("a");
            restarts.check("a").unwrap();
        }
        restarts.count("a");
        restarts.count("a");
        let failure = restarts.check("a").unwrap_err();
        assert_eq!(
            failure.message,
            "the session's agent ended 3 times within 300ms; prompts do not start it again for now"
        );
        restarts.check("b").unwrap();
        restarts.forgive("a");
        restarts.check("a").unwrap();
        for _ in 0..3 {
            restarts.count("a");
        }
        restarts.check("a").unwrap_err();
        std::thread::sleep(Duration::from_millis(310));
        restarts.check("a").unwrap();
        restarts.count("b");
        assert_eq!(
            restarts.sessions().len(),
            1,
            "what is long ago is forgotten"
        );
    }
}
