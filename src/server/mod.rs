//! What clients talk to: [`listen`] has the sockets, [`service`] takes clients in from
//! them (as many as [`admission`] and [`descriptors`] allow; [`seldom`] keeps strangers out of
//! the log; [`retire`] ends one that nobody uses), [`http`] those that speak HTTP,
//! [`web`] is the page for browsers; [`connection`] reads one client's messages, [`dispatch`]
//! sends each where it belongs, [`initialize`], [`sessions`] and
//! [`authenticate`] answer ACP's methods, [`extension`], [`search`], [`info`] and
//! [`status`] our own; [`clients`] lists who is connected.

pub mod listen;
pub mod service;
pub mod admission;
pub mod retire;
pub mod descriptors;
pub mod seldom;
pub mod http;
pub mod web;
pub mod connection;
pub mod dispatch;
pub mod initialize;
pub mod sessions;
pub mod authenticate;
pub mod extension;
pub mod search;
pub mod info;
pub mod clients;
pub mod status;

use std::sync::Arc;

use jsonrpsee_core::server::RpcModule;

use crate::session::Host;

pub use connection::{Ending, Gate, serve};
use status::Observed;

/// Serves any number of clients from one [`Host`].
pub struct Server {
    pub host: Arc<Host>,
    /// The `_acpbox/*` methods, the same for every transport.
    pub extension: RpcModule<Arc<Host>>,
    pub observed: Arc<Observed>,
}

impl Server {
    pub fn new(host: Arc<Host>) -> Arc<Server> {
        let observed = Observed::new();
        let extension = extension::module(Arc::clone(&host), &observed);
        host.watch_idleness();
        Arc::new(Server {
            host,
            extension,
            observed,
        })
    }
}
