//! What a server says of itself.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `_acpbox/server/info`: which server this is. Starts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerInfoRequest {}

/// What `acpbox stdio` and `acpbox run` must have in common with a server that they
/// use. To be raised with whatever an earlier one of either would not understand.
pub const SHIM_PROTOCOL: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// acpbox's version.
    pub version: String,
    pub pid: u32,
    /// Made anew by every process: another one means that the server was restarted.
    pub instance: String,
    /// The database of transcripts.
    pub database: PathBuf,
    /// The configuration file, which may not exist.
    pub config: PathBuf,
    /// Only an `acpbox stdio` or `acpbox run` with the same number can use it,
    /// whatever the versions.
    #[serde(default)]
    pub protocol: u32,
    /// Whether `--spawn-server` started it: it ends once nobody uses it.
    #[serde(default)]
    pub spawned: bool,
}

/// `_acpbox/server/retire`: ends a server that `--spawn-server` started, if nobody
/// but the client that asks is connected and nothing goes on there.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerRetireRequest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerRetirement {
    /// Whether it ends now.
    pub retired: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
