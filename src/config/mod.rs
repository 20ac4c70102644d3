//! Files, flags and the environment become one [`Config`].
//!
//! [`Environment`] is the only reader of the process environment. A workspace
//! has no say here: a repository is not trusted to configure its own cage.

mod environment;
mod error;
mod file;
mod hooks;
mod limits;
mod paths;
mod permissions;
mod plan;
mod protected;
mod retention;
mod restore;
mod server;
mod units;
mod vm;
mod workspace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use environment::Environment;
pub use error::ConfigError;
pub use file::nearest;
pub use hooks::Hooks;
pub use limits::Limits;
pub use paths::Paths;
pub use permissions::{Decision, PathPattern, Permissions, Rule, TextPattern, ToolKind};
pub use plan::{GUEST_HOME, Guest, VmPlan};
pub use protected::DEFAULT_PROTECTED;
pub use restore::Restore;
pub use retention::Retention;
pub use server::ServerSettings;
pub use units::{parse_duration, parse_moment, parse_size};
pub use vm::VmSettings;

use crate::vm::Mount;

/// The agent that is used when nobody names one.
const DEFAULT_AGENT: &str = "claude";

/// Everything a person may set, with the built-in values filled in.
#[derive(Debug, Clone)]
pub struct Config {
    pub paths: Paths,
    /// The agent of a session whose client names none.
    pub default_agent: String,
    /// The VM of a session whose client names none; `None` gives every
    /// workspace a VM of its own.
    pub default_vm: Option<String>,
    /// `[agents.NAME]`, as written; the catalogue merges it with the built-in agents.
    pub agents: BTreeMap<String, AgentSettings>,
    pub limits: Limits,
    pub retention: Retention,
    pub restore: Restore,
    pub server: ServerSettings,
    pub hooks: Hooks,
    pub permissions: Arc<Permissions>,
    /// `[vms.default]`: what every VM gets.
    vm_defaults: VmSettings,
    /// The other `[vms.NAME]`, merged over the defaults.
    vms: BTreeMap<String, VmSettings>,
    /// The person's, for `~` and for drivers that run agents as the person.
    home: PathBuf,
    user: String,
}

/// What the command line says; each wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub db: Option<PathBuf>,
    pub agent: Option<String>,
    pub vm: Option<String>,
}

/// `[agents.NAME]`. `None` keeps what the built-in agent of that name has.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AgentSettings {
    pub command: Option<String>,
    pub args: Option<Vec<String>>,
    pub env: BTreeMap<String, String>,
    pub pass_env: Option<Vec<String>>,
    /// How instructions reach the agent, in the words of the agent room.
    pub instructions: Option<String>,
    /// Further folders that the agent's program needs.
    pub mounts: Vec<Mount>,
}

impl Config {
    /// Reads the configuration file and lays the flags over it.
    ///
    /// A missing file is fine unless a flag named it.
    pub fn load(environment: &Environment, overrides: &Overrides) -> Result<Config, ConfigError> {
        let paths = Paths::new(environment, overrides)?;
        let text = match std::fs::read_to_string(&paths.config_file) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && overrides.config.is_none() =>
            {
                String::new()
            }
            Err(source) => {
                let file = paths.config_file;
                return Err(ConfigError::Read { file, source });
            }
        };
        Config::parse(&text, paths, environment, overrides)
    }

    /// Builds the configuration from the text of a file; `paths` names it in errors.
    pub fn parse(
        text: &str,
        paths: Paths,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let file = file::parse(text, &paths.config_file)?;
        let home = environment.home()?.to_path_buf();
        let scope = vm::Scope {
            file: &paths.config_file,
            home: &home,
        };

        let mut vms = BTreeMap::new();
        let mut vm_defaults = VmSettings::default();
        if let Some(raw) = file.vms.get("default") {
            vm_defaults = VmSettings::merge(&vm_defaults, raw, "default", &scope)?;
            vm_defaults.refuse_workspaces(&scope)?;
        }
        for (name, raw) in file.vms.iter().filter(|(name, _)| *name != "default") {
            plan::check_name(name, &paths.config_file)?;
            vms.insert(
                name.clone(),
                VmSettings::merge(&vm_defaults, raw, name, &scope)?,
            );
        }
        let mut agents = BTreeMap::new();
        for (name, raw) in file.agents {
            agents.insert(name.clone(), agent_settings(&name, raw, &scope)?);
        }
        let server = server_settings(file.server, &scope)?;
        let of_server = paths::of_server(&server).collect();
        Ok(Config {
            default_agent: (overrides.agent.clone())
                .or(file.defaults.agent)
                .unwrap_or_else(|| DEFAULT_AGENT.to_owned()),
            default_vm: overrides.vm.clone().or(file.defaults.vm),
            limits: scope.limits(file.limits)?,
            retention: scope.retention(file.retention)?,
            restore: file.restore,
            server,
            hooks: file.hooks.resolved(&scope)?,
            permissions: Arc::new(scope.permissions(file.permissions)?),
            agents,
            vm_defaults,
            vms,
            user: environment.user().unwrap_or("user").to_owned(),
            home,
            paths: Paths {
                server: of_server,
                ..paths
            },
        })
    }

    /// The names of the VMs that the file declares, without `default`.
    pub fn vm_names(&self) -> impl Iterator<Item = &str> {
        self.vms.keys().map(String::as_str)
    }

    /// What a VM of this name gets: its own settings, or the defaults.
    pub fn vm_settings(&self, name: &str) -> &VmSettings {
        self.vms.get(name).unwrap_or(&self.vm_defaults)
    }

    /// The shortest time after which anything may sleep; `None` if nothing ever does.
    pub fn shortest_patience(&self) -> Option<std::time::Duration> {
        let all = self.vms.values().chain([&self.vm_defaults]);
        all.flat_map(|vm| [vm.sleep_after, vm.agent_sleep_after])
            .flatten()
            .min()
    }
}

