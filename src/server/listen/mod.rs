//! Where clients may connect: addresses, and the sockets behind them.

mod folder;
mod renewal;
mod tcp;
mod tls;
mod token;
mod unix;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use renewal::Renewal;
pub use tcp::TcpSocket;
pub use tls::Tls;
pub use token::Token;
pub use unix::UnixSocket;

/// The schemes, for errors.
const FORMS: &str =
    "`unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT` (with TLS `tls:` or `https:`)";

/// `unix:PATH`, `tcp:HOST:PORT`, `tls:HOST:PORT`, `http:HOST:PORT` or `https:HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// As it is written; the name is looked up when it is bound.
    Tcp(String),
    /// As [`Address::Tcp`], for HTTP and WebSocket.
    Http(String),
    /// As [`Address::Tcp`], never without TLS.
    Tls(String),
    /// As [`Address::Http`], never without TLS.
    Https(String),
}

/// Why acpbox does not listen. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("`{given}` is no address to listen at: {why}; write {FORMS}")]
    Address { given: String, why: &'static str },
    #[error("{path}: {why}", path = .path.display())]
    Socket { path: PathBuf, why: String },
    #[error("{path}: another acpbox serves here already", path = .0.display())]
    Taken(PathBuf),
    #[error("{address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error(
        "{0} is reached from other machines: name a token for its clients, with --token-file or server.token_file"
    )]
    NoToken(SocketAddr),
    #[error("the token in {path}: {why}", path = .path.display())]
    Token { path: PathBuf, why: String },
    #[error("{setting}, {path}: {why}", path = .path.display())]
    Tls {
        setting: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error(
        "{given} is given without {missing}: TLS needs both, a certificate and its key; name both, or neither"
    )]
    HalfTls {
        given: &'static str,
        missing: &'static str,
    },
    #[error(
        "{0} needs a certificate and its key: name them with --tls-certificate and --tls-key, or server.tls_certificate and server.tls_key"
    )]
    NoTls(Address),
}

/// A socket that is listened at.
pub enum Listener {
    Unix(UnixSocket),
    Tcp(TcpSocket),
    /// What is accepted here speaks HTTP.
    Http(TcpSocket),
}

/// One that was let in, or turned away with a reason.
pub struct Accepted {
    pub input: Box<dyn AsyncRead + Send + Unpin>,
    pub output: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it must send in `initialize`, if anything.
    pub token: Option<Token>,
    /// What it is yet to shake hands by; `input` and `output` are raw until then.
    pub tls: Option<Tls>,
    /// Where it is, unless it is known by its user.
    pub source: Option<IpAddr>,
    /// For logs.
    pub peer: String,
}

/// Why a client is not to be served.
#[derive(Debug, thiserror::Error)]
pub enum Unsecured {
    /// It went without a word, as what only looks whether somebody listens.
    #[error("it said nothing")]
    Silent,
    #[error("{0}")]
    Failed(String),
}

impl Accepted {
    /// Itself, after a TLS handshake that may take so long, where TLS is spoken.
    pub async fn secured(self, patience: Duration) -> Result<Accepted, Unsecured> {
        match self.tls.clone() {
            Some(tls) => Box::pin(tls::shake_hands(&tls, self, patience)).await,
            None => Ok(self),
        }
    }
}

impl Listener {
    /// Waits for the next client. Errors are of one client, or pass: go on.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Unix(socket) => socket.accept().await,
            Listener::Tcp(socket) | Listener::Http(socket) => socket.accept().await,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Unix(socket) => socket.fmt(formatter),
            Listener::Tcp(socket) => {
                let scheme = if socket.is_encrypted() { "tls" } else { "tcp" };
                write!(formatter, "{scheme}:{}", socket.address())
            }
            Listener::Http(socket) => {
                write!(formatter, "{}:{}", socket.http_scheme(), socket.address())
            }
        }
    }
}

impl FromStr for Address {
    type Err = ListenError;

    fn from_str(given: &str) -> Result<Address, ListenError> {
        let wrong = |why| ListenError::Address {
            given: given.to_owned(),
            why,
        };
        let (scheme, rest) = given
            .split_once(':')
            .ok_or_else(|| wrong("it has no scheme"))?;
        match scheme {
            "unix" if rest.is_empty() => Err(wrong("its path is empty")),
            "unix" => Ok(Address::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "tls" | "https" => match rest.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(match scheme {
                        "tcp" => Address::Tcp(rest.to_owned()),
                        "tls" => Address::Tls(rest.to_owned()),
                        "https" => Address::Https(rest.to_owned()),
                        _ => Address::Http(rest.to_owned()),
                    })
                }
                Some(("", _)) => Err(wrong("its host is empty")),
                _ => Err(wrong("its port is no number from 0 to 65535")),
            },
            _ => Err(wrong("its scheme is unknown")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Address::Tcp(address) => write!(formatter, "tcp:{address}"),
            Address::Http(address) => write!(formatter, "http:{address}"),
            Address::Tls(address) => write!(formatter, "tls:{address}"),
            Address::Https(address) => write!(formatter, "https:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_named() {
        let unix = |path: &str| Address::Unix(path.into());
        assert_eq!(
            "unix:/run/a:b".parse::<Address>().unwrap(),
            unix("/run/a:b")
        );
        let tcp = "tcp:[::1]:0".parse::<Address>().unwrap();
        assert_eq!(tcp, Address::Tcp("[::1]:0".into()));
        assert_eq!(tcp.to_string(), "tcp:[::1]:0");
        let http = "http:localhost:80".parse::<Address>().unwrap();
        assert_eq!(http, Address::Http("localhost:80".into()));
        assert_eq!(http.to_string(), "http:localhost:80");
        for secure in ["tls:[::1]:0", "https:localhost:443"] {
            let address = secure.parse::<Address>().unwrap();
            assert_eq!(address.to_string(), secure);
        }
        for (given, why) in [
            ("", "no scheme"),
            ("/run/sock", "no scheme"),
            ("unix:", "path is empty"),
            ("tcp:localhost", "port is no number"),
            ("tcp:localhost:99999", "port is no number"),
            ("tcp::80", "host is empty"),
            ("http:localhost", "port is no number"),
            ("ftp:x:1", "scheme is unknown"),
        ] {
            let said = given.parse::<Address>().unwrap_err().to_string();
            assert!(
                said.contains(why) && said.contains(FORMS),
                "{given}: {said}"
            );
        }
    }
}
