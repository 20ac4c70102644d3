//! What most commands need: configuration, catalogue, database, server.

use std::sync::Arc;

use anyhow::Context as _;

use super::args::Global;
use crate::agent::catalog::Catalog;
use crate::config::{Config, Environment, Overrides};
use crate::server::Server;
use crate::session::Host;
use crate::store::Store;

pub(super) struct Context {
    pub(super) environment: Environment,
    pub(super) config: Config,
    pub(super) catalog: Catalog,
}

impl Context {
    pub(super) fn new(
        global: &Global,
        agent: Option<&str>,
        vm: Option<&str>,
    ) -> anyhow::Result<Context> {
        let environment = Environment::from_process();
        let overrides = Overrides {
            config: global.config.clone(),
            db: global.db.clone(),
            agent: agent.map(str::to_owned),
            vm: vm.map(str::to_owned),
        };
        let config = Config::load(&environment, &overrides)?;
        let catalog = Catalog::new(&config)?;
        for (number, rule) in (1..).zip(&config.permissions.rules) {
            if let Some(agent) = &rule.agent {
                // A rule that denies would be none without a word.
                let known = catalog.get(agent);
                known.with_context(|| format!("permissions.rules, rule {number}, agent"))?;
            }
        }
        Ok(Context {
            environment,
            config,
            catalog,
        })
    }

    pub(super) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.config.paths.database)?)
    }

    /// Whether the database lies where only acpbox's own does.
    pub(super) fn has_own_database(&self) -> bool {
        let paths = &self.config.paths;
        paths.database.parent() == Some(&paths.state_dir)
    }

    /// Opens the database and gets ready for clients.
    pub(super) fn server(self) -> anyhow::Result<Arc<Server>> {
        // Who works goes on in a new database where the old one is damaged.
        let path = &self.config.paths.database;
        let store = Store::open_or_set_aside(path, self.has_own_database())?;
        for warning in store.warnings() {
            tracing::error!("{warning}");
        }
        let executable = crate::vm::own_executable();
        Ok(Server::new(Host::new(
            self.config,
            self.environment,
            self.catalog,
            store,
            executable,
        )))
    }
}

/// A runtime on this one thread: a relayed byte then crosses no other.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
