//! The server that an agent belongs to, from inside its VM: who reaches it could
//! approve its own requests.

use super::*;
use crate::serve::{Peer, Server};

/// `acpbox serve` of a site, at these addresses.
fn serve(site: &Site, arguments: &[&str]) -> Server {
    Server::of(site.command(&[&["serve"], arguments].concat()))
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Sends these lines to a port, and prints what comes back.
fn dial(host: &str, port: u16, lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("'{line}'")).collect();
    format!(
        "exec 3<> /dev/tcp/{host}/{port} || exit 9; printf '%b\\r\\n' {} >&3; timeout 3 cat <&3; true",
        lines.join(" ")
    )
}

#[test]
fn an_agent_reaches_no_socket_of_its_server_and_has_no_token() {
    let site = Site::new();
    let (open, closed) = (site.repository("open"), site.repository("closed"));
    site.configure(&format!(
        "[vms.open]\nworkspaces = [{open:?}]\n\
         [vms.closed]\nnetwork = 'none'\nworkspaces = [{closed:?}]\n"
    ));
    let own = site.folder().join("run/acpbox/acpbox.sock");
    let unix = format!("unix:{}", own.display());
    let listen = [
        "--listen",
        &unix,
        "--listen",
        "tcp:127.0.0.1:0",
        "--listen",
        "http:127.0.0.1:0",
    ];
    let mut server = serve(&site, &listen);
    server.address();
    let tcp = port(&server.address());
    let http = port(&server.address());
    let token = std::fs::read_to_string(site.state().join("token")).unwrap();
    let token = token.trim();
    let mut acpbox = site.connect(&[]);

    for (workspace, vm) in [(&open, "open"), (&closed, "closed")] {
        let inside = Inside::open(&mut acpbox, workspace, json!({ "vm": vm }));
        // The session is the server's.
        let mut peer = Peer::unix(&own).initialize(json!({}));
        let status = peer.call("_acpbox/server/status", json!({})).unwrap();
        assert!(status.to_string().contains(&inside.session), "{status:#}");
        for path in [
            site.folder().join("run"),
            own.clone(),
            site.state().join("token"),
        ] {
            inside.fail(&mut acpbox, &format!("ls '{}'", path.display()));
        }
        let sockets = inside
            .run(&mut acpbox, "find / -xdev -type s 2> /dev/null")
            .0;
        assert!(!sockets.contains("acpbox"), "{sockets}");
        let connect = format!(
            "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, pack_sockaddr_un(\"{}\")) or exit 1'",
            own.display()
        );
        inside.fail(&mut acpbox, &connect);
        // Spelled so that the search does not find itself.
        let pattern = format!("[{}]{}", &token[..1], &token[1..]);
        let search = format!(
            "grep -rls '{pattern}' /home /tmp /run /etc /var . ; \
             cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2> /dev/null | grep -ac '{pattern}'"
        );
        assert_eq!(
            inside.run(&mut acpbox, &search).0,
            "0",
            "the token is in there"
        );
        if vm == "closed" {
            for host in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1"] {
                for port in [tcp, http] {
                    inside.fail(
                        &mut acpbox,
                        &format!(
                            "timeout 3 bash -c '{}'",
                            "exec 3<> /dev/tcp/H/P"
                                .replace('H', host)
                                .replace('P', &port.to_string())
                        ),
                    );
                }
            }
            let devices =
                "awk '{ print $NF }' /proc/net/ipv6_route /proc/net/if_inet6 | grep -v '^lo$'";
            inside.fail(&mut acpbox, devices);
            continue;
        }
        // The host's loopback is reached with the host's network, and not let in.
        let healthy = dial(
            "127.0.0.1",
            http,
            &[
                "GET /healthz HTTP/1.1",
                "Host: localhost",
                "Connection: close",
                "",
            ],
        );
        let healthy = inside.succeed(&mut acpbox, &healthy);
        assert!(healthy.contains("200 OK"), "{healthy}");
        for request in ["GET /metrics", "GET /acp", "POST /acp", "DELETE /acp"] {
            let lines = [
                &format!("{request} HTTP/1.1"),
                "Host: localhost",
                "Connection: close",
                "Accept: text/event-stream",
                "Content-Type: application/json",
                "Acp-Connection-Id: 00000000-0000-0000-0000-000000000000",
                "",
            ];
            let answer = inside.succeed(&mut acpbox, &dial("127.0.0.1", http, &lines));
            assert!(answer.starts_with("HTTP/1.1 401 "), "{request}: {answer}");
            let why = "`Authorization: Bearer TOKEN` is missing: clients of this address must know its token";
            assert!(answer.ends_with(why), "{request}: {answer}");
        }
        let cancel = format!(
            r#"{{"jsonrpc":"2.0","method":"session/cancel","params":{{"sessionId":"{}"}}}}"#,
            inside.session
        );
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"session/list","params":{}}"#;
        let hello =
            r#"{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":1}}"#;
        let answer = inside.succeed(
            &mut acpbox,
            &dial("127.0.0.1", tcp, &[&cancel, list, hello]),
        );
        for why in [
            "`session/list` came before `initialize`; send `initialize` first",
            "`_meta.acpbox.token` is missing: clients of this address must know its token",
        ] {
            assert!(answer.contains(why), "{answer}");
        }
        // With it, it would be let in: what is missing is just that.
        let meta = json!({"acpbox": {"token": token}});
        Peer::tcp(&format!("tcp:127.0.0.1:{tcp}")).initialize(meta);
    }
}

#[test]
fn a_folder_with_a_socket_or_the_token_of_the_server_is_shared_with_no_vm() {
    let site = Site::new();
    let named = site.repository("named");
    let given = site.repository("given");
    let secret = site.repository("secret");
    let token = secret.join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let socket = named.join("acpbox.sock");
    site.configure(&format!(
        "[server]\nlisten = ['unix:{}']\n",
        socket.display()
    ));
    let refuses = |outcome: Result<Value, Value>, own: &Path| {
        let error = outcome.expect_err("it is shared");
        let what = format!("it holds acpbox's own {}", own.display());
        assert_eq!(error["code"], -32602, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(&what),
            "{error}"
        );
    };
    let new = |cwd: &Path| {
        let meta = json!({"acpbox": {"agent": "example"}});
        json!({"cwd": cwd, "mcpServers": [], "_meta": meta})
    };
    // Another acpbox, too, knows what the configuration names.
    let mut apart = site.connect(&["--no-server"]);
    let request = apart.send_request("session/new", new(&named));
    refuses(apart.answer(request), &socket);

    let other = given.join("other.sock");
    let unix = format!("unix:{}", other.display());
    let file = token.display().to_string();
    let mut server = serve(&site, &["--listen", &unix, "--token-file", &file]);
    server.address();
    let mut peer = Peer::unix(&other).initialize(json!({}));
    refuses(peer.call("session/new", new(&named)), &socket);
    refuses(peer.call("session/new", new(&given)), &other);
    refuses(peer.call("session/new", new(&secret)), &token);
    peer.call("session/new", new(&site.repository("plain")))
        .unwrap();
}
