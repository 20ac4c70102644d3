//! TLS for what listens at TCP and HTTP: the certificate and its key, and the handshake
//! with one client.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys, ServerConfig};

use super::{Accepted, ListenError, Unsecured};

/// A chain of certificates has a few KiB; what is longer is another file.
const FILE_BYTES: u64 = 1024 * 1024;

/// How the two settings are called, for errors.
const CERTIFICATE: &str = "server.tls_certificate (--tls-certificate)";
const KEY: &str = "server.tls_key (--tls-key)";

/// What acpbox shows clients, and proves by its key. All clones show the same.
#[derive(Clone)]
pub struct Tls {
    settings: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

/// The certificate that is shown now, and where it came from.
struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    pair: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads a chain of certificates, acpbox's own first, and its key, both as PEM.
    ///
    /// # Errors
    /// What is wrong with which of the two files, and what to do.
    pub fn read(certificate: &Path, key: &Path) -> Result<Tls, ListenError> {
        let shown = Arc::new(Shown {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            pair: RwLock::new(pair(certificate, key)?),
        });
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder =
            builder.map_err(|error| wrong(CERTIFICATE, certificate, &error.to_string()))?;
        let resolver: Arc<Shown> = Arc::clone(&shown);
        let settings = builder.with_no_client_auth().with_cert_resolver(resolver);
        Ok(Tls {
            settings: Arc::new(settings),
            shown,
        })
    }

    /// For clients of HTTP, which choose its version in the handshake (RFC 7301).
    pub fn for_http(&self) -> Tls {
        let mut settings = ServerConfig::clone(&self.settings);
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Tls {
            settings: Arc::new(settings),
            shown: Arc::clone(&self.shown),
        }
    }

    /// Shows what is in the files now to all who come.
    ///
    /// # Errors
    /// As [`Tls::read`]; the certificate from before is kept.
    pub fn renew(&self) -> Result<(), ListenError> {
        let shown = &self.shown;
        let pair = pair(&shown.certificate, &shown.key)?;
        *shown.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(())
    }

    /// The files of certificate and key.
    pub fn paths(&self) -> [&Path; 2] {
        [&self.shown.certificate, &self.shown.key]
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&pair))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shown(…)")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls(…)")
    }
}

/// Shakes hands with a client that has so much time for it.
///
/// # Errors
/// Why nothing was agreed on: it speaks no TLS, does not trust us, is too slow, or only
/// looked whether somebody is there.
pub(super) async fn shake_hands(
    tls: &Tls,
    mut accepted: Accepted,
    patience: Duration,
) -> Result<Accepted, Unsecured> {
    let settings = Arc::clone(&tls.settings);
    let shaking = async {
        let mut first = [0];
        match accepted.input.read(&mut first).await {
            Ok(1) => {}
            Ok(_) | Err(_) => return Err(Unsecured::Silent),
        }
        let input = AsyncReadExt::chain(io::Cursor::new(first), accepted.input);
        let stream = tokio::io::join(input, accepted.output);
        let accepting = TlsAcceptor::from(settings).accept(stream);
        accepting.await.map_err(|error| explained(&error))
    };
    let stream = match tokio::time::timeout(patience, shaking).await {
        Ok(shaken) => shaken?,
        Err(_elapsed) => {
            return Err(Unsecured::Failed(format!(
                "it did not finish the TLS handshake within {} s (server.handshake_timeout)",
                patience.as_secs_f32()
            )));
        }
    };
    let (input, output) = tokio::io::split(stream);
    Ok(Accepted {
        input: Box::new(input),
        output: Box::new(output),
        token: accepted.token,
        tls: None,
        source: accepted.source,
        peer: accepted.peer,
    })
}

/// What the error means to whoever reads the log.
fn explained(error: &io::Error) -> Unsecured {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<TlsError>());
    Unsecured::Failed(match inner {
        Some(TlsError::InvalidMessage(what)) => {
            format!("it does not speak TLS, which is all that is spoken here ({what:?})")
        }
        Some(TlsError::AlertReceived(alert)) => {
            format!("it broke off the TLS handshake: {alert:?}")
        }
        Some(other) => format!("no TLS handshake with it: {other}"),
        None => format!("it went during the TLS handshake: {error}"),
    })
}

/// What is in the two files, if they belong together.
fn pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, ListenError> {
    let failed = |setting, path| {
        move |error: io::Error| {
            let why = format!("{error}; name a PEM file that acpbox may read");
            wrong(setting, path, &why)
        }
    };
    let (text, _) = read(certificate).map_err(failed(CERTIFICATE, certificate))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, PemError>>()
        .map_err(|error| wrong(CERTIFICATE, certificate, &error.to_string()))?;
    if chain.is_empty() {
        let why = "it has no certificate as PEM, which begins with `-----BEGIN CERTIFICATE-----`; name the file with the whole chain";
        return Err(wrong(CERTIFICATE, certificate, why));
    }
    let (text, mode) = read(key).map_err(failed(KEY, key))?;
    if mode & 0o007 != 0 {
        let why = format!("any user may read it; chmod o= {}", key.display());
        return Err(wrong(KEY, key, &why));
    }
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let why = match error {
            PemError::NoItemsFound => "it has no private key as PEM that needs no password; name the certificate's own, decrypted".to_owned(),
            error => error.to_string(),
        };
        wrong(KEY, key, &why)
    })?;
    let pair = CertifiedKey::from_der(chain, secret, &ring::default_provider());
    let pair = pair.map_err(|error| match error {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let why = format!(
                "it is not the key of the certificate in {}; name the two files that belong together",
                certificate.display()
            );
            wrong(KEY, key, &why)
        }
        TlsError::InvalidCertificate(_) => wrong(CERTIFICATE, certificate, &error.to_string()),
        error => wrong(KEY, key, &error.to_string()),
    })?;
    Ok(Arc::new(pair))
}

fn wrong(setting: &'static str, path: &Path, why: &str) -> ListenError {
    ListenError::Tls {
        setting,
        path: path.to_path_buf(),
        why: why.to_owned(),
    }
}

/// A regular file and its mode.
fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    // Looked at first: a pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > FILE_BYTES {
        return Err(io::Error::other("it is too long for a certificate or key"));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut text)?;
    Ok((text, metadata.mode()))
}
