//! What all sessions of a process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::hooks::Hooks;
use super::index::Indexer;
use super::registry::Registry;
use super::restarts::Restarts;
use super::rules::Rules;
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
    pub indexer: Indexer,
    pub restarts: Arc<Restarts>,
    pub rules: Arc<Rules>,
    /// Whether further clients may come, as long as this process runs.
    is_served: AtomicBool,
    pub hooks: Option<Arc<Hooks>>,
}

/// The limits that a live session needs.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub line_bytes: usize,
    pub depth: usize,
    pub pending_requests: usize,
    pub queued_prompts: usize,
    pub stderr_bytes: u64,
    pub terminal_bytes: usize,
    pub initialize_timeout: Duration,
    pub session_timeout: Duration,
    pub cancel_grace: Duration,
    pub stop_grace: Duration,
    pub exit_grace: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Bounds {
        Bounds {
            line_bytes: limits.line_bytes,
            depth: limits.depth,
            pending_requests: limits.pending_requests,
            queued_prompts: limits.queued_prompts,
            stderr_bytes: limits.stderr_bytes as u64,
            terminal_bytes: limits.terminal_bytes,
            initialize_timeout: limits.initialize_timeout,
            session_timeout: limits.session_timeout,
            cancel_grace: limits.cancel_grace,
            stop_grace: limits.stop_grace,
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
        let indexer = Indexer::start(store.clone());
        let restarts = Arc::new(Restarts::new(&config.limits));
        let hooks = Hooks::start(&config.hooks, &environment);
        let rules = Rules::new(&config, &catalog);
        Arc::new(Host {
            config,
            environment,
            catalog,
            store,
            vms,
            registry,
            indexer,
            restarts,
            rules,
            is_served: AtomicBool::new(false),
            hooks,
        })
    }

    /// Says that clients come and go: what one leaves unanswered waits for the next.
    pub fn expect_clients(&self) {
        self.is_served.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    /// Ends every session, also those that are on their way back, and lets none
    /// begin any more.
    pub async fn end_sessions(&self) {
        let mut live = self.restarts.stop();
        live.extend(self.registry.unfinished());
        futures::future::join_all(live.iter().map(|live| live.stop())).await;
    }

    /// Ends every session, then every VM, then waits until all is on disk.
    pub async fn shutdown(&self) {
        self.end_sessions().await;
        let hooks = async {
            if let Some(hooks) = &self.hooks {
                hooks.stop().await;
            }
        };
        tokio::join!(self.vms.stop_all(), hooks);
        self.indexer.stop().await;
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the database could not be closed");
        }
    }
}
