//! The server that runs already, as a client of it: where it is, and the first
//! words to it.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};

use super::args::ServerAddress;
use super::client::{Client, Incoming};
use super::run::failure::failure_of;
use super::serve::OWN_TOKEN;
use crate::acp::methods;
use crate::config::Config;
use crate::server::listen::{Address, Token};

/// How long a server may take to take a client in, and to answer it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server is, and what it must be told.
pub(super) struct Remote {
    address: Address,
    token: Option<Token>,
    depth: usize,
}

/// Nobody serves there. The text says how to change that.
#[derive(Debug, thiserror::Error)]
#[error(
    "no acpbox serves at {address} ({source}); start one with `acpbox serve`, or name its address with --server"
)]
pub(super) struct NoServer {
    address: Address,
    source: io::Error,
}

impl Remote {
    /// The server that was named, else the one that the configuration names, else
    /// the one in the runtime folder.
    pub(super) fn find(config: &Config, given: &ServerAddress) -> anyhow::Result<Remote> {
        let named = match &given.server {
            Some(named) => Some(named.parse()?),
            None => spoken(config)?,
        };
        let address = match named {
            Some(Address::Http(_) | Address::Https(_) | Address::Tls(_)) => {
                bail!(
                    "--server: name its unix: or tcp: address; http:, https: and tls: are for other clients"
                )
            }
            Some(address) => address,
            None => Address::Unix(config.paths.socket()),
        };
        let own = config.paths.state_dir.join(OWN_TOKEN);
        let file = given.token_file.as_deref();
        let file = file.or(config.server.token_file.as_deref());
        let token = match (&address, file) {
            (Address::Tcp(_), Some(file)) => Some(Token::read(file)?),
            (Address::Tcp(_), None) if own.exists() => Some(Token::read(&own)?),
            _ => None,
        };
        Ok(Remote {
            address,
            token,
            depth: config.limits.depth,
        })
    }

    /// Connects and introduces itself by this name. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`NoServer`]; a `Failure` where it lets nobody in.
    pub(super) async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let timeout = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        let connecting = tokio::time::timeout(PATIENCE, self.open());
        let opened = connecting.await.unwrap_or_else(|_| Err(timeout()));
        let mut client = opened.map_err(|source| NoServer {
            address: self.address.clone(),
            source,
        })?;
        let token = self.token.as_ref().map(|token| token.text().to_string());
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false },
                "terminal": true,
                "_meta": { "acpbox": { "agentNotifications": true } },
            },
            "clientInfo": { "name": name, "version": env!("CARGO_PKG_VERSION") },
            "_meta": { "acpbox": { "token": token } },
        });
        ask(&mut client, methods::INITIALIZE, &params).await?;
        Ok(client)
    }

    async fn open(&self) -> io::Result<Client> {
        match &self.address {
            Address::Unix(path) => {
                let (input, output) = connect_unix(path).await?.into_split();
                Ok(Client::over(input, output, self.depth))
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (input, output) = stream.into_split();
                Ok(Client::over(input, output, self.depth))
            }
            Address::Http(_) | Address::Https(_) | Address::Tls(_) => {
                Err(io::Error::from(io::ErrorKind::Unsupported))
            }
        }
    }
}

/// The first address of the configuration at which lines are spoken, as they are.
fn spoken(config: &Config) -> anyhow::Result<Option<Address>> {
    let is_encrypted = config.server.tls_certificate.is_some();
    for address in &config.server.listen {
        let address = address.parse()?;
        match address {
            Address::Unix(_) => return Ok(Some(address)),
            Address::Tcp(_) if !is_encrypted => return Ok(Some(address)),
            _ => {}
        }
    }
    Ok(None)
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
