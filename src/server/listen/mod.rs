//! Where clients may connect: addresses, and the sockets behind them.

mod tcp;
mod token;
mod unix;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};

pub use tcp::TcpSocket;
pub use token::Token;
pub use unix::UnixSocket;

/// The schemes, for errors.
const FORMS: &str = "`unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT`";

/// `unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// As it is written; the name is looked up when it is bound.
    Tcp(String),
    /// As [`Address::Tcp`], for HTTP and WebSocket.
    Http(String),
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
    /// For logs.
    pub peer: String,
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
            Listener::Tcp(socket) => write!(formatter, "tcp:{}", socket.address()),
            Listener::Http(socket) => write!(formatter, "http:{}", socket.address()),
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
            "tcp" | "http" => match rest.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(match scheme {
                        "tcp" => Address::Tcp(rest.to_owned()),
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
