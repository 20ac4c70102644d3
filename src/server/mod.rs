//! What clients talk to: [`listen`] has the sockets, [`service`] takes clients in from
//! them; [`connection`] reads one client's messages, [`dispatch`]
//! sends each where it belongs, [`initialize`], [`sessions`] and
//! [`authenticate`] answer ACP's methods, [`extension`], [`search`] and [`info`] our own.

pub mod listen;
pub mod service;
pub mod connection;
pub mod dispatch;
pub mod initialize;
pub mod sessions;
pub mod authenticate;
pub mod extension;
pub mod search;
pub mod info;

use std::sync::Arc;

use jsonrpsee_core::server::RpcModule;

use crate::session::Host;

pub use connection::{Ending, Gate, serve};

/// Serves any number of clients from one [`Host`].
pub struct Server {
    pub host: Arc<Host>,
    /// The `_acpbox/*` methods, the same for every transport.
    pub extension: RpcModule<Arc<Host>>,
}

impl Server {
    pub fn new(host: Arc<Host>) -> Arc<Server> {
        let extension = extension::module(Arc::clone(&host));
        host.watch_idleness();
        Arc::new(Server { host, extension })
    }
}
