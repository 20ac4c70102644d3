//! Certificates for a test, and the client's end of TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::client::PATIENCE;
use crate::support::setup::Setup;

/// A server's certificate as it usually is: with one that vouches for it, for which one
/// vouches that clients know.
pub struct Certified {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who vouches for it in the end, as clients are told.
    pub authority: PathBuf,
    root: CertificateDer<'static>,
}

impl Certified {
    /// Files of this name in the set-up's folder.
    pub fn new(setup: &Setup, name: &str) -> Certified {
        let parameters = |common_name: &str, hosts: &[&str], is_ca| {
            let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
            let mut parameters = CertificateParams::new(hosts).unwrap();
            let names = &mut parameters.distinguished_name;
            names.push(DnType::CommonName, common_name);
            parameters.is_ca = is_ca;
            parameters
        };
        let any_length = || IsCa::Ca(BasicConstraints::Unconstrained);
        let generate = || KeyPair::generate().unwrap();
        let root = parameters(&format!("root of {name}"), &[], any_length());
        let root = CertifiedIssuer::self_signed(root, generate()).unwrap();
        let between = parameters(&format!("between {name}"), &[], any_length());
        let between = CertifiedIssuer::signed_by(between, generate(), &root).unwrap();
        let key = generate();
        let leaf = parameters(name, &["localhost", "127.0.0.1"], IsCa::ExplicitNoCa);
        let leaf = leaf.signed_by(&key, &between).unwrap();
        let write = |kind: &str, text: String| write(setup, name, kind, text);
        Certified {
            certificate: write("certificate", leaf.pem() + &between.pem()),
            key: write("key", key.serialize_pem()),
            authority: write("authority", root.pem()),
            root: root.der().clone(),
        }
    }

    /// One that signed itself, as `openssl req -x509` makes it.
    pub fn alone(setup: &Setup, name: &str) -> Certified {
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut parameters = CertificateParams::new(hosts).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let write = |kind: &str, text: String| write(setup, name, kind, text);
        let file = write("certificate", certificate.pem());
        Certified {
            certificate: file.clone(),
            key: write("key", key.serialize_pem()),
            authority: file,
            root: certificate.der().clone(),
        }
    }

    pub fn flags(&self) -> [String; 4] {
        [
            "--tls-certificate".to_owned(),
            self.certificate.display().to_string(),
            "--tls-key".to_owned(),
            self.key.display().to_string(),
        ]
    }

    /// For `[server]`.
    pub fn settings(&self) -> String {
        let (certificate, key) = (&self.certificate, &self.key);
        format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\n")
    }

    /// A client that trusts whoever this root vouches for, and offers these protocols.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut settings = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        settings.alpn_protocols = protocols.collect();
        Arc::new(settings)
    }
}

/// A file in the set-up's folder that nobody else may read.
fn write(setup: &Setup, name: &str, kind: &str, text: String) -> PathBuf {
    let path = setup.path().join(format!("{name}.{kind}.pem"));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// The client's end, for one who reads and one who writes in turns.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<StreamOwned<ClientConnection, TcpStream>>>);

impl Wire {
    /// Connects to `HOST:PORT` and shakes hands.
    pub fn connect(address: &str, settings: &Arc<ClientConfig>) -> io::Result<Wire> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(settings), name).unwrap();
        let mut stream = StreamOwned::new(connection, tcp(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Wire(Arc::new(Mutex::new(stream))))
    }

    /// What of the protocols that it offered was agreed on.
    pub fn protocol(&self) -> Option<String> {
        let stream = self.0.lock().unwrap();
        let protocol = stream.conn.alpn_protocol();
        protocol.map(|name| String::from_utf8(name.to_vec()).unwrap())
    }
}

impl Read for Wire {
    /// An end without a goodbye is an error here.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap().read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

/// A connection without TLS, which is not waited for for ever.
pub fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
