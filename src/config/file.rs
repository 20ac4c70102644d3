//! The configuration file as it is written, and what is said when it is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::hooks::Hooks;
use super::limits::Limits;
use super::permissions;
use super::restore::Restore;
use super::retention::Retention;
use super::server::ServerSettings;
use super::{ConfigError, units};

/// `config.toml`. Every key is optional.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) defaults: Defaults,
    /// Agents by name: built-in ones to change, or your own.
    pub(super) agents: BTreeMap<String, Agent>,
    /// VMs by name. `default` is what every VM gets.
    pub(super) vms: BTreeMap<String, Vm>,
    pub(super) limits: Limits,
    pub(super) retention: Retention,
    pub(super) restore: Restore,
    pub(super) server: ServerSettings,
    pub(super) hooks: Hooks,
    /// What is answered when an agent asks whether it may.
    pub(super) permissions: permissions::Table,
}

/// What is used when neither a flag nor the client says otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Defaults {
    /// An agent's name.
    pub(super) agent: Option<String>,
    /// A VM's name; without it every workspace has a VM of its own.
    pub(super) vm: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Agent {
    /// A program on PATH, or its absolute path.
    pub(super) command: Option<String>,
    pub(super) args: Option<Vec<String>>,
    /// Variables with plain values; added to those of the built-in agent.
    pub(super) env: Option<BTreeMap<String, String>>,
    /// Names of variables that are copied from the host; instead of those of the built-in agent.
    pub(super) pass_env: Option<Vec<String>>,
    /// How instructions reach the agent: `first-prompt`, `none`, `env:NAME`,
    /// `env-file:NAME`, `argument:FLAG`, `argument-file:FLAG`, `meta:/POINTER` or `file:PATH`.
    pub(super) instructions: Option<String>,
    /// Folders that the program needs and that acpbox does not find by itself.
    pub(super) mounts: Option<Vec<MountEntry>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Vm {
    /// What provides the VM: `namespace`, or `host` for none at all.
    pub(super) driver: Option<String>,
    /// `host` for the host's own system, read-only, or a root file system folder.
    pub(super) root: Option<String>,
    pub(super) network: Option<Network>,
    /// Further folders and files of the host.
    pub(super) mounts: Option<Vec<MountEntry>>,
    /// Such as `8GiB`.
    #[serde(deserialize_with = "units::optional_size")]
    #[schemars(with = "Option<String>")]
    pub(super) memory: Option<u64>,
    /// Processes and threads.
    pub(super) processes: Option<u64>,
    /// Open files, per process.
    pub(super) open_files: Option<u64>,
    /// How long nothing may go on in the VM, with no client attached to any of its
    /// sessions, before it sleeps: `15m`, or `never`.
    #[schemars(with = "Option<String>")]
    pub(super) sleep_after: Option<units::Patience>,
    /// How long an agent may be idle before it is ended until it is needed again,
    /// though a client is attached: `1h`, or `never`.
    #[schemars(with = "Option<String>")]
    pub(super) agent_sleep_after: Option<units::Patience>,
    /// The folders that sessions of this VM may work in.
    pub(super) workspaces: Option<Vec<String>>,
    /// Names in workspaces that are read-only; instead of the default list.
    pub(super) protected: Option<Vec<String>>,
    /// Names that are taken off that list.
    pub(super) writable: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Network {
    /// The host's network.
    Full,
    /// None but the guest's own loopback.
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MountEntry {
    /// On the host; `~` is your home folder.
    pub(super) path: String,
    /// In the guest; `~` is the guest's home. Without it: where `path` is, and
    /// for `~/x` at the same place in the guest's home.
    pub(super) guest: Option<String>,
    #[serde(default)]
    pub(super) mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Ro,
    Rw,
}

/// Reads the text of a configuration file.
pub(super) fn parse(text: &str, file: &Path) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        ConfigError::Syntax {
            file: file.to_path_buf(),
            line: text[..start].matches('\n').count() + 1,
            problem: explain(error.message(), text, start),
        }
    })
}

/// Puts the key into serde's sentence, and the nearest key where one is unknown.
fn explain(message: &str, text: &str, start: usize) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let table = table_at(text, start).filter(|table| {
            // The unknown key may be the table itself, which is in none.
            table.split('.').next() != Some(unknown) || !is_header(text, start)
        });
        let place = match table {
            Some(table) => format!(" in [{table}]"),
            None => String::new(),
        };
        let hint = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        return format!("unknown key `{unknown}`{place}; {hint}");
    }
    // serde speaks of its own data model where a person speaks of TOML.
    let message = message
        .replace("a sequence", "a list")
        .replace("a map", "a table")
        .replace("expected usize", "expected a whole number")
        .replace("expected u64", "expected a whole number");
    match key_at(text, start) {
        Some(key) => format!("`{key}`: {message}"),
        None => message,
    }
}

/// The candidate that was most likely meant, if any is near enough.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Whether an offset is in a `[table]` header.
fn is_header(text: &str, offset: usize) -> bool {
    let line = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    text[line..].trim_start().starts_with('[')
}

/// The last `[table]` header at or before an offset.
fn table_at(text: &str, offset: usize) -> Option<&str> {
    let line_end = text[offset..]
        .find('\n')
        .map_or(text.len(), |end| offset + end);
    (text[..line_end].lines().rev())
        .filter_map(|line| line.trim().strip_prefix('[')?.split_once(']'))
        .map(|(table, _)| table.trim_start_matches('['))
        .next()
}

/// The key that is being given a value at an offset.
fn key_at(text: &str, offset: usize) -> Option<&str> {
    let before = &text[..offset];
    // The value may follow its key on the same line, or be inside a longer array.
    let key = before.lines().rev().find_map(|line| {
        let (key, _) = line.rsplit_once('=')?;
        Some(
            key.trim()
                .rsplit([' ', '{', ','])
                .next()
                .unwrap_or(key)
                .trim(),
        )
    })?;
    (!key.is_empty()).then_some(key)
}