/// Paths are below the home folder where they begin with `~`.
fn server_settings(
    settings: ServerSettings,
    scope: &vm::Scope<'_>,
) -> Result<ServerSettings, ConfigError> {
    let file = |given: &Option<PathBuf>, key: &str| match given {
        Some(file) => scope.absolute(&file.to_string_lossy(), key).map(Some),
        None => Ok(None),
    };
    let token_file = file(&settings.token_file, "server.token_file")?;
    let tls_certificate = file(&settings.tls_certificate, "server.tls_certificate")?;
    let tls_key = file(&settings.tls_key, "server.tls_key")?;
    scope.at_least("server.connections", settings.connections as u64, 1)?;
    scope.at_least("server.handshakes", settings.handshakes as u64, 1)?;
    settings.check(scope)?;
    Ok(ServerSettings {
        token_file,
        tls_certificate,
        tls_key,
        ..settings
    })
}

/// The JSON Schema of `config.toml`, for editors that check TOML.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}

fn agent_settings(
    name: &str,
    raw: file::Agent,
    scope: &vm::Scope<'_>,
) -> Result<AgentSettings, ConfigError> {
    let at = format!("agents.{name}");
    let mounts = (raw.mounts.unwrap_or_default().iter())
        .map(|mount| vm::mount(mount, &at, scope))
        .collect::<Result<_, _>>()?;
    let command = match raw.command {
        Some(command) => Some(vm::command(command, &at, scope)?),
        None => None,
    };
    let env = raw.env.unwrap_or_default();
    for name in raw.pass_env.iter().flatten() {
        let fix = "write the name alone, and a value of your own in `env`";
        check_variable_name(name, fix).map_err(|why| scope.wrong(format!("{at}.pass_env"), why))?;
    }
    for name in env.keys() {
        let fix = "write the name alone, and its value behind it";
        check_variable_name(name, fix).map_err(|why| scope.wrong(format!("{at}.env"), why))?;
    }
    Ok(AgentSettings {
        command,
        args: raw.args,
        env,
        pass_env: raw.pass_env,
        instructions: raw.instructions,
        mounts,
    })
}

/// # Errors
/// What is wrong with the name of a variable, and `fix`; without what may be a value.
pub fn check_variable_name(name: &str, fix: &str) -> Result<(), String> {
    match name.find(['=', '\0']) {
        Some(0) => Err(format!("has a name that begins with `=`; {fix}")),
        Some(end) => Err(format!("has `{}=…`, which is no name; {fix}", &name[..end])),
        None if name.is_empty() => Err(format!("has an empty name; {fix}")),
        None => Ok(()),
    }
}

impl std::fmt::Debug for AgentSettings {
    /// Leaves out the values of `env`: they may be secrets, and logs are read by others.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (formatter.debug_struct("AgentSettings"))
            .field("command", &self.command)
            .field("args", &self.args)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("pass_env", &self.pass_env)
            .field("instructions", &self.instructions)
            .field("mounts", &self.mounts)
            .finish()
    }
}

#[cfg(test)]
mod tests;
