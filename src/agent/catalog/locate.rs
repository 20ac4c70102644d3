//! Where an agent's program is, and what a guest must see of it to run it.
//!
//! Everything is shown read-only at the same absolute path as on the host, and
//! as little as will do: nothing else of the user's home.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::Environment;
use crate::vm::{Mount, Root};

use super::search::Search;
use super::{Agent, EXAMPLE};

/// `PATH` of a guest always ends so.
pub(super) const SYSTEM_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// A program, ready for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Absolute, in the guest.
    pub command: PathBuf,
    pub args: Vec<String>,
    /// `PATH` of the guest.
    pub path: String,
    /// Installation folders, and what the configuration adds.
    pub mounts: Vec<Mount>,
    /// Variables that name companion programs.
    pub env: BTreeMap<String, String>,
    pub found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// At this path of the host (of the root folder, when the VM has one).
    Installed(PathBuf),
    /// Nowhere: npx fetches it.
    Npx,
    /// Part of acpbox.
    Own,
}

#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error(
        "agent `{agent}`: `{command}` was not found on PATH ({path}); {mend}or give its path as \
         `command` under [agents.{agent}] in {}", file.display()
    )]
    NotFound {
        agent: String,
        command: String,
        path: String,
        mend: String,
        file: PathBuf,
    },
    #[error("agent `{agent}`: {} needs `{interpreter}`, which was not found on PATH ({path}); install it", program.display())]
    Interpreter {
        agent: String,
        program: PathBuf,
        interpreter: String,
        path: String,
    },
    #[error(
        "agent `{agent}`: {} is a stand-in of {manager}, which works only with your home folder; \
         write the path that `{manager} which {command}` prints as `command` under \
         [agents.{agent}] in {}", program.display(), file.display()
    )]
    VersionManager {
        agent: String,
        program: PathBuf,
        manager: &'static str,
        command: String,
        file: PathBuf,
    },
    #[error(
        "agent `{agent}`: {} would show the VM all of {}; install it elsewhere, or name what it \
         needs as `mounts` under [agents.{agent}] in {}",
        program.display(), folder.display(), file.display()
    )]
    TooBroad {
        agent: String,
        program: PathBuf,
        folder: PathBuf,
        file: PathBuf,
    },
    #[error(
        "agent `{agent}`: {} is not in the VM's root folder {}; install it there",
        program.display(), root.display()
    )]
    NotInRoot {
        agent: String,
        program: PathBuf,
        root: PathBuf,
    },
}

pub(super) fn locate(
    agent: &Agent,
    environment: &Environment,
    root: &Root,
    executable: &Path,
) -> Result<Located, LocateError> {
    if agent.name == EXAMPLE && agent.command == "acpbox" {
        return Ok(Located {
            command: executable.to_path_buf(),
            args: agent.args.clone(),
            path: SYSTEM_PATH.join(":"),
            mounts: agent.mounts.clone(),
            env: BTreeMap::new(),
            found: Found::Own,
        });
    }
    if let Root::Folder(folder) = root
        && let Some(command) = in_root(folder, &agent.command)
    {
        return Ok(Located {
            found: Found::Installed(folder.join(command.strip_prefix("/").unwrap_or(&command))),
            command,
            args: agent.args.clone(),
            path: SYSTEM_PATH.join(":"),
            mounts: agent.mounts.clone(),
            env: BTreeMap::new(),
        });
    }
    let mut search = Search::new(agent, environment);
    let (command, args, found) = search.command()?;
    let mut env = BTreeMap::new();
    if !matches!(found, Found::Npx) {
        for companion in &agent.companions {
            // A missing companion is the agent's to report: it knows what it is for.
            let set = agent.env.get(&companion.variable).map(String::as_str);
            let name = set.unwrap_or(&companion.command).to_owned();
            if let Some(program) = search.find(OsStr::new(&name)) {
                let path = search.show(&program)?;
                if set.is_none() {
                    env.insert(
                        companion.variable.clone(),
                        path.to_string_lossy().into_owned(),
                    );
                }
            }
        }
    }
    if let Root::Folder(folder) = root {
        search.check_root(folder)?;
    }
    let path = search.guest_path();
    let mut mounts = search.into_mounts();
    mounts.extend(agent.mounts.iter().cloned());
    Ok(Located {
        command,
        args,
        path,
        mounts,
        env,
        found,
    })
}

/// What follows `npx`.
pub(super) fn npx_arguments(agent: &Agent) -> Vec<String> {
    let mut arguments = vec!["-y".to_owned()];
    match agent.npm.as_slice() {
        [only] => arguments.push(only.clone()),
        several => {
            for package in several {
                arguments.extend(["-p".to_owned(), package.clone()]);
            }
            arguments.push(agent.command.clone());
        }
    }
    arguments.extend(agent.args.iter().cloned());
    arguments
}

/// A program inside a root folder, as a guest path.
fn in_root(folder: &Path, command: &str) -> Option<PathBuf> {
    let candidates: Vec<PathBuf> = match command.starts_with('/') {
        true => vec![PathBuf::from(command)],
        false => SYSTEM_PATH
            .iter()
            .map(|bin| Path::new(bin).join(command))
            .collect(),
    };
    candidates.into_iter().find(|path| is_in_root(folder, path))
}

pub(super) fn is_in_root(folder: &Path, path: &Path) -> bool {
    // A link there may be absolute, and then means something else on the host.
    folder
        .join(path.strip_prefix("/").unwrap_or(path))
        .symlink_metadata()
        .is_ok()
}
