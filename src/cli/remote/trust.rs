//! Whose certificates a server may show.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::cli::exit::Usage;

/// Who is trusted, beside what is checked of every certificate.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    /// Those who vouch for others; absent if there are none.
    roots: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that were named one by one: servers' own, for their names.
    named: Vec<CertificateDer<'static>>,
    /// The one that a server on this machine has by the same configuration, whatever it
    /// is called: who can prove to have its key can be no other.
    own: Option<CertificateDer<'static>>,
}

impl Trust {
    /// Trusts whom the file names, else whom the system trusts, and a server with the
    /// certificate in the file `own`, if it is there.
    ///
    /// # Errors
    /// When `authority` cannot be used.
    pub(super) fn new(authority: Option<&Path>, own: Option<&Path>) -> anyhow::Result<Arc<Trust>> {
        let provider = Arc::new(ring::default_provider());
        let named = match authority {
            Some(file) => read(file)?,
            None => Vec::new(),
        };
        let mut roots = RootCertStore::empty();
        if authority.is_some() {
            roots.add_parsable_certificates(named.iter().cloned());
        } else {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "a certificate of the system's");
            }
            roots.add_parsable_certificates(found.certs);
        }
        let roots = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()?,
            ),
        };
        let own = own.and_then(|file| {
            let mut chain = CertificateDer::pem_file_iter(file).ok()?;
            chain.next()?.ok()
        });
        Ok(Arc::new(Trust {
            provider,
            roots,
            named,
            own,
        }))
    }

    /// For a connection on which this protocol is offered, or none.
    pub(super) fn settings(
        self: &Arc<Trust>,
        protocol: Option<&str>,
    ) -> anyhow::Result<ClientConfig> {
        let verifier: Arc<Trust> = Arc::clone(self);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let mut settings = builder
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        settings.alpn_protocols = protocol.map(Vec::from).into_iter().collect();
        Ok(settings)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.as_ref() == Some(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        if self.named.contains(certificate) {
            // One that signed itself vouches for nobody else.
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.roots {
            Some(roots) => {
                roots.verify_server_cert(certificate, intermediates, name, ocsp_response, now)
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: String| {
        Usage(format!(
            "--certificate-authority, {}: {why}",
            file.display()
        ))
    };
    let all = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("{error}; name a PEM file with certificates")))?;
    if all.is_empty() {
        let why = "it has no certificate as PEM, which begins with `-----BEGIN CERTIFICATE-----`";
        return Err(wrong(why.to_owned()).into());
    }
    Ok(all)
}
