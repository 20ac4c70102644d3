//! `_acpbox/server/status`: what this process serves, to whom, and how busy it is.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::Server;
use super::clients::{Clients, Connected};
use super::extension;
use super::retire::Retirement;
use crate::acp::Failure;
use crate::acp::extension::{ClientStatus, Following, ServerStatus, ServerStatusRequest, Totals};
use crate::rpc::{message, splice};
use crate::session::Host;
use crate::session::status::milliseconds;

/// What is known of this process besides its sessions.
#[derive(Debug)]
pub struct Observed {
    pub clients: Arc<Clients>,
    /// Of a server that was started on demand.
    pub retirement: OnceLock<Arc<Retirement>>,
    started: Instant,
}

impl Observed {
    /// Now is when the process started.
    pub fn new() -> Arc<Observed> {
        Arc::new(Observed {
            clients: Arc::default(),
            retirement: OnceLock::new(),
            started: Instant::now(),
        })
    }
}

impl Server {
    /// What `_acpbox/server/status` answers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn status(&self) -> Result<ServerStatus, Failure> {
        status(&self.host, &self.observed).await
    }
}

pub(super) async fn server_status(
    host: Arc<Host>,
    observed: Arc<Observed>,
    _: ServerStatusRequest,
) -> Result<ServerStatus, Failure> {
    status(&host, &observed).await
}

async fn status(host: &Host, observed: &Observed) -> Result<ServerStatus, Failure> {
    let written = host.store.written();
    let uptime = observed.started.elapsed().as_millis();
    Ok(ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: milliseconds(observed.started),
        uptime: u64::try_from(uptime).unwrap_or(u64::MAX),
        database: host.store.path().to_path_buf(),
        sessions: host.sessions_status().await?,
        vms: extension::vms(host).await?,
        clients: clients(host, &observed.clients),
        totals: Totals {
            events: written.events,
            turns: written.turns,
            clients: observed.clients.count(),
        },
        warnings: host.rules.problem().into_iter().collect(),
    })
}

fn clients(host: &Host, clients: &Clients) -> Vec<ClientStatus> {
    let lives = host.registry.all();
    let status = |(number, connected): (u64, Connected)| {
        let offer = connected.client.offer();
        let info = |key: &str| {
            let raw = offer.info.as_deref()?;
            Some(message::string(splice::member(raw, key)?)?.into_owned())
        };
        let follows = lives
            .iter()
            .filter_map(|live| live.following(&connected.client));
        let follows: Vec<Following> = follows.collect();
        let elsewhere = connected.budget.as_ref().map_or(0, |budget| budget.held());
        ClientStatus {
            number,
            name: info("title").or_else(|| info("name")),
            version: info("version"),
            peer: connected.peer.to_string(),
            since: connected.since,
            queued_bytes: connected.client.outbox.queued_bytes() + elsewhere,
            sessions: follows.iter().map(|it| it.session_id.clone()).collect(),
            follows,
        }
    };
    clients.all().into_iter().map(status).collect()
}
