//! Whether a client is served by a server that runs, or apart from it.

use super::book::Defaults;
use super::link::{Link, NoLink};
use super::place::Place;
use super::relay::Shim;
use super::spawn::Spawn;
use crate::cli::args::ServerArguments;
use crate::cli::context::Context;
use crate::cli::output;

/// What the command line says of servers.
pub(in crate::cli) struct Choice<'a> {
    pub(in crate::cli) server: &'a ServerArguments,
    /// As they were given: a server's own defaults are below them.
    pub(in crate::cli) agent: Option<&'a str>,
    pub(in crate::cli) vm: Option<&'a str>,
}

/// The way to the server, if there is one to be used. Says on stderr why one that
/// runs is not used. Call within a tokio runtime.
pub(in crate::cli) async fn find(context: &Context, choice: Choice<'_>) -> Option<(Shim, Link)> {
    if choice.server.no_server {
        return None;
    }
    let place = Place::of(&context.config.paths);
    let spawn = (choice.server.spawn_server).then(|| Spawn::new(&context.config));
    let link = match (Link::open(&place.socket, None).await, &spawn) {
        (Err(NoLink::Nobody), Some(spawn)) => spawn.server(&place.socket).await,
        (found, _) => found,
    };
    let link = match link {
        Ok(link) => link,
        Err(NoLink::Nobody) => return None,
        Err(NoLink::Unusable(why)) => {
            stays_apart(&why);
            return None;
        }
    };
    let objection =
        (place.objection(&link.info)).or_else(|| place.objection_to_version(&link.info));
    if let Some(why) = objection {
        stays_apart(&why);
        return None;
    }
    tracing::info!(pid = link.info.pid, socket = %place.socket.display(), "using the server");
    let defaults = Defaults {
        agent: choice.agent.map(str::to_owned),
        vm: choice.vm.map(str::to_owned),
    };
    Some((Shim::new(place, spawn, &context.config, defaults), link))
}

fn stays_apart(why: &str) {
    output::say(&format!(
        "{why}. This acpbox stays apart from it (with --no-server it does so without a word)"
    ));
}
