//! Whether a client is served by a server that runs, or apart from it.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::book::Defaults;
use super::link::{Link, NoLink};
use super::place::{Place, is_older};
use super::relay::Shim;
use super::spawn::Spawn;
use crate::cli::args::ServerArguments;
use crate::cli::context::Context;
use crate::cli::output;

/// How long a server that lets nobody in may take to be gone.
const LEAVING: Duration = Duration::from_secs(10);

/// How long to try to be alone with a server that is of no use as it is.
const MEETING: Duration = Duration::from_secs(2);
const CHECK: Duration = Duration::from_millis(30);

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
    let link = match open(&place, spawn.as_ref()).await {
        Ok(link) => link,
        Err(NoLink::Nobody) => return None,
        Err(why) => {
            stays_apart(&why.to_string());
            return None;
        }
    };
    let objection =
        (place.objection(&link.info)).or_else(|| place.objection_to_version(&link.info));
    if let Some(why) = objection {
        stays_apart(&why);
        return None;
    }
    if let Some(note) = place.note_on_version(&link.info) {
        output::say(&note);
    }
    tracing::info!(pid = link.info.pid, socket = %place.socket.display(), "using the server");
    let defaults = Defaults {
        agent: choice.agent.map(str::to_owned),
        vm: choice.vm.map(str::to_owned),
    };
    Some((Shim::new(place, spawn, &context.config, defaults), link))
}

/// Connects to the server that runs, or is started now. An older one that was
/// started so, and that nobody else uses, makes way for one of this version.
async fn open(place: &Place, spawn: Option<&Spawn>) -> Result<Link, NoLink> {
    let begun = Instant::now();
    let mut asked = None;
    loop {
        let found = match (Link::open(&place.socket, None).await, spawn) {
            (Err(NoLink::Nobody), Some(spawn)) => spawn.server(&place.socket).await,
            (found, _) => found,
        };
        match found {
            Ok(mut link) => {
                let is_new = asked.as_ref() != Some(&link.info.instance);
                let makes_way = spawn.is_some()
                    && link.info.spawned
                    && is_older(&link.info)
                    && place.objection(&link.info).is_none();
                if !(is_new && makes_way) {
                    return Ok(link);
                }
                asked = Some(link.info.instance.clone());
                let Err(why) = link.retire().await else {
                    continue;
                };
                tracing::info!("the older server stays: {why}");
                let is_useless = place.objection_to_version(&link.info).is_some();
                if !is_useless || begun.elapsed() > MEETING {
                    return Ok(link);
                }
                // Another client may just ask the same. One of them will be alone.
                link.close().await;
                asked = None;
                let random = Uuid::new_v4().as_bytes()[0];
                tokio::time::sleep(CHECK + Duration::from_millis(random.into())).await;
            }
            // Its socket is gone in a moment.
            Err(NoLink::Leaving(_)) if begun.elapsed() < LEAVING => {
                tokio::time::sleep(CHECK).await;
            }
            Err(why) => return Err(why),
        }
    }
}

fn stays_apart(why: &str) {
    output::say(&format!(
        "{why}. This acpbox stays apart from it (with --no-server it does so without a word)"
    ));
}
