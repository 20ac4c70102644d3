//! What all sessions of a process share.

use std::sync::Arc;
use std::time::Duration;

use super::registry::Registry;
use super::vms::Vms;
use crate::agent::catalog::Catalog;
use crate::config::{Config, Environment, Limits};
use crate::store::Store;

pub struct Host {
    pub config: Config,
    pub environment: Environment,
    pub catalog: Catalog,
    pub store: Store,
    pub vms: Vms,
    pub registry: Registry,
}

/// The limits that a live session needs.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub line_bytes: usize,
    pub depth: usize,
    pub pending_requests: usize,
    pub stderr_bytes: u64,
    pub terminal_bytes: usize,
    pub initialize_timeout: Duration,
    pub session_timeout: Duration,
    pub cancel_grace: Duration,
    pub exit_grace: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Bounds {
        Bounds {
            line_bytes: limits.line_bytes,
            depth: limits.depth,
            pending_requests: limits.pending_requests,
            stderr_bytes: limits.stderr_bytes as u64,
            terminal_bytes: limits.terminal_bytes,
            initialize_timeout: limits.initialize_timeout,
            session_timeout: limits.session_timeout,
            cancel_grace: limits.cancel_grace,
            exit_grace: limits.exit_grace,
        }
    }
}

impl Host {
    /// Opens what sessions need. `executable` is acpbox itself.
    pub fn new(
        config: Config,
        environment: Environment,
        catalog: Catalog,
        store: Store,
        executable: std::path::PathBuf,
    ) -> Arc<Host> {
        let vms = Vms::new(store.clone(), executable);
        let registry = Registry::new(&config.paths.state_dir);
        Arc::new(Host {
            config,
            environment,
            catalog,
            store,
            vms,
            registry,
        })
    }

    /// Ends every session, then every VM, then waits until all is on disk.
    pub async fn shutdown(&self) {
        let live = self.registry.unfinished();
        futures::future::join_all(live.iter().map(|live| live.close())).await;
        self.vms.stop_all().await;
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the database could not be closed");
        }
    }
}
