//! `acpbox sessions`: stored transcripts, read from the database directly. Works
//! beside other acpbox processes.

mod list;
mod search;
mod show;
mod replay;
mod export;
mod import;
mod delete;
mod prune;

use std::path::Path;

use serde::Serialize;

use super::args::{Global, SessionsCommand};
use super::context::{self, Context};
use super::exit::Code;
use super::locks;
use crate::acp::extension::SessionUsage;
use crate::config::Limits;
use crate::server::sessions::timestamp;
use crate::session::{Registry, usage};
use crate::store::{SessionRow, Store};

pub(super) fn run(global: &Global, command: &SessionsCommand) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    context::runtime()?.block_on(async {
        let store = context.store()?;
        let desk = Desk {
            registry: Registry::new(&context.config.paths.state_dir),
            store: store.clone(),
            limits: context.config.limits.clone(),
        };
        let code = match command {
            SessionsCommand::List(arguments) => list::run(&desk, arguments).await?,
            SessionsCommand::Search(arguments) => search::run(&desk, arguments).await?,
            SessionsCommand::Show(arguments) => show::run(&desk, arguments).await?,
            SessionsCommand::Replay(arguments) => replay::run(&desk, arguments).await?,
            SessionsCommand::Export(arguments) => export::run(&desk, arguments).await?,
            SessionsCommand::Import(arguments) => import::run(&desk, arguments).await?,
            SessionsCommand::Delete(arguments) => delete::run(&desk, arguments).await?,
            SessionsCommand::Prune(arguments) => {
                prune::run(&desk, &context.config.retention, arguments).await?
            }
        };
        store.close().await?;
        Ok(code)
    })
}

/// What these commands need.
struct Desk {
    store: Store,
    registry: Registry,
    limits: Limits,
}

impl Desk {
    /// The acpbox process in which a session is live.
    fn holder(&self, id: &str) -> Option<u32> {
        let holders = locks::holders(&self.registry.lease_path(id));
        holders.first().copied()
    }

    fn info<'a>(&self, row: &'a SessionRow) -> SessionInfo<'a> {
        SessionInfo::new(row, self.holder(&row.id))
    }
}

impl<'a> SessionInfo<'a> {
    fn new(row: &'a SessionRow, holder: Option<u32>) -> SessionInfo<'a> {
        SessionInfo {
            session_id: &row.id,
            agent: &row.agent,
            vm: &row.vm,
            cwd: &row.cwd,
            title: row.title.as_deref(),
            created_at: timestamp(row.created),
            updated_at: timestamp(row.updated),
            state: if holder.is_some() { "live" } else { &row.state },
            holder,
            usage: usage::shown(&row.usage),
        }
    }
}

/// A session as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionInfo<'a> {
    session_id: &'a str,
    agent: &'a str,
    vm: &'a str,
    cwd: &'a Path,
    title: Option<&'a str>,
    /// ISO 8601.
    created_at: String,
    updated_at: String,
    /// `live`, `open` (its client or process ended) or `closed`.
    state: &'a str,
    /// The process in which it is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<SessionUsage>,
}
