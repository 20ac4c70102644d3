//! A connection to a server on the network: TCP, TLS above it, a WebSocket above that.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};
use tokio_util::io::InspectReader;

use super::location::{Network, Speech};
use super::trust::Trust;
use crate::cli::exit::Usage;
use crate::rpc::BatchReader;
use crate::rpc::codec::{Decoder, Frame};

/// What may be on its way between a WebSocket and the client, each way.
const BRIDGE_BYTES: usize = 64 * 1024;

/// As much of what comes first as tells what the other end speaks.
const BEGINNING: usize = 16;

pub(super) type Input = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection over which messages go, one per line.
pub(super) struct Wire {
    pub(super) input: Input,
    pub(super) output: Output,
    /// Whether the other end is this machine.
    pub(super) is_local: bool,
}

/// What came first from the other end, below TLS and within it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    outer: Beginning,
    inner: Beginning,
}

type Beginning = Arc<Mutex<Vec<u8>>>;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoWire {
    /// Nobody is there, or is not there any more.
    Nobody(io::Error),
    /// Somebody is, with whom nothing is to be done.
    Wrong(Usage),
}

impl From<io::Error> for NoWire {
    fn from(error: io::Error) -> NoWire {
        NoWire::Nobody(error)
    }
}

impl Wire {
    /// Connects. Call within a tokio runtime.
    pub(super) async fn open(
        to: &Network,
        trust: Option<&Arc<Trust>>,
        heard: &Heard,
    ) -> Result<Wire, NoWire> {
        let stream = TcpStream::connect(&to.place).await?;
        stream.set_nodelay(true)?;
        let is_local = stream.peer_addr()?.ip().is_loopback();
        let stream = listening(stream, &heard.outer);
        let Some(trust) = trust else {
            return carried(to, stream, is_local).await;
        };
        let protocol = (to.speech == Speech::Http).then_some("http/1.1");
        let settings = trust.settings(protocol).map_err(io::Error::other)?;
        let name = ServerName::try_from(to.host().to_owned());
        let name = name.map_err(|error| NoWire::Wrong(Usage(format!("{to}: {error}"))))?;
        let connecting = TlsConnector::from(Arc::new(settings)).connect(name, stream);
        let stream = match connecting.await {
            Ok(stream) => listening(stream, &heard.inner),
            Err(error) => return Err(untrusted(to, error, heard)),
        };
        carried(to, stream, is_local).await
    }
}

impl Heard {
    /// If something else is spoken there than at this address, says so and what to write.
    pub(super) fn mismatch(&self, to: &Network) -> Option<Usage> {
        let outer = spoken(&self.outer);
        let inner = spoken(&self.inner);
        let is_tls = matches!(outer, Some(Spoken::Tls)) || inner.is_some();
        let speech = match inner.or(outer) {
            Some(Spoken::Http) => Speech::Http,
            Some(Spoken::Lines) => Speech::Lines,
            // What is within is not told.
            Some(Spoken::Tls) => to.speech,
            None => return None,
        };
        let there = to.speaking(speech, is_tls);
        if there == *to {
            return None;
        }
        let speech = match speech {
            Speech::Http => "HTTP",
            Speech::Lines => "ACP without HTTP",
        };
        let what = match (is_tls, to.is_encrypted) {
            (true, false) => "TLS".to_owned(),
            (false, true) => format!("{speech} without TLS"),
            _ => speech.to_owned(),
        };
        Some(Usage(format!(
            "{to}: {what} is spoken there; write {there}"
        )))
    }
}

enum Spoken {
    Http,
    Lines,
    Tls,
}

fn spoken(beginning: &Beginning) -> Option<Spoken> {
    let beginning = beginning.lock().unwrap_or_else(PoisonError::into_inner);
    match beginning.as_slice() {
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Spoken::Http),
        [b'{', ..] => Some(Spoken::Lines),
        [b'C', b'o', b'n', b't', b'e', b'n', b't', ..] => Some(Spoken::Lines),
        // An alert, or a handshake (RFC 8446, 5.1).
        [0x15 | 0x16, 3, ..] => Some(Spoken::Tls),
        _ => None,
    }
}

