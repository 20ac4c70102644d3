//! TCP, also for HTTP: for clients that cannot reach a unix socket. Any user of the machine can
//! connect, so every client must know the token.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

use super::{Accepted, ListenError, Tls, Token};

pub struct TcpSocket {
    listener: TcpListener,
    address: SocketAddr,
    /// What `address` was called, without the port.
    name: String,
    token: Token,
    tls: Option<Tls>,
}

impl TcpSocket {
    /// Listens at `HOST:PORT`. Without a configured `token`, the one in `own_token`
    /// is used, a file that is made if need be; that will do on loopback only.
    pub async fn bind(
        address: &str,
        token: Option<&Token>,
        own_token: &Path,
    ) -> Result<TcpSocket, ListenError> {
        let failed = |source| ListenError::Bind {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let socket = TcpSocket::of(listener, bound, token, own_token)?;
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        Ok(TcpSocket {
            name: name.to_owned(),
            ..socket
        })
    }

    /// One that is bound already.
    pub fn of(
        listener: TcpListener,
        address: SocketAddr,
        token: Option<&Token>,
        own_token: &Path,
    ) -> Result<TcpSocket, ListenError> {
        let token = match token {
            Some(token) => token.clone(),
            None if address.ip().is_loopback() => Token::read_or_make(own_token)?,
            None => return Err(ListenError::NoToken(address)),
        };
        Ok(TcpSocket {
            listener,
            address,
            name: address.ip().to_string(),
            token,
            tls: None,
        })
    }

    /// The same, which with `tls` speaks nothing else.
    pub fn encrypted(self, tls: Option<Tls>) -> TcpSocket {
        TcpSocket { tls, ..self }
    }

    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// What URLs of this socket begin with, if HTTP is spoken at it.
    pub fn http_scheme(&self) -> &'static str {
        if self.is_encrypted() { "https" } else { "http" }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn token(&self) -> &Token {
        &self.token
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let (input, output) = stream.into_split();
        Ok(Accepted {
            input: Box::new(input),
            output: Box::new(output),
            token: Some(self.token.clone()),
            tls: self.tls.clone(),
            source: Some(peer.ip()),
            peer: match self.tls {
                Some(_) => format!("tls:{peer}"),
                None => format!("tcp:{peer}"),
            },
        })
    }
}
