//! TLS at TCP and HTTP: who gets through, and what becomes of those who do not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::http::{Response, Socket};
use crate::serve::{Peer, Server, command};
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod remote;
mod renewal;
mod wire;

use wire::{Certified, Wire, tcp};

/// Starts a server with a certificate, by flags. Returns it and its `HOST:PORT`.
fn start(setup: &Setup, certified: &Certified, scheme: &str, listen: &str) -> (Server, String) {
    let flags = certified.flags();
    let mut arguments = vec!["--listen", listen];
    arguments.extend(flags.iter().map(String::as_str));
    let mut server = Server::start(setup, &arguments);
    let address = server.address();
    let address = address.strip_prefix(scheme).expect(&address).to_owned();
    (server, address)
}

fn token(setup: &Setup) -> String {
    let text = std::fs::read_to_string(setup.state().join("token")).unwrap();
    text.trim().to_owned()
}

fn meta(setup: &Setup) -> Value {
    json!({"acpbox": {"token": token(setup)}})
}

fn get(wire: &mut Wire, path: &str, host: &str, headers: &str) -> Response {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    wire.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    wire.read_to_string(&mut text).unwrap();
    Response::parse(&text)
}

#[test]
fn a_turn_runs_over_tls_and_the_connection_ends_in_order() {
    let setup = Setup::host();
    // More than fits a record, and a socket's buffer.
    let long = "long ".repeat(400_000);
    setup.script(&[expect_prompt(), chunk("a1"), chunk(&long), end_turn()]);
    let certified = Certified::new(&setup, "good");
    let (server, address) = start(&setup, &certified, "tls:", "tcp:127.0.0.1:0");

    let connect = || {
        let wire = Wire::connect(&address, &certified.client(&[])).unwrap();
        Peer::new(wire.clone(), wire)
    };
    let error = connect().try_initialize(json!({})).unwrap_err();
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("`_meta.acpbox.token` is missing"), "{text}");
    let mut peer = connect().initialize(meta(&setup));
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "u")).unwrap();
    assert_eq!(peer.texts(), ["a1".to_owned(), long]);
    let status = peer.call("_acpbox/server/status", json!({})).unwrap();
    assert!(status.to_string().contains("tls:127.0.0.1:"), "{status}");

    server.signal(libc::SIGTERM);
    // Its goodbye is there, or this would be an error.
    assert!(peer.receive().is_none());
}

#[test]
fn a_turn_runs_over_a_websocket_with_tls_and_pages_of_https_alone_are_our_own() {
    let setup = Setup::host();
    let certified = Certified::new(&setup, "good");
    let setup = setup.config(&format!("[server]\n{}", certified.settings()));
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let mut server = Server::start(&setup, &["--listen", "https:localhost:0"]);
    let address = server.address();
    let address = address.strip_prefix("https:").unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let host = format!("localhost:{port}");
    let client = certified.client(&["http/1.1"]);
    let connect = || Wire::connect(address, &client).unwrap();

    let request = format!("wss://{host}/acp").into_client_request().unwrap();
    let (socket, _) = tungstenite::client(request, connect()).unwrap();
    let mut socket = Socket {
        socket,
        updates: Vec::new(),
    };
    socket.initialize(meta(&setup)).unwrap();
    let session = socket.new_session(&setup);
    let result = socket.call("session/prompt", prompt(&session, "u"));
    assert_eq!(result.unwrap()["stopReason"], "end_turn");
    assert_eq!(socket.texts(), ["a1"]);
    let goodbye = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    socket.socket.close(Some(goodbye)).unwrap();
    assert_eq!(socket.closed().0, 1000);

    let bearer = format!("Authorization: Bearer {}\r\n", token(&setup));
    for (origin, status) in [
        (format!("https://{host}"), 200),
        (format!("http://{host}"), 403),
        ("https://evil.example.org".to_owned(), 403),
    ] {
        let headers = format!("Origin: {origin}\r\n{bearer}");
        let response = get(&mut connect(), "/metrics", &host, &headers);
        assert_eq!(response.status, status, "{origin}: {}", response.body);
    }
    let response = get(&mut connect(), "/metrics", &host, "");
    assert_eq!(response.status, 401);
}

