//! Agents by name: the built-in ones, with the configuration laid over them.

mod builtin;
mod layout;
mod locate;
mod search;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{AgentSettings, Config, Environment, Guest, nearest};
use crate::vm::{Mount, Root};

use super::instructions::{Channel, ChannelError};

pub use locate::{Found, LocateError, Located};

/// The agent that is part of acpbox.
pub const EXAMPLE: &str = "example";

/// Every known agent.
#[derive(Debug, Clone)]
pub struct Catalog {
    agents: BTreeMap<String, Agent>,
    /// The configuration file, for messages.
    config_file: PathBuf,
}

/// An agent: what starts it, what it needs, and what is known of it.
#[derive(Debug, Clone)]
pub struct Agent {
    pub name: String,
    pub description: String,
    pub source: Source,
    /// A name on PATH or an absolute path of the host.
    pub command: String,
    pub args: Vec<String>,
    /// npm packages that hold the program, the one with the command first;
    /// empty where it does not ship by npm. Without versions.
    pub npm: Vec<String>,
    /// The command that installs it.
    pub install: Option<String>,
    /// Programs that it starts itself.
    pub companions: Vec<Companion>,
    /// Variables with plain values.
    pub env: BTreeMap<String, String>,
    /// Names of variables that are copied from the host.
    pub pass_env: Vec<String>,
    /// Arguments and variables that it gets only inside a VM that isolates: they
    /// turn off a sandbox of its own, which cannot work there.
    pub caged: Caged,
    pub channel: Channel,
    /// What it can do, as far as that was seen; `None` for agents nobody has tried.
    pub known: Option<KnownCapabilities>,
    /// Folders that the configuration adds for it.
    pub mounts: Vec<Mount>,
    /// The configuration file, for messages.
    config_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    BuiltIn,
    /// Built in, and changed by the configuration.
    Changed,
    Config,
}

/// See [`Agent::caged`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caged {
    /// In front of the agent's own, so that those win.
    pub args: Vec<String>,
    /// Below the agent's own.
    pub env: BTreeMap<String, String>,
}

/// A program that an agent starts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    pub command: String,
    /// The variable in which the agent takes its path.
    pub variable: String,
}

/// The capabilities that an agent's `initialize` was seen to announce. Another
/// version may differ: use them only until the agent has answered itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownCapabilities {
    /// The version that was seen.
    pub version: &'static str,
    pub load_session: bool,
    pub resume: bool,
    pub image: bool,
    pub audio: bool,
    pub embedded_context: bool,
    pub mcp_http: bool,
    pub mcp_sse: bool,
}

/// What `acpbox agents list` shows. Holds no value of any variable.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    pub name: String,
    pub description: String,
    pub source: Source,
    pub command: String,
    pub args: Vec<String>,
    /// Where its program is on the host; `None` when it is not installed.
    pub found_at: Option<PathBuf>,
    /// How it will be started when it is not installed.
    pub npx: Option<String>,
    /// Why it cannot be started, and how to mend that.
    pub problem: Option<String>,
    pub install: Option<String>,
    /// How instructions reach it, in words.
    pub instructions: String,
    /// Names of variables with plain values.
    pub env: Vec<String>,
    pub pass_env: Vec<PassedVariable>,
    pub capabilities: Option<KnownCapabilities>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedVariable {
    pub name: String,
    pub set: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(
        "there is no agent `{name}`; {}the known ones are {known}, and [agents.{name}] in {} adds one",
        near.as_ref().map(|near| format!("did you mean `{near}`? ")).unwrap_or_default(),
        file.display()
    )]
    Unknown {
        name: String,
        near: Option<String>,
        known: String,
        file: PathBuf,
    },
    #[error("{}: `agents.{name}.command` is missing; it names the program to start", file.display())]
    NoCommand { name: String, file: PathBuf },
    #[error("{}: `agents.{name}.instructions` {problem}", file.display())]
    Channel {
        name: String,
        file: PathBuf,
        problem: ChannelError,
    },
}

impl Catalog {
    /// The built-in agents and those of `[agents.*]`.
    pub fn new(config: &Config) -> Result<Catalog, CatalogError> {
        let file = &config.paths.config_file;
        let mut agents: BTreeMap<_, _> = (builtin::AGENTS.iter())
            .map(|agent| (agent.name.to_owned(), agent.to_agent(file)))
            .collect();
        for (name, settings) in &config.agents {
            let agent = match (agents.remove(name), &settings.command) {
                (Some(agent), _) => Agent {
                    source: Source::Changed,
                    ..agent
                },
                (None, Some(command)) => Agent::bare(name, command, file),
                (None, None) => {
                    return Err(CatalogError::NoCommand {
                        name: name.clone(),
                        file: file.clone(),
                    });
                }
            };
            agents.insert(name.clone(), agent.with(settings)?);
        }
        Ok(Catalog {
            agents,
            config_file: file.clone(),
        })
    }