/// The same stream, of which the beginning is kept.
fn listening<S: AsyncRead>(
    stream: S,
    beginning: &Beginning,
) -> InspectReader<S, impl FnMut(&[u8]) + use<S>> {
    let beginning = Arc::clone(beginning);
    InspectReader::new(stream, move |bytes: &[u8]| {
        let mut beginning = beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BEGINNING.saturating_sub(beginning.len());
        beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
    })
}

async fn carried<S>(to: &Network, stream: S, is_local: bool) -> Result<Wire, NoWire>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (input, output): (Input, Output) = match to.speech {
        Speech::Lines => {
            let (input, output) = tokio::io::split(stream);
            (Box::new(input), Box::new(output))
        }
        Speech::Http => {
            let (input, output) = tokio::io::split(websocket(to, stream).await?);
            (Box::new(input), Box::new(output))
        }
    };
    Ok(Wire {
        input,
        output,
        is_local,
    })
}

async fn websocket<S>(to: &Network, stream: S) -> Result<DuplexStream, NoWire>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let url = format!("ws://{}/acp", to.place);
    // What acpbox itself writes is not bounded again.
    let settings = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let shaking = tokio_tungstenite::client_async_with_config(url, stream, Some(settings));
    let socket = match shaking.await {
        Ok((socket, _)) => socket,
        Err(WebSocketError::Io(error)) => return Err(error.into()),
        Err(WebSocketError::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let why = String::from_utf8_lossy(body);
            let why = crate::transcript::printable_line(why.trim());
            let what = format!("{to} refuses: {} {why}", response.status());
            // It may have room later.
            return Err(match response.status().as_u16() {
                503 => NoWire::Nobody(io::Error::other(what)),
                _ => NoWire::Wrong(Usage(what)),
            });
        }
        Err(error) => {
            let what = format!("{to}: there is no WebSocket: {error}");
            return Err(NoWire::Wrong(Usage(what)));
        }
    };
    let (ours, theirs) = tokio::io::duplex(BRIDGE_BYTES);
    tokio::spawn(bridge(socket, ours));
    Ok(theirs)
}

/// Carries messages both ways until either side ends.
async fn bridge<S>(socket: WebSocketStream<S>, bridge: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let (reading, mut writing) = tokio::io::split(bridge);
    let receiving = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Text(text) = message else {
                continue;
            };
            let line = [text.as_bytes(), b"\n"].concat();
            if writing.write_all(&line).await.is_err() {
                break;
            }
        }
    };
    let sending = async {
        let mut reader = BatchReader::new(reading, Decoder::lines(usize::MAX));
        let mut frames = Vec::new();
        while let Ok(true) = reader.read(&mut frames).await {
            for frame in frames.drain(..) {
                let Frame::Message(line) = frame else {
                    continue;
                };
                let Ok(text) = Utf8Bytes::try_from(line) else {
                    continue;
                };
                if sink.send(Message::Text(text)).await.is_err() {
                    return;
                }
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = receiving => {}
        () = sending => {}
    }
    let _ = writing.shutdown().await;
}

/// What an error of the TLS handshake means.
fn untrusted(to: &Network, error: io::Error, heard: &Heard) -> NoWire {
    if let Some(mismatch) = heard.mismatch(to) {
        return NoWire::Wrong(mismatch);
    }
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<TlsError>());
    let why = match inner {
        None => return NoWire::Nobody(error),
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "nobody whom this machine trusts vouches for its certificate; name who does with --certificate-authority FILE".to_owned()
        }
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => format!(
            "its certificate is not for `{}`; name it as its certificate does",
            to.host()
        ),
        // Such as one that signed itself, which is an authority's and no server's.
        Some(TlsError::InvalidCertificate(CertificateError::Other(_))) => {
            "its certificate is none that this machine trusts; if you know it, name it with --certificate-authority FILE".to_owned()
        }
        Some(TlsError::InvalidCertificate(why)) => format!("its certificate: {why}"),
        Some(why) => why.to_string(),
    };
    NoWire::Wrong(Usage(format!("{to}: {why}")))
}