#[test]
fn the_version_of_http_is_agreed_on_in_the_handshake() {
    let setup = Setup::host();
    let certified = Certified::new(&setup, "good");
    let (_server, address) = start(&setup, &certified, "https:", "http:127.0.0.1:0");
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut wire = Wire::connect(&address, &certified.client(offered)).unwrap();
        assert_eq!(wire.protocol().as_deref(), agreed);
        if agreed != Some("h2") {
            assert_eq!(get(&mut wire, "/healthz", &address, "").body, "ok\n");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let asked = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(certified.client(&["h2"]));
        let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = shake.await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(format!("https://{address}/healthz"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), hyper::Version::HTTP_2);
        response.into_body().collect().await.unwrap().to_bytes()
    });
    assert_eq!(&asked[..], b"ok\n");
}

#[test]
fn who_stalls_or_speaks_no_tls_is_let_go_and_holds_up_nobody() {
    let limits = "[server]\nconnections = 4\nhandshake_timeout = \"2s\"\n";
    let setup = Setup::host().config(limits);
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let certified = Certified::new(&setup, "good");
    let (mut server, address) = start(&setup, &certified, "tls:", "tcp:127.0.0.1:0");
    let client = certified.client(&[]);
    let is_closed = |mut stream: TcpStream| {
        let mut rest = Vec::new();
        // An alert may come first, and a reset counts too.
        match stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };

    let mut plain = tcp(&address);
    plain
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}\n")
        .unwrap();
    assert!(is_closed(plain), "plain text is not let go");
    let said = server.hear("is let go");
    assert!(said.contains("it does not speak TLS"), "{said}");
    assert!(said.contains("tls:127.0.0.1:"), "{said}");

    let began = Instant::now();
    let silent = tcp(&address);
    let mut half = tcp(&address);
    // The head of a record, whose rest never comes.
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    let wire = Wire::connect(&address, &client).unwrap();
    let mut peer = Peer::new(wire.clone(), wire).initialize(meta(&setup));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "they held it up for {:?}",
        began.elapsed()
    );
    // They are no clients, of whom there may be four.
    let others: Vec<Peer> = (0..3)
        .map(|_| {
            let wire = Wire::connect(&address, &client).unwrap();
            Peer::new(wire.clone(), wire).initialize(meta(&setup))
        })
        .collect();
    assert!(Wire::connect(&address, &client).is_err());
    let said = server.hear("too many clients");
    assert!(said.contains("limit=4"), "{said}");
    drop(others);

    for stream in [silent, half] {
        assert!(is_closed(stream), "it is waited for");
        let said = server.hear("is let go");
        let why = "did not finish the TLS handshake within 2 s (server.handshake_timeout)";
        assert!(said.contains(why), "{said}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    let session = peer.new_session(&setup);
    peer.call("session/prompt", prompt(&session, "u")).unwrap();
    assert_eq!(peer.texts(), ["a1"]);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_goes_and_the_log_says_so() {
    let setup = Setup::host();
    let certified = Certified::new(&setup, "good");
    let (mut server, address) = start(&setup, &certified, "tls:", "tcp:127.0.0.1:0");
    let other = Certified::new(&setup, "other");
    let refused = Wire::connect(&address, &other.client(&[])).err().unwrap();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    let said = server.hear("is let go");
    assert!(said.contains("broke off the TLS handshake"), "{said}");
    let wire = Wire::connect(&address, &certified.client(&[])).unwrap();
    Peer::new(wire.clone(), wire).initialize(meta(&setup));
}

#[test]
fn a_stop_waits_for_no_handshake_and_no_first_request() {
    let setup = Setup::host().config("[server]\nhandshake_timeout = \"5m\"\n");
    let certified = Certified::new(&setup, "good");
    let (mut secure, address) = start(&setup, &certified, "https:", "http:127.0.0.1:0");
    let mut plain = Server::start(&setup, &["--listen", "http:127.0.0.1:0"]);
    let at = plain.address();
    let at = at.strip_prefix("http:").unwrap();
    let _kept = [tcp(&address), tcp(at)];
    let client = certified.client(&[]);
    let _asks_nothing = Wire::connect(&address, &client).unwrap();
    // They were taken in for sure once a later one is answered.
    let mut wire = Wire::connect(&address, &client).unwrap();
    assert_eq!(get(&mut wire, "/healthz", &address, "").status, 200);
    let mut later = tcp(at);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    later.write_all(request.as_bytes()).unwrap();
    later.read_to_string(&mut String::new()).unwrap();
    for server in [&mut secure, &mut plain] {
        server.signal(libc::SIGTERM);
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn what_is_wrong_with_certificate_and_key_is_said() {
    let setup = Setup::host();
    let good = Certified::new(&setup, "good");
    let other = Certified::new(&setup, "other");
    let check = |certificate: Option<&Path>, key: Option<&Path>, why: &str| {
        let mut serve = command(&setup, &["--listen", "tls:127.0.0.1:0"]);
        for (flag, path) in [("--tls-certificate", certificate), ("--tls-key", key)] {
            if let Some(path) = path {
                serve.arg(flag).arg(path);
            }
        }
        let output = serve.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{why:?} is not in: {said}");
        assert!(!said.contains("-----BEGIN PRIVATE"), "{said}");
    };
    let (certificate, key) = (Some(good.certificate.as_path()), Some(good.key.as_path()));
    check(
        None,
        None,
        "tls:127.0.0.1:0 needs a certificate and its key",
    );
    check(
        certificate,
        None,
        "server.tls_certificate is given without server.tls_key (--tls-key)",
    );
    check(
        None,
        key,
        "server.tls_key is given without server.tls_certificate (--tls-certificate)",
    );
    check(
        certificate,
        Some(&other.key),
        "server.tls_key (--tls-key), ",
    );
    check(
        certificate,
        Some(&other.key),
        "it is not the key of the certificate in ",
    );
    let absent = setup.path().join("absent");
    check(
        Some(&absent),
        key,
        "absent: No such file or directory (os error 2); name a PEM file",
    );
    check(certificate, Some(setup.path()), "it is no file");
    check(key, key, "it has no certificate as PEM");
    check(certificate, certificate, "it has no private key as PEM");
    let odd = setup.path().join("odd");
    let write = |bytes: &[u8]| {
        std::fs::write(&odd, bytes).unwrap();
        std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(b"-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n");
    check(
        Some(&odd),
        key,
        "server.tls_certificate (--tls-certificate), ",
    );
    write(b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    check(
        Some(&odd),
        key,
        "server.tls_certificate (--tls-certificate), ",
    );
    write(b"-----BEGIN PRIVATE KEY-----\nbm8ga2V5\n-----END PRIVATE KEY-----\n");
    check(certificate, Some(&odd), "server.tls_key (--tls-key), ");
    write(&vec![b'x'; 2 * 1024 * 1024]);
    check(Some(&odd), key, "too long for a certificate");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&good.key, open).unwrap();
    check(certificate, key, "any user may read it; chmod o= ");

    // With a certificate, too, others are let in by a token of yours alone.
    let flags = other.flags();
    let mut arguments = vec!["--listen", "http:0.0.0.0:0"];
    arguments.extend(flags.iter().map(String::as_str));
    let output = command(&setup, &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("with --token-file"), "{said}");
}

#[test]
fn doctor_says_what_a_server_could_not_use() {
    let kept = Setup::host();
    let good = Certified::new(&kept, "good");
    let check = |settings: &str, expected: &str| {
        let setup = Setup::host().config(&format!("[server]\n{settings}"));
        let output = crate::status::command(&setup, &["doctor"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(expected), "no {expected} in {said}");
    };
    check(
        &format!("tls_certificate = {:?}\n", good.certificate),
        "! server: server.tls_certificate is given without server.tls_key",
    );
    check("listen = [\"ftp:x\"]\n", "! server: ");
    let listen = "listen = [\"tls:127.0.0.1:4711\"]\n";
    check(
        &format!("{listen}{}", good.settings()),
        "✓ server: tls:127.0.0.1:4711",
    );
}
