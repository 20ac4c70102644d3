//! `[server]`: where `acpbox serve` listens, and what it lets in.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// What `acpbox serve` does. Its flags are above this.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Addresses such as `unix:PATH` and `tcp:127.0.0.1:4711`; the socket in the
    /// runtime folder if absent.
    pub listen: Vec<String>,
    /// A file with the token that clients of TCP must send; no other user may read it.
    pub token_file: Option<PathBuf>,
    /// Clients that may be connected at once.
    pub connections: usize,
    /// How long a client may take to send `initialize`.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// How long running turns may go on once acpbox was told to stop.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
    /// How long `acpbox stdio` and `acpbox run` wait for a server that they used to come back.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub reconnect_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            listen: Vec::new(),
            token_file: None,
            connections: 1024,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(30),
        }
    }
}
