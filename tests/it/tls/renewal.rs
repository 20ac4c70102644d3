//! Certificates and tokens that are replaced while clients are there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::{Certified, Wire};
use super::{meta, start, token};
use crate::serve::{Peer, Server};
use crate::support::client::PATIENCE;
use crate::support::setup::Setup;

/// As those do who renew certificates: a new file in the place of the old one.
fn replace(path: &Path, by: &Path) {
    let fresh = path.with_extension("fresh");
    std::fs::copy(by, &fresh).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_new_certificate_is_shown_to_who_comes_and_a_broken_one_to_nobody() {
    let setup = Setup::host();
    let shown = Certified::new(&setup, "shown");
    let next = Certified::new(&setup, "next");
    let (mut server, address) = start(&setup, &shown, "tls:", "tcp:127.0.0.1:0");
    let connect = |certified: &Certified| Wire::connect(&address, &certified.client(&[]));
    let wire = connect(&shown).unwrap();
    let mut there = Peer::new(wire.clone(), wire).initialize(meta(&setup));
    assert!(connect(&next).is_err());

    replace(&shown.certificate, &next.certificate);
    replace(&shown.key, &next.key);
    eventually("the new certificate is not shown", || {
        connect(&next).is_ok()
    });
    assert!(connect(&shown).is_err());
    there.call("session/list", json!({})).unwrap();

    let other = Certified::new(&setup, "other");
    replace(&shown.key, &other.key);
    let said = server.hear("the certificate from before is kept");
    let why = "it is not the key of the certificate in ";
    assert!(
        said.contains("server.tls_key") && said.contains(why),
        "{said}"
    );
    std::fs::remove_file(&shown.certificate).unwrap();
    let said = server.hear("the certificate from before is kept");
    assert!(said.contains("No such file or directory"), "{said}");
    let wire = connect(&next).unwrap();
    Peer::new(wire.clone(), wire).initialize(meta(&setup));
    there.call("session/list", json!({})).unwrap();
}

#[test]
fn without_a_terminal_sighup_reads_files_again_and_ends_nothing() {
    let setup = Setup::host();
    let shown = Certified::new(&setup, "shown");
    let flags = shown.flags();
    // It leads a session of its own, as services do.
    let mut arguments = vec!["--detached", "-v", "--listen", "http:127.0.0.1:0"];
    arguments.extend(flags.iter().map(String::as_str));
    let mut server = Server::start(&setup, &arguments);
    server.address();
    server.hear("its clients send the token");
    for _ in 0..2 {
        server.signal(libc::SIGHUP);
        server.hear("the certificate was read again");
        server.hear("the token was read again");
    }
    std::fs::write(setup.state().join("token"), "short").unwrap();
    server.signal(libc::SIGHUP);
    let said = server.hear("the token from before is kept");
    assert!(said.contains("at least 16 characters"), "{said}");
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_new_token_is_asked_of_who_comes_and_who_is_there_stays() {
    let setup = Setup::host();
    let mut server = Server::start(
        &setup,
        &[
            "--listen",
            "tcp:127.0.0.1:0",
            "--listen",
            "http:127.0.0.1:0",
        ],
    );
    let address = server.address();
    let mut there = Peer::tcp(&address).initialize(meta(&setup));
    let knocks = |token: &str| -> Result<Value, Value> {
        let meta = json!({"acpbox": {"token": token}});
        Peer::tcp(&address).try_initialize(meta)
    };
    let old = token(&setup);
    knocks(&old).unwrap();
    let new = "another-token-that-is-long-enough";
    std::fs::write(setup.state().join("token"), new).unwrap();
    eventually("the new token is not taken", || knocks(new).is_ok());
    let error = knocks(&old).unwrap_err();
    assert_eq!(
        error["message"],
        "the token in `_meta.acpbox.token` is wrong"
    );
    there.call("session/list", json!({})).unwrap();
}
