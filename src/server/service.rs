//! Takes clients in from sockets, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::connection::{Gate, serve};
use super::http::Site;
use super::listen::{Accepted, Listener};
use crate::acp::failure::INTERNAL_ERROR;
use crate::config::ServerSettings;
use crate::rpc::message;

/// How long to wait after an error that may be of all clients, such as too many
/// open files.
const PAUSE: Duration = Duration::from_millis(100);

/// How often to look whether the last turns have ended.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

/// How long one that is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves the clients of all listeners. Once `stop` is cancelled no more are taken
/// in, and running turns may end, up to `drain_timeout` or until `hurry` is
/// cancelled. Then every connection ends; what is live is the caller's to close.
pub async fn run(
    server: Arc<Server>,
    listeners: Vec<Listener>,
    stop: CancellationToken,
    hurry: CancellationToken,
) {
    server.host.expect_clients();
    let settings = server.host.config.server.clone();
    let tasks = TaskTracker::new();
    let shutdown = CancellationToken::new();
    let places = Arc::new(Semaphore::new(settings.connections));
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
        let accepting = Accepting {
            site: site.map(|site| {
                let router = site.router();
                (site, router)
            }),
            server: Arc::clone(&server),
            settings: settings.clone(),
            tasks: tasks.clone(),
            places: Arc::clone(&places),
            shutdown: shutdown.clone(),
        };
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
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
    /// What is served to clients that speak HTTP, if they do.
    site: Option<(Arc<Site>, Router)>,
}

impl Accepting {
    async fn run(&self, listener: &Listener) {
        loop {
            match listener.accept().await {
                Ok(accepted) => self.take_in(accepted),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    tracing::warn!(%listener, "{error}");
                }
                Err(error) => {
                    tracing::warn!(%listener, %error, "a client could not be taken in");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn take_in(&self, accepted: Accepted) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.turn_away(accepted);
            return;
        };
        let patience = self.settings.handshake_timeout;
        let site = self.site.clone();
        let (server, shutdown) = (Arc::clone(&self.server), self.shutdown.clone());
        self.tasks.spawn(async move {
            let peer = accepted.peer.clone();
            let secured = tokio::select! {
                secured = accepted.secured(patience) => secured,
                () = shutdown.cancelled() => return,
            };
            let accepted = match secured {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(peer, "a client is let go: {error}");
                    return;
                }
            };
            if let Some((site, router)) = site {
                // In a box, or every client's task were as large as one of HTTP.
                Box::pin(site.serve(router, accepted, place)).await;
                return;
            }
            let gate = Gate {
                token: accepted.token,
                patience: Some(patience),
                peer,
                framing: None,
            };
            tracing::debug!(peer = accepted.peer, "a client connected");
            let (input, output) = (accepted.input, accepted.output);
            // One that is gone is noticed when something is sent to it.
            let ending = serve(server, input, output, gate, shutdown, || false).await;
            tracing::debug!(peer = accepted.peer, ?ending, "a client is gone");
            drop(place);
        });
    }

    fn turn_away(&self, accepted: Accepted) {
        let limit = self.settings.connections;
        tracing::warn!(
            peer = accepted.peer,
            limit,
            "too many clients are connected"
        );
        if accepted.tls.is_some() {
            // A handshake is too much work for one that has no place.
            return;
        }
        if let Some((site, _)) = &self.site {
            let site = Arc::clone(site);
            self.tasks
                .spawn(async move { site.turn_away(accepted).await });
            return;
        }
        let what = format!("all {limit} connections are in use (server.connections)");
        let error = jsonrpsee_types::ErrorObjectOwned::owned(INTERNAL_ERROR, what, None::<()>);
        let line = format!("{}\n", message::error("null", &error));
        let mut output = accepted.output;
        self.tasks.spawn(async move {
            let farewell = async {
                output.write_all(line.as_bytes()).await?;
                output.shutdown().await
            };
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        });
    }
}
