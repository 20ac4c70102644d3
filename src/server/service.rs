//! Takes clients in from sockets, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::admission::{Admission, Seat};
use super::connection::{Gate, serve};
use super::descriptors::Spare;
use super::http::{self, Site};
use super::listen::{Accepted, Listener, Unsecured};
use super::retire::Retirement;
use super::seldom::Seldom;
use crate::acp::failure::INTERNAL_ERROR;
use crate::config::ServerSettings;
use crate::rpc::message;

/// How long to wait after an error that may be of all clients.
const PAUSE: Duration = Duration::from_millis(100);

/// How often to look whether the last turns have ended.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

/// How long one that is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Lines a minute in the log of each kind of trouble that strangers make.
const LOGGED: u32 = 8;

/// Serves the clients of all listeners. Once `stop` is cancelled no more are taken
/// in, and running turns may end, up to `drain_timeout` or until `hurry` is
/// cancelled. Then every connection ends; what is live is the caller's to close. A
/// server that was started `on_demand` also stops once nobody has used it for
/// `spawned_idle_timeout`.
pub async fn run(
    server: Arc<Server>,
    listeners: Vec<Listener>,
    stop: CancellationToken,
    hurry: CancellationToken,
    on_demand: bool,
) {
    server.host.expect_clients();
    let settings = server.host.config.server.clone();
    let tasks = TaskTracker::new();
    let shutdown = CancellationToken::new();
    let admission = Admission::new(&settings);
    if on_demand {
        let retirement = Retirement::new(
            Arc::clone(&server.host),
            Arc::clone(&server.observed.clients),
            Arc::clone(&admission),
            stop.clone(),
        );
        let _ = server.observed.retirement.set(Arc::clone(&retirement));
        if let Some(patience) = settings.spawned_idle_timeout {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = retirement.watch(patience) => {
                        tracing::info!("nobody uses this server: it ends (server.spawned_idle_timeout)");
                    }
                    () = stop.cancelled() => {}
                }
            });
        }
    }
    for listener in listeners {
        let site = match &listener {
            Listener::Http(socket) => {
                let server = Arc::clone(&server);
                let tasks = tasks.clone();
                Some(Site::new(
                    server,
                    socket,
                    tasks,
                    stop.clone(),
                    shutdown.clone(),
                ))
            }
            Listener::Unix(_) | Listener::Tcp(_) => None,
        };
        // A client of HTTP that is connected may need another connection to answer.
        let until = match &site {
            Some(_) => shutdown.clone(),
            None => stop.clone(),
        };
        let accepting = Arc::new(Accepting {
            site: site.map(|site| {
                let router = site.router();
                (site, router)
            }),
            server: Arc::clone(&server),
            settings: settings.clone(),
            tasks: tasks.clone(),
            admission: Arc::clone(&admission),
            shutdown: shutdown.clone(),
            turned_away: Seldom::times(1),
            let_go: Seldom::times(LOGGED),
            failed: Seldom::times(LOGGED),
        });
        tasks.spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = accepting.run(&listener) => {}
            }
        });
    }
    stop.cancelled().await;
    let drained = async {
        while server.host.registry.all().iter().any(|live| live.is_busy()) {
            tokio::time::sleep(DRAIN_CHECK).await;
        }
    };
    tokio::select! {
        () = drained => {}
        () = hurry.cancelled() => tracing::info!("running turns are cut short"),
        () = tokio::time::sleep(settings.drain_timeout) => {
            tracing::warn!("turns that still run are cut short (server.drain_timeout)");
        }
    }
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
}

struct Accepting {
    server: Arc<Server>,
    settings: ServerSettings,
    tasks: TaskTracker,
    admission: Arc<Admission>,
    shutdown: CancellationToken,
    /// What is served to clients that speak HTTP, if they do.
    site: Option<(Arc<Site>, Router)>,
    turned_away: Seldom,
    let_go: Seldom,
    failed: Seldom,
}

