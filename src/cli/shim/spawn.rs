//! Starting a server that outlives whoever wanted it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::link::{Link, NoLink};
use crate::config::Config;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(15);
const CHECK: Duration = Duration::from_millis(30);

/// How often one is started that ends at once.
const STARTS: usize = 3;

/// A log that is longer is put aside when the next server starts.
const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How a server is started.
pub(super) struct Spawn {
    arguments: Vec<String>,
    state_dir: PathBuf,
}

impl Spawn {
    pub(super) fn new(config: &Config) -> Spawn {
        let paths = &config.paths;
        let mut arguments = vec!["serve".to_owned(), "--detached".to_owned()];
        for (flag, path) in [("--config", &paths.config_file), ("--db", &paths.database)] {
            // What no argument can carry stays as the environment has it.
            if let Some(path) = path.to_str() {
                arguments.extend([flag.to_owned(), path.to_owned()]);
            }
        }
        let own = format!("unix:{}", paths.socket().display());
        if !config.server.listen.is_empty() {
            let others = config.server.listen.iter().filter(|given| **given != own);
            for address in others.chain([&own]) {
                arguments.extend(["--listen".to_owned(), address.clone()]);
            }
        }
        Spawn {
            arguments,
            state_dir: paths.state_dir.clone(),
        }
    }

    /// Starts a server and waits until it answers.
    pub(super) async fn server(&self, socket: &Path) -> Result<Link, NoLink> {
        let log = self.state_dir.join("server.log");
        let failed = |why: String| {
            NoLink::Unusable(format!(
                "a server could not be started: {why}; see {}",
                log.display()
            ))
        };
        let start = || self.start(&log).map_err(|error| failed(error.to_string()));
        let mut child = start()?;
        let mut starts = 1;
        let begun = Instant::now();
        loop {
            match Link::open(socket, None).await {
                Err(NoLink::Nobody | NoLink::Leaving(_)) => {}
                found => return found,
            }
            if let Ok(Some(status)) = child.try_wait() {
                // Somebody else's may have been first, or one that ends was in the way.
                match Link::open(socket, None).await {
                    Err(NoLink::Nobody | NoLink::Leaving(_)) if starts < STARTS => {
                        tokio::time::sleep(CHECK).await;
                        child = start()?;
                        starts += 1;
                    }
                    Err(NoLink::Nobody) => {
                        return Err(failed(format!("it ended at once ({status})")));
                    }
                    found => return found,
                }
            }
            if begun.elapsed() > PATIENCE {
                return Err(failed(format!(
                    "it does not listen after {} s",
                    PATIENCE.as_secs()
                )));
            }
            tokio::time::sleep(CHECK).await;
        }
    }

    /// Starts a server without waiting for it.
    pub(super) fn start(&self, log: &Path) -> io::Result<Child> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir)?;
        let output = open_log(log)?;
        // It makes a session of its own (`serve --detached`), and its parent's end is
        // nothing to it; while the parent lives, tokio takes note of its end.
        Command::new(crate::vm::own_executable())
            .args(&self.arguments)
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(false)
            .spawn()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.state_dir.join("server.log")
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}
