//! What a server says of itself.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `_acpbox/server/info`: which server this is. Starts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerInfoRequest {}

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
}