impl Accepting {
    async fn run(self: &Arc<Self>, listener: &Listener) {
        let mut spare = Spare::hold();
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    self.take_in(accepted);
                    // Those who came before are heard before those who come next.
                    tokio::task::yield_now().await;
                }
                Err(error) if Spare::is_needed(&error) => {
                    if let Some(left_out) = self.turned_away.tell() {
                        tracing::warn!(%listener, left_out, "clients are turned away: {}", Spare::NONE_LEFT);
                    }
                    if !self.turn_away_with(&mut spare, listener) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    if let Some(left_out) = self.failed.tell() {
                        tracing::warn!(%listener, left_out, "{error}");
                    }
                }
                Err(error) => {
                    if let Some(left_out) = self.failed.tell() {
                        tracing::warn!(%listener, left_out, %error, "a client could not be taken in");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn take_in(self: &Arc<Self>, accepted: Accepted) {
        let Some(seat) = self.admission.admit(accepted.source) else {
            // Whoever comes while this server ends finds no socket in a moment, or the
            // next one's.
            if !self.admission.is_closing() {
                self.turn_away(accepted);
            }
            return;
        };
        let accepting = Arc::clone(self);
        self.tasks.spawn(async move {
            let patience = accepting.settings.handshake_timeout;
            let peer = accepted.peer.clone();
            let secured = tokio::select! {
                secured = accepted.secured(patience) => secured,
                () = accepting.shutdown.cancelled() => return,
                // What a handshake is under way with can be told nothing.
                () = seat.must_go() => return,
            };
            match secured {
                Ok(accepted) => accepting.serve(accepted, seat).await,
                Err(Unsecured::Silent) => {
                    tracing::debug!(peer, "one that is to speak TLS said nothing");
                }
                Err(Unsecured::Failed(why)) => match accepting.let_go.tell() {
                    Some(left_out) => tracing::warn!(peer, left_out, "a client is let go: {why}"),
                    None => tracing::debug!(peer, "a client is let go: {why}"),
                },
            }
        });
    }

    async fn serve(&self, accepted: Accepted, seat: Arc<Seat>) {
        if let Some((site, router)) = &self.site {
            // In a box, or every client's task were as large as one of HTTP.
            Box::pin(site.serve(router.clone(), accepted, seat)).await;
            return;
        }
        let gate = Gate {
            token: accepted.token,
            patience: Some(self.settings.handshake_timeout),
            peer: accepted.peer.clone(),
            framing: None,
            seat: Some(Arc::downgrade(&seat)),
            budget: None,
        };
        tracing::debug!(peer = accepted.peer, "a client connected");
        let (server, shutdown) = (Arc::clone(&self.server), self.shutdown.clone());
        let (input, output) = (accepted.input, accepted.output);
        // One that is gone is noticed when something is sent to it.
        let ending = serve(server, input, output, gate, shutdown, || false).await;
        tracing::debug!(peer = accepted.peer, ?ending, "a client is gone");
        // What still works for it is no client.
        drop(seat);
    }

    fn turn_away(&self, mut accepted: Accepted) {
        if let Some(left_out) = self.turned_away.tell() {
            tracing::warn!(
                peer = accepted.peer,
                limit = self.settings.connections,
                left_out,
                "too many clients are connected: they are turned away until one leaves"
            );
        }
        let refusal = self.refusal(&self.admission.full());
        self.tasks.spawn(async move {
            let _ = tokio::time::timeout(FAREWELL, say(&mut accepted, &refusal)).await;
        });
    }

    /// Lets the next client in for as long as it takes to say why it must go, in the
    /// place of the spare descriptor. `false` if that is not there or did not help.
    fn turn_away_with(&self, spare: &mut Spare, listener: &Listener) -> bool {
        if !spare.give_up() {
            return spare.take_back();
        }
        // There may be nobody: the kernel looks for a descriptor first.
        if let Some(Ok(mut accepted)) = listener.accept().now_or_never() {
            // What fits into a new socket is not waited for.
            let _ = say(&mut accepted, &self.refusal(Spare::NONE_LEFT)).now_or_never();
        }
        spare.take_back()
    }

    fn refusal(&self, why: &str) -> String {
        if self.site.is_some() {
            return http::farewell(why);
        }
        let error = jsonrpsee_types::ErrorObjectOwned::owned(INTERNAL_ERROR, why, None::<()>);
        format!("{}\n", message::error("null", &error))
    }
}

async fn say(accepted: &mut Accepted, refusal: &str) -> std::io::Result<()> {
    if accepted.tls.is_some() {
        // A handshake is too much work for one that has no place.
        return Ok(());
    }
    accepted.output.write_all(refusal.as_bytes()).await?;
    accepted.output.shutdown().await
}
