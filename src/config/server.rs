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
    /// Addresses such as `unix:PATH`, `tcp:127.0.0.1:4711` and `http:127.0.0.1:4712`;
    /// the socket in the runtime folder if absent.
    pub listen: Vec<String>,
    /// A file with the token that clients of TCP and HTTP must send; no other user may read it.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate that clients of TCP and HTTP are shown, and those
    /// that vouch for it. With it nothing but TLS is spoken there.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's key, which not every user may read.
    pub tls_key: Option<PathBuf>,
    /// Clients that may be connected at once.
    pub connections: usize,
    /// How long a client may take for a TLS handshake, and then to send `initialize`.
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
    /// Names by which clients of HTTP may call this machine, beside `localhost`
    /// and the address that is listened at.
    pub hosts: Vec<String>,
    /// Web pages, such as `https://example.org`, that may talk to acpbox, beside its own.
    pub origins: Vec<String>,
    /// How often a quiet WebSocket or event stream is sent a sign of life.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub keepalive: Duration,
    /// How long a client of HTTP is waited for that has no stream open, or that
    /// takes nothing of what it is sent.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// How long a server that `--spawn-server` started goes on with no client and
    /// nothing going on in its sessions: `15m`, or `never` to end.
    #[serde(deserialize_with = "units::patience")]
    #[schemars(with = "String")]
    pub spawned_idle_timeout: Option<Duration>,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            listen: Vec::new(),
            token_file: None,
            tls_certificate: None,
            tls_key: None,
            connections: 1024,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(30),
            hosts: Vec::new(),
            origins: Vec::new(),
            keepalive: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(300),
            spawned_idle_timeout: Some(Duration::from_secs(15 * 60)),
        }
    }
}
