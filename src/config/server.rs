//! `[server]`: where `acpbox serve` listens, and what it lets in.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::vm::Scope;
use super::{ConfigError, units};

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
    /// Connections of TCP and HTTP beside these that have not shown the token yet. One
    /// more lets the oldest go, of the address with the most.
    pub handshakes: usize,
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
            handshakes: 256,
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

impl ServerSettings {
    /// Refuses what nothing could ever be equal to, as a list that silently lacks
    /// something is found out late.
    pub(super) fn check(&self, scope: &Scope<'_>) -> Result<(), ConfigError> {
        let wrong = |key: &str, given: &str, problem: String| {
            scope.wrong(key.to_owned(), format!("has {given:?}, {problem}"))
        };
        for origin in &self.origins {
            check_origin(origin).map_err(|why| wrong("server.origins", origin, why))?;
        }
        for host in &self.hosts {
            check_host(host).map_err(|why| wrong("server.hosts", host, why))?;
        }
        Ok(())
    }
}

/// An origin as browsers send it (RFC 6454, 6.2), but for case and one slash at its end.
fn check_origin(origin: &str) -> Result<(), String> {
    let same = "which is no origin that a browser sends";
    let Some((scheme, rest)) = origin.split_once("://") else {
        return Err(match origin {
            "null" => {
                "which any page can make its browser send; list pages by their address".into()
            }
            "*" => "but every page would be too many; list them one by one".into(),
            _ => format!("{same}; write \"https://{origin}\", or http:// if it is that"),
        });
    };
    let is_scheme = |text: &str| {
        let mut letters = text.chars();
        letters.next().is_some_and(|it| it.is_ascii_alphabetic())
            && letters.all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it))
    };
    if !is_scheme(scheme) {
        return Err(format!("{same}: its scheme is none"));
    }
    let place = rest.strip_suffix('/').unwrap_or(rest);
    if let Some((place, _)) = place.split_once(['/', '?', '#']) {
        return Err(format!(
            "{same}, as it goes on behind the host; write \"{scheme}://{place}\""
        ));
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    match port {
        Some(port) if port.parse::<u16>().is_err() => {
            return Err(format!("{same}: its port is no number"));
        }
        Some(port) if Some(port) == usual => {
            return Err(format!(
                "{same}, as they leave the usual port out; write \"{scheme}://{host}\""
            ));
        }
        _ => {}
    }
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match bracketed {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => Ok(()),
        Some(_) => Err(format!("{same}: what is in brackets is no address")),
        None => check_name(host).map_err(|why| format!("{same}: {why}")),
    }
}

/// A `Host` without its port.
fn check_host(host: &str) -> Result<(), String> {
    let same = "which is no host as clients name it";
    if let Some((_, rest)) = host.split_once("://") {
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return Err(format!("{same}; write {place:?} alone"));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let bracketed = host.strip_prefix('[').and_then(|it| it.split_once(']'));
    if let Some((address, _)) = bracketed {
        return Err(format!(
            "{same}; write {address:?} without brackets and port"
        ));
    }
    if let Some((name, _)) = host.split_once(':') {
        return Err(format!("{same}, as the port is left out; write {name:?}"));
    }
    if let Some(name) = host.strip_suffix('.') {
        return Err(format!("{same}; write {name:?} without the last dot"));
    }
    check_name(host).map_err(|why| format!("{same}: {why}"))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("its host is empty".into());
    }
    if name.contains('*') {
        return Err("`*` stands for nothing here; list the names one by one".into());
    }
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
    match name.chars().find(|it| !is_plain(*it)) {
        Some(odd) if !odd.is_ascii() => Err(format!(
            "{odd:?} is not sent; write the name as it is looked up, which begins with xn--"
        )),
        Some(odd) => Err(format!("no host has {odd:?}")),
        None => Ok(()),
    }
}
