//! The server that runs already, as a client of it: where it is, and the first
//! words to it.
//!
//! - `location`: an address. `wire`: a connection to it. `trust`: whose certificates count.

mod location;
mod trust;
mod wire;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::args::ServerAddress;
use super::client::{Client, Incoming};
use super::run::failure::failure_of;
use super::serve::OWN_TOKEN;
use crate::acp::methods;
use crate::config::Config;
use crate::server::listen::{Address, Token};
use location::Location;
use trust::Trust;
use wire::{Heard, NoWire, Wire};

/// How long a server may take to take a client in, and to answer it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server is, and what it must be told.
pub(super) struct Remote {
    location: Location,
    /// Of a server on the network.
    token: Option<Token>,
    /// That of servers that listen on this machine alone.
    own_token: Option<Token>,
    /// Whose certificates it may show, where it must.
    trust: Option<Arc<Trust>>,
    depth: usize,
}

/// Nobody serves there. The text says how to change that.
#[derive(Debug, thiserror::Error)]
#[error(
    "no acpbox serves at {location} ({source}); start one with `acpbox serve`, or name its address with --server"
)]
pub(super) struct NoServer {
    location: Location,
    source: io::Error,
}

impl Remote {
    /// The server that was named, else the one that the configuration names, else
    /// the one in the runtime folder.
    pub(super) fn find(config: &Config, given: &ServerAddress) -> anyhow::Result<Remote> {
        let named = match &given.server {
            Some(named) => Some(named.parse()?),
            None => configured(config)?,
        };
        let location = named.unwrap_or_else(|| Location::Unix(config.paths.socket()));
        let mut remote = Remote {
            token: None,
            own_token: None,
            trust: None,
            depth: config.limits.depth,
            location,
        };
        let Location::Network(network) = &remote.location else {
            return Ok(remote);
        };
        let file = given.token_file.as_deref();
        let own = config.paths.state_dir.join(OWN_TOKEN);
        match file.or(config.server.token_file.as_deref()) {
            Some(file) => remote.token = Some(Token::read(file)?),
            None if own.exists() => remote.own_token = Some(Token::read(&own)?),
            None => {}
        }
        if network.is_encrypted {
            let authority = given.certificate_authority.as_deref();
            let own = config.server.tls_certificate.as_deref();
            remote.trust = Some(Trust::new(authority, own)?);
        }
        Ok(remote)
    }

    /// Connects and introduces itself by this name. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`NoServer`]; a `Failure` where it lets nobody in; `Usage` where something else
    /// is spoken, or shown, than the address says.
    pub(super) async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let heard = Heard::default();
        let connecting = tokio::time::timeout(PATIENCE, self.open(&heard));
        let opened = connecting.await.unwrap_or_else(|_| {
            let silent = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
            Err(NoWire::Nobody(silent))
        });
        let (mut client, token) = match opened {
            Ok(opened) => opened,
            Err(NoWire::Wrong(usage)) => return Err(self.mismatch(&heard, usage.into())),
            Err(NoWire::Nobody(source)) => {
                let location = self.location.clone();
                return Err(self.mismatch(&heard, NoServer { location, source }.into()));
            }
        };
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false },
                "terminal": true,
                "elicitation": { "form": {}, "url": {} },
                "_meta": { "acpbox": { "agentNotifications": true } },
            },
            "clientInfo": { "name": name, "version": env!("CARGO_PKG_VERSION") },
            "_meta": { "acpbox": { "token": token } },
        });
        match ask(&mut client, methods::INITIALIZE, &params).await {
            Ok(_) => Ok(client),
            Err(error) => Err(self.mismatch(&heard, error)),
        }
    }

    /// What the other end said first explains more than what came of it.
    fn mismatch(&self, heard: &Heard, error: anyhow::Error) -> anyhow::Error {
        match &self.location {
            Location::Network(network) => heard.mismatch(network).map_or(error, Into::into),
            Location::Unix(_) => error,
        }
    }

    /// A connection, and the token for it.
    async fn open(&self, heard: &Heard) -> Result<(Client, Option<String>), NoWire> {
        let network = match &self.location {
            Location::Unix(path) => {
                let (input, output) = connect_unix(path).await?.into_split();
                return Ok((Client::over(input, output, self.depth), None));
            }
            Location::Network(network) => network,
        };
        let wire = Wire::open(network, self.trust.as_ref(), heard).await?;
        // Nobody on another machine is to learn it.
        let own = self.own_token.as_ref().filter(|_| wire.is_local);
        let token = self.token.as_ref().or(own);
        let token = token.map(|token| token.text().to_string());
        Ok((Client::over(wire.input, wire.output, self.depth), token))
    }
}

/// The address of the configuration that is easiest to reach.
fn configured(config: &Config) -> anyhow::Result<Option<Location>> {
    let has_certificate = config.server.tls_certificate.is_some();
    let mut found = None;
    for address in &config.server.listen {
        let address: Address = address.parse()?;
        match Location::of(address, has_certificate) {
            Some(unix @ Location::Unix(_)) => return Ok(Some(unix)),
            network => found = found.or(network),
        }
    }
    Ok(found)
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await?;
    // Whoever listens there is told what is typed here. The file's owner would not
    // do: it may be another file by the time of the connection.
    let owner = stream.peer_cred()?.uid();
    if owner != rustix::process::getuid().as_raw() && owner != 0 {
        return Err(io::Error::other("its socket is another user's"));
    }
    Ok(stream)
}

/// Sends a request and waits for its raw result. What comes meanwhile is dropped:
/// for clients that follow nothing yet.
///
/// # Errors
/// A `Failure` with what the server said; `Ended`.
pub(super) async fn ask(
    client: &mut Client,
    method: &str,
    params: &Value,
) -> anyhow::Result<String> {
    let request = client.request(method, &params.to_string()).await?;
    let answer = async {
        loop {
            for message in client.receive().await? {
                match message {
                    Incoming::Response { id, outcome } if id == request => return Ok(outcome),
                    _ => {}
                }
            }
        }
    };
    let answered: anyhow::Result<Result<String, String>> =
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answered) => answered,
            Err(_) => Err(anyhow::anyhow!(
                "the server did not answer `{method}` within {} s",
                PATIENCE.as_secs()
            )),
        };
    answered?.map_err(|error| failure_of(&error).into())
}