    /// The agent of this name.
    pub fn get(&self, name: &str) -> Result<&Agent, CatalogError> {
        self.agents.get(name).ok_or_else(|| {
            let near = nearest(name, self.agents.keys().map(String::as_str)).map(str::to_owned);
            CatalogError::Unknown {
                name: name.to_owned(),
                near,
                known: self.agents.keys().cloned().collect::<Vec<_>>().join(", "),
                file: self.config_file.clone(),
            }
        })
    }

    /// Every agent, by name.
    pub fn list(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }
}

impl Agent {
    /// Finds the program on the host, and what a guest with this root must be
    /// shown so that it runs there. `executable` is acpbox's own path in the
    /// guest, for the agent `example`.
    pub fn locate(
        &self,
        environment: &Environment,
        root: &Root,
        executable: &Path,
    ) -> Result<Located, LocateError> {
        locate::locate(self, environment, root, executable)
    }

    /// The whole environment of the agent: nothing else is inherited.
    ///
    /// What the session adds (`_meta.acpbox.env`, instructions) comes on top.
    pub fn environment(
        &self,
        environment: &Environment,
        located: &Located,
        guest: &Guest,
    ) -> BTreeMap<String, String> {
        let shell = ["/bin/bash", "/usr/bin/bash"]
            .iter()
            .find(|shell| Path::new(shell).exists());
        let mut all: BTreeMap<String, String> = [
            ("HOME", guest.home.to_string_lossy().as_ref()),
            ("USER", &guest.user),
            ("LOGNAME", &guest.user),
            ("SHELL", shell.unwrap_or(&"/bin/sh")),
            ("LANG", environment.variable("LANG").unwrap_or("C.UTF-8")),
            // Nobody sees a terminal: colours and cursor movements would only be noise.
            ("TERM", "dumb"),
            ("TMPDIR", "/tmp"),
            ("PATH", &located.path),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(zone) = environment.variable("TZ") {
            all.insert("TZ".to_owned(), zone.to_owned());
        }
        all.extend(located.env.clone());
        for name in &self.pass_env {
            if let Some(value) = environment.variable(name) {
                all.insert(name.clone(), value.to_owned());
            }
        }
        all.extend(self.env.clone());
        all
    }

    /// The agent as it is started in a VM that isolates.
    #[must_use]
    pub fn caged(mut self) -> Agent {
        let Caged { mut args, mut env } = std::mem::take(&mut self.caged);
        args.append(&mut self.args);
        env.append(&mut self.env);
        self.args = args;
        self.env = env;
        self
    }

    /// What is to be said about it.
    pub fn info(&self, environment: &Environment, root: &Root, executable: &Path) -> AgentInfo {
        let located = self.locate(environment, root, executable);
        let found_at = match &located {
            Ok(Located {
                found: Found::Installed(path),
                ..
            }) => Some(path.clone()),
            Ok(Located {
                found: Found::Own,
                command,
                ..
            }) => Some(command.clone()),
            _ => None,
        };
        let npx = match &located {
            Ok(Located {
                found: Found::Npx, ..
            }) => Some(format!(
                "npx -y {}",
                locate::npx_arguments(self)[1..].join(" ")
            )),
            _ => None,
        };
        AgentInfo {
            name: self.name.clone(),
            description: self.description.clone(),
            source: self.source,
            command: self.command.clone(),
            args: self.args.clone(),
            found_at,
            npx,
            problem: located.err().map(|error| error.to_string()),
            install: self.install.clone(),
            instructions: self.channel.in_words(),
            env: self.env.keys().cloned().collect(),
            pass_env: (self.pass_env.iter())
                .map(|name| PassedVariable {
                    name: name.clone(),
                    set: environment.variable(name).is_some(),
                })
                .collect(),
            capabilities: self.known,
        }
    }

    /// An agent of which only the command is known.
    fn bare(name: &str, command: &str, config_file: &Path) -> Agent {
        Agent {
            name: name.to_owned(),
            description: "from the configuration".to_owned(),
            source: Source::Config,
            command: command.to_owned(),
            args: Vec::new(),
            npm: Vec::new(),
            install: None,
            companions: Vec::new(),
            env: BTreeMap::new(),
            pass_env: Vec::new(),
            caged: Caged::default(),
            channel: Channel::Unknown,
            known: None,
            mounts: Vec::new(),
            config_file: config_file.to_path_buf(),
        }
    }

    fn with(mut self, settings: &AgentSettings) -> Result<Agent, CatalogError> {
        if let Some(command) = &settings.command {
            self.command.clone_from(command);
        }
        if let Some(args) = &settings.args {
            self.args.clone_from(args);
        }
        if let Some(pass_env) = &settings.pass_env {
            self.pass_env.clone_from(pass_env);
        }
        if let Some(channel) = &settings.instructions {
            self.channel = channel.parse().map_err(|problem| CatalogError::Channel {
                name: self.name.clone(),
                file: self.config_file.clone(),
                problem,
            })?;
        }
        self.env.extend(settings.env.clone());
        self.mounts.extend(settings.mounts.iter().cloned());
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
