//! A running guest as the rest of acpbox sees it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::process::Control;
use super::shared::{Failure, Shared, Starting};
use crate::vm::guest::protocol::{Request, descriptors};
use crate::vm::{Exit, Io, Process, ProcessSpec, SpawnError, Vm};

/// Dropping it ends the guest.
pub(super) struct Handle {
    shared: Arc<Shared>,
    home: PathBuf,
    warnings: Vec<String>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, home: PathBuf, warnings: Vec<String>) -> Handle {
        Handle {
            shared,
            home,
            warnings,
        }
    }
}

impl Vm for Handle {
    fn spawn(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<Process, SpawnError>> {
        async move {
            let command = spec.command.clone();
            let path = spec.env.get("PATH").cloned().unwrap_or_default();
            spawn(&self.shared, spec)
                .await
                .map_err(|failure| match failure {
                    Failure::NotFound => SpawnError::NotFound { command, path },
                    Failure::Refused(detail) => SpawnError::Failed { command, detail },
                    Failure::Ended(reason) => SpawnError::Ended(reason),
                })
        }
        .boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.shared.ask_to_end();
            // An error means that the keeper is gone, and so is the guest.
            let _ = self.shared.watch_end().wait_for(Option::is_some).await;
        }
        .boxed()
    }

    fn ended(&self) -> watch::Receiver<Option<String>> {
        self.shared.watch_end()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn home(&self) -> PathBuf {
        self.home.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.ask_to_end();
    }
}

async fn spawn(shared: &Arc<Shared>, spec: ProcessSpec) -> Result<Process, Failure> {
    let _turn = shared.turns.acquire().await;
    let (answer, answered) = oneshot::channel();
    let exit = watch::Sender::new(None::<Exit>);
    let watcher = exit.subscribe();
    let io = spec.io;
    let id = shared.ask_to_start(
        |id| Request::Spawn {
            id,
            command: spec.command,
            args: spec.args,
            env: spec.env,
            cwd: spec.cwd,
            files: spec.files,
            io,
        },
        Starting { io, answer, exit },
    )?;
    let begun = answered
        .await
        .unwrap_or_else(|_| Err(Failure::Ended("its keeper thread ended".to_owned())))?;
    if begun.pipes() < descriptors(io) {
        // The kernel drops those for which there is no room. The process is ended.
        let what = "its pipes did not arrive: acpbox has no file descriptor left; close sessions, or raise its limit of open files (ulimit -n, LimitNOFILE)";
        return Err(Failure::Refused(what.to_owned()));
    }
    let control = Arc::new(Control::new(shared.clone(), id, watcher.clone()));
    let mut pipes = begun.claim().into_iter();
    let mut next = || -> Result<OwnedFd, Failure> {
        pipes
            .next()
            .ok_or_else(|| Failure::Refused("the guest sent no pipes".to_owned()))
    };
    Ok(match io {
        Io::Pipes => Process {
            stdin: Some(next()?),
            stdout: next()?,
            stderr: Some(next()?),
            exit: watcher,
            control,
        },
        Io::Merged | Io::Terminal { .. } => Process {
            stdin: None,
            stdout: next()?,
            stderr: None,
            exit: watcher,
            control,
        },
    })
}
