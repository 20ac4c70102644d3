//! The end of a server that was started on demand: once nobody uses it, or where a
//! client wants to start a newer one in its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::clients::Clients;
use super::status::Observed;
use crate::acp::Failure;
use crate::acp::extension::{ServerRetireRequest, ServerRetirement};
use crate::session::Host;

/// How often to look whether anybody is there, at most and at least.
const OFTEN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(5);

/// How long whoever started the server may take to come.
const FIRST_CLIENT: Duration = Duration::from_secs(30);

/// The right to end this server.
pub struct Retirement {
    host: Arc<Host>,
    clients: Arc<Clients>,
    admission: Arc<Admission>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Retirement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Retirement").finish_non_exhaustive()
    }
}

impl Retirement {
    /// `stop` ends the server.
    pub fn new(
        host: Arc<Host>,
        clients: Arc<Clients>,
        admission: Arc<Admission>,
        stop: CancellationToken,
    ) -> Arc<Retirement> {
        Arc::new(Retirement {
            host,
            clients,
            admission,
            stop,
        })
    }

    /// Ends the server once nobody has used it for so long.
    pub async fn watch(&self, patience: Duration) {
        let pause = (patience / 10).clamp(OFTEN, SELDOM);
        let mut idle_since = Instant::now();
        let mut known = 0;
        loop {
            tokio::time::sleep(pause).await;
            let count = self.clients.count();
            // One may have come and gone meanwhile.
            if count != known || self.why_needed(0).await.is_some() {
                known = count;
                idle_since = Instant::now();
                continue;
            }
            let patience = match count {
                0 => patience.max(FIRST_CLIENT),
                _ => patience,
            };
            if idle_since.elapsed() >= patience && self.begin(0).await.is_ok() {
                return;
            }
        }
    }

    /// Ends the server unless it is needed by more than so many clients. From then on
    /// nobody is taken in; who comes is let go without a word, and finds no socket soon.
    ///
    /// # Errors
    /// What it is needed for.
    async fn begin(&self, asking: usize) -> Result<(), String> {
        let Some(others) = self.admission.others(asking) else {
            return Err("other clients are connected".into());
        };
        if let Some(why) = self.why_needed(asking).await {
            return Err(why);
        }
        others.close();
        let (host, stop) = (Arc::clone(&self.host), self.stop.clone());
        tokio::spawn(async move {
            // Before the socket goes: the next server can have the sessions at once.
            host.end_sessions().await;
            stop.cancel();
        });
        Ok(())
    }

    async fn why_needed(&self, asking: usize) -> Option<String> {
        // Clients of HTTP are there also between two connections.
        if self.clients.all().len() > asking {
            return Some("other clients are connected".into());
        }
        let lives = self.host.registry.all();
        if let Some(live) = lives.iter().find(|live| !live.is_quiet()) {
            return Some(format!("something goes on in the session `{}`", live.id));
        }
        for name in self.host.vms.names() {
            let may_sleep = self.host.config.vm_settings(&name).sleep_after.is_some();
            if !may_sleep && self.host.vms.last_use(&name).await.is_some() {
                return Some(format!("the VM `{name}` runs, which is never to sleep"));
            }
        }
        None
    }
}

pub(super) async fn retire(
    observed: Arc<Observed>,
    _: ServerRetireRequest,
) -> Result<ServerRetirement, Failure> {
    let outcome = match observed.retirement.get() {
        Some(retirement) => retirement.begin(1).await,
        None => Err("it was not started by --spawn-server".into()),
    };
    if outcome.is_ok() {
        tracing::info!("a newer acpbox takes this server's place");
    }
    Ok(ServerRetirement {
        retired: outcome.is_ok(),
        reason: outcome.err(),
    })
}
