//! What most commands need: configuration, catalogue, database, server.

use std::sync::Arc;

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
        Ok(Context {
            environment,
            config,
            catalog,
        })
    }

    pub(super) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.config.paths.database)?)
    }

    /// Opens the database and gets ready for clients.
    pub(super) fn server(self) -> anyhow::Result<Arc<Server>> {
        let store = self.store()?;
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
