//! What `[permissions]` says, read again where its file has changed: a question
//! is answered as the file says when it comes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::catalog::Catalog;
use crate::config::{Config, Permissions, PermissionsFile};

/// The rules in force.
pub struct Rules {
    file: PermissionsFile,
    /// Agents that a rule may name.
    agents: Vec<String>,
    known: Mutex<Known>,
}

struct Known {
    settings: Arc<Permissions>,
    /// The file that they are of, or that was found wrong.
    stamp: Option<Stamp>,
    problem: Option<String>,
}

/// Another one is another file.
#[derive(PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: [(i64, i64); 2],
}

impl Rules {
    /// Begins with what the configuration has.
    pub fn new(config: &Config, catalog: &Catalog) -> Arc<Rules> {
        Arc::new(Rules {
            file: config.permissions_file(),
            agents: catalog.list().map(|agent| agent.name.clone()).collect(),
            known: Mutex::new(Known {
                settings: Arc::clone(&config.permissions),
                // It may have changed since it was read.
                stamp: None,
                problem: None,
            }),
        })
    }

    /// The rules for a question that comes now. A file that is wrong or gone
    /// changes nothing, and that is logged once. Reads on this thread, and only
    /// what has changed: a look at the file where it has not.
    pub fn current(&self) -> Arc<Permissions> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(self.file.path());
        if stamp == known.stamp {
            return Arc::clone(&known.settings);
        }
        let is_first = known.stamp.is_none();
        match self.read() {
            Ok(settings) => {
                known.settings = Arc::new(settings);
                known.problem = None;
                if !is_first {
                    tracing::info!("[permissions] was read again: its file has changed");
                }
            }
            Err(why) => {
                let problem = format!("the rules of before stay in force ([permissions]): {why}");
                tracing::error!("{problem}");
                known.problem = Some(problem);
            }
        }
        known.stamp = stamp;
        Arc::clone(&known.settings)
    }

    /// What is wrong with the file now, if the rules in force are others.
    pub fn problem(&self) -> Option<String> {
        self.current();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.problem.clone()
    }

    fn read(&self) -> Result<Permissions, String> {
        let read = self.file.read().map_err(anyhow::Error::from);
        let settings = read.map_err(|error| format!("{error:#}"))?;
        for (number, rule) in (1..).zip(&settings.rules) {
            if let Some(agent) = &rule.agent
                && !self.agents.contains(agent)
            {
                // A rule that denies would be none without a word.
                return Err(format!(
                    "permissions.rules, rule {number}, agent: there is no agent `{agent}`; one \
                     that is new in the file is known once acpbox is started anew"
                ));
            }
        }
        Ok(settings)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp {
            place: (file.dev(), file.ino()),
            size: file.size(),
            changed: [
                (file.mtime(), file.mtime_nsec()),
                (file.ctime(), file.ctime_nsec()),
            ],
        })
    }
}
