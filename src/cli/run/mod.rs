//! `acpbox run`: one prompt, for people and pipes.
//!
//! An ACP client of acpbox's own server, in one process with it or of one that runs
//! already. What is shown is read from the transcript, so that every format shows
//! what is stored.
//!
//! - `prompt`: what to ask. `consent`: what may be answered for the person.
//! - `conversation`: the loop. `failure`: what went wrong. `show`: the formats. `signals`: Ctrl-C.

mod prompt;
mod consent;
mod terminal;
mod signals;
mod show;
mod progress;
mod conversation;
pub(super) mod failure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{Global, RunArguments};
use super::client::Client;
use super::context::{self, Context};
use super::exit::{Code, Usage};
use super::shim::{self, Choice};
use super::{find, locks};
use crate::store::Store;
use consent::Consent;
use conversation::{Conversation, Subject};
use show::Show;
use signals::Signals;

/// How long sessions and VMs may take to end: in peace, and when told to stop at once.
const END_PATIENCE: Duration = Duration::from_secs(15);
const STOP_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn run(global: &Global, arguments: &RunArguments) -> anyhow::Result<Code> {
    let context = Context::new(global, arguments.agent.as_deref(), arguments.vm.as_deref())?;
    if arguments.session.is_none() {
        context.catalog.get(&context.config.default_agent)?;
    }
    let cwd = folder(arguments.cwd.clone())?;
    let prompt = prompt::read(&arguments.prompt, context.config.limits.line_bytes)?;
    let runtime = context::runtime()?;
    let code = runtime.block_on(async {
        let choice = Choice {
            server: &arguments.server,
            agent: arguments.agent.as_deref(),
            vm: arguments.vm.as_deref(),
        };
        if let Some((shim, link)) = shim::find(&context, choice).await {
            let store = context.store()?;
            let mut signals = Signals::new()?;
            let leases = context.config.paths.state_dir.join("leases");
            let subject = subject(&store, &leases, cwd, arguments, Some(link.pid())).await?;
            let client = Client::through(shim, link, context.config.limits.depth);
            let show = Show::new(arguments.format, global.verbose > 0);
            let consent = Consent::new(arguments.yes, arguments.deny);
            let conversation = Conversation::new(client, store, show, consent, &mut signals);
            return conversation.hold(subject, &prompt).await;
        }
        let server = context.server()?;
        let host = Arc::clone(&server.host);
        let mut signals = Signals::new()?;
        let outcome = async {
            let leases = host.registry.leases();
            let subject = subject(&host.store, leases, cwd, arguments, None).await?;
            let show = Show::new(arguments.format, global.verbose > 0);
            let consent = Consent::new(arguments.yes, arguments.deny);
            let (client, store) = (Client::connect(server), host.store.clone());
            Conversation::new(client, store, show, consent, &mut signals)
                .hold(subject, &prompt)
                .await
        }
        .await;
        let patience = if signals.are_urgent() {
            STOP_PATIENCE
        } else {
            END_PATIENCE
        };
        tokio::select! {
            ended = tokio::time::timeout(patience, host.shutdown()) => {
                if ended.is_err() {
                    tracing::warn!("sessions and VMs did not end in time; they end with acpbox");
                }
            }
            () = signals.stop_at_once() => {}
        }
        outcome
    });
    // A read of a terminal cannot be called off.
    runtime.shutdown_background();
    code
}

fn folder(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let folder = match asked {
        Some(folder) => std::path::absolute(&folder)?,
        None => std::env::current_dir()
            .map_err(|error| Usage(format!("the working folder is gone ({error}); use --cwd")))?,
    };
    match std::fs::metadata(&folder) {
        Ok(found) if found.is_dir() => Ok(folder),
        Ok(_) => Err(Usage(format!(
            "--cwd {} is a file; name a folder",
            folder.display()
        ))
        .into()),
        Err(error) => Err(Usage(format!("--cwd {}: {error}", folder.display())).into()),
    }
}

/// A folder with its links resolved, if it can be.
fn real(folder: &Path) -> PathBuf {
    folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf())
}

/// What to prompt: a new session, or a stored one that no other process than
/// `server` drives.
async fn subject(
    store: &Store,
    leases: &Path,
    cwd: PathBuf,
    arguments: &RunArguments,
    server: Option<u32>,
) -> anyhow::Result<Subject> {
    let Some(given) = &arguments.session else {
        return Ok(Subject::New(cwd));
    };
    let row = find::session(store, given).await?;
    let differs =
        |asked: &Option<String>, kept: &str| asked.as_deref().is_some_and(|asked| asked != kept);
    if differs(&arguments.agent, &row.agent) || differs(&arguments.vm, &row.vm) {
        let what = format!(
            "session {} belongs to agent `{}` in VM `{}`; leave out --agent and --vm",
            row.id, row.agent, row.vm
        );
        return Err(Usage(what).into());
    }
    let holders = locks::holders(&leases.join(&row.id));
    if let Some(holder) = (holders.iter()).find(|holder| Some(**holder) != server) {
        anyhow::bail!(
            "session {} is live in another acpbox process ({holder}); end that one first, \
             or read along with `acpbox sessions show {}`",
            row.id,
            row.id
        );
    }
    // Where the session's folder is gone, this one takes its place.
    let moved = match &arguments.cwd {
        Some(_) if !row.cwd.is_dir() => Some(cwd),
        Some(_) if real(&cwd) != real(&row.cwd) => {
            let what = format!(
                "session {} works in {}; leave out --cwd, or leave out --session to begin a new one in {}",
                row.id,
                row.cwd.display(),
                cwd.display()
            );
            return Err(Usage(what).into());
        }
        _ => None,
    };
    Ok(Subject::Stored(Box::new(row), moved))
}
