//! `acpbox status` as a client of servers with TLS and of those that speak HTTP.

use std::path::Path;

use serde_json::Value;

use super::start;
use super::wire::Certified;
use crate::serve::Server;
use crate::status::command;
use crate::support::setup::Setup;

/// What `acpbox status` is told with these arguments, or its exit code and what it says.
fn status(setup: &Setup, arguments: &[&str]) -> Result<Value, (i32, String)> {
    let all = [&["status", "--json"], arguments].concat();
    let output = command(setup, &all).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => {
            let said = String::from_utf8(output.stderr).unwrap();
            Err((output.status.code().unwrap(), said))
        }
    }
}

fn refusal(setup: &Setup, arguments: &[&str]) -> String {
    let (code, said) = status(setup, arguments).unwrap_err();
    assert_eq!(code, 2, "{said}");
    said
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_server_is_reached_by_every_scheme_and_trusted_for_its_certificate_alone() {
    let setup = Setup::host();
    let certified = Certified::new(&setup, "good");
    let flags = certified.flags();
    let listen = [
        "--listen",
        "tls:127.0.0.1:0",
        "--listen",
        "https:127.0.0.1:0",
    ];
    let mut arguments = listen.to_vec();
    arguments.extend(flags.iter().map(String::as_str));
    let mut server = Server::start(&setup, &arguments);
    let tls = server.address();
    let https = server.address();
    let authority = path(&certified.authority);
    let told = |address: &str| {
        let named = ["--server", address, "--certificate-authority", &authority];
        let status = status(&setup, &named).unwrap();
        assert_eq!(status["clients"][0]["name"], "acpbox status");
        status["clients"][0]["peer"].as_str().unwrap().to_owned()
    };
    assert!(told(&tls).starts_with("tls:127.0.0.1:"));
    assert!(told(&format!("tls:localhost:{}", port(&tls))).starts_with("tls:"));
    assert_eq!(told(&https), "WebSocket");
    let page = format!("https://localhost:{}/", port(&https));
    assert_eq!(told(&page), "WebSocket");
    let endpoint = format!("wss://localhost:{}/acp", port(&https));
    assert_eq!(told(&endpoint), "WebSocket");
    // The server's own certificate will do too, and for its names alone.
    let own = path(&certified.certificate);
    let named = |address: &str, file: &str| {
        refusal(
            &setup,
            &["--server", address, "--certificate-authority", file],
        )
    };
    status(&setup, &["--server", &tls, "--certificate-authority", &own]).unwrap();

    let nobody = "nobody whom this machine trusts vouches for its certificate; name who does with --certificate-authority FILE";
    for address in [&tls, &https] {
        let said = refusal(&setup, &["--server", address]);
        assert!(said.contains(nobody), "{said}");
        let other = Certified::new(&setup, "other");
        let said = named(address, &path(&other.authority));
        assert!(said.contains(nobody), "{said}");
    }
    let said = named(&tls, &path(&certified.key));
    assert!(said.contains("--certificate-authority, "), "{said}");
    assert!(said.contains("it has no certificate as PEM"), "{said}");

    // Also where its files are those of this machine's server, whatever it is called.
    let settings = format!("[server]\nlisten = [{tls:?}]\n{}", certified.settings());
    let setup = setup.config(&settings);
    let told = status(&setup, &[]).unwrap();
    let peer = told["clients"][0]["peer"].as_str().unwrap();
    assert!(peer.starts_with("tls:"), "{peer}");
    let plain = settings.replace("tls:127", "tcp:127");
    let setup = setup.config(&plain);
    status(&setup, &[]).unwrap();
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_named() {
    let setup = Setup::host();
    let certified = Certified::alone(&setup, "alone");
    let (_server, address) = start(&setup, &certified, "tls:", "tls:127.0.0.1:0");
    let address = format!("tls:{address}");
    let said = refusal(&setup, &["--server", &address]);
    let why = "its certificate is none that this machine trusts; if you know it, name it with --certificate-authority FILE";
    assert!(said.contains(why), "{said}");
    let file = path(&certified.certificate);
    let arguments = ["--server", &address, "--certificate-authority", &file];
    status(&setup, &arguments).unwrap();
}

#[test]
fn a_certificate_for_another_name_is_not_taken() {
    let setup = Setup::host();
    let certified = Certified::new(&setup, "good");
    let (_server, address) = start(&setup, &certified, "tls:", "tls:127.0.0.2:0");
    let address = format!("tls:{address}");
    for file in [&certified.authority, &certified.certificate] {
        let file = path(file);
        let arguments = ["--server", &address, "--certificate-authority", &file];
        let said = refusal(&setup, &arguments);
        let why = "its certificate is not for `127.0.0.2`; name it as its certificate does";
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn an_address_of_another_scheme_is_told_which_is_right() {
    let setup = Setup::host().config("[server]\nhandshake_timeout = \"2s\"\n");
    let certified = Certified::new(&setup, "good");
    let listen = [
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "http:127.0.0.1:0",
    ];
    let mut plain = Server::start(&setup, &listen);
    let (tcp, http) = (plain.address(), plain.address());
    let flags = certified.flags();
    let mut arguments = listen.to_vec();
    arguments.extend(flags.iter().map(String::as_str));
    let mut secure = Server::start(&setup, &arguments);
    let (tls, https) = (secure.address(), secure.address());
    let authority = path(&certified.authority);
    for (wrong, right, what) in [
        ("http:", &tcp, "ACP without HTTP is spoken there"),
        ("tls:", &tcp, "ACP without HTTP without TLS is spoken there"),
        (
            "https:",
            &tcp,
            "ACP without HTTP without TLS is spoken there",
        ),
        ("tcp:", &http, "HTTP is spoken there"),
        ("tls:", &http, "HTTP without TLS is spoken there"),
        ("https:", &http, "HTTP without TLS is spoken there"),
        ("tcp:", &tls, "TLS is spoken there"),
        ("https:", &tls, "ACP without HTTP is spoken there"),
        ("http:", &https, "TLS is spoken there"),
        ("tls:", &https, "HTTP is spoken there"),
    ] {
        let place = right.split_once(':').unwrap().1;
        let wrong = format!("{wrong}{place}");
        let arguments = ["--server", &wrong, "--certificate-authority", &authority];
        let said = refusal(&setup, &arguments);
        let expected = format!("{wrong}: {what}; write {right}");
        assert!(said.contains(&expected), "{expected}\n{said}");
    }
}
