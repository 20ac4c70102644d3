//! Who is not let in over HTTP, with the exact status and text of each refusal.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use super::Web;
use crate::support::setup::{Setup, wait_until};

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const NO_TOKEN: &str =
    "`Authorization: Bearer TOKEN` is missing: clients of this address must know its token\n";
const WRONG_TOKEN: &str = "the token in `Authorization` is wrong\n";
const IN_URL: &str = "a token is not accepted in a URL, which is logged and remembered; send it as `Authorization: Bearer TOKEN`, or in `_meta.acpbox.token` of `initialize`; and change it, if it was real\n";

#[test]
fn web_pages_and_rebound_names_are_refused() {
    let setup = Setup::host().config(
        "[server]\nhosts = [\"box.example.org\"]\norigins = [\"https://page.example.org\"]\n",
    );
    let web = Web::start(&setup);
    let own = format!("http://{}", web.address);
    let not_served = |host: &str| {
        format!(
            "{host:?} is not served here: use localhost or the address listened at, or list the name in server.hosts\n"
        )
    };
    let not_listed = |origin: &str| {
        format!(
            "web pages of {origin:?} may not talk to acpbox; list the origin in server.origins if they should\n"
        )
    };
    // The path does not matter: nothing looks at a request before.
    for line in [
        "GET /healthz",
        "GET /acp",
        "POST /acp",
        "DELETE /acp",
        "GET /nowhere",
        "OPTIONS /acp",
    ] {
        for host in [
            "evil.example.org",
            "127.0.0.1.evil.example.org:80",
            "localhost.evil.example.org",
            "",
        ] {
            let response = web.request(line, &[("Host", host)], "");
            assert_eq!(
                (response.status, response.body),
                (421, not_served(host)),
                "{line} {host}"
            );
        }
        for origin in [
            "http://evil.example.org",
            "null",
            "https://page.example.org.evil.example.org",
            "http://localhost",
            "",
        ] {
            let response = web.request(line, &[("Origin", origin)], "");
            assert_eq!(
                (response.status, response.body),
                (403, not_listed(origin)),
                "{line} {origin}"
            );
        }
    }
    // The right token changes nothing about it, nor does an upgrade.
    let bearer = web.bearer();
    let token = ("Authorization", bearer.as_str());
    let with = |more: (&'static str, &'static str)| [&UPGRADE[..], &[token, more]].concat();
    assert_eq!(
        web.request("GET /acp", &with(("Origin", "null")), "")
            .status,
        403
    );
    assert_eq!(
        web.request("GET /acp", &with(("Host", "evil.example.org")), "")
            .status,
        421
    );
    let twice = [
        ("Origin", own.as_str()),
        ("Origin", "http://evil.example.org"),
    ];
    assert_eq!(web.request("GET /healthz", &twice, "").status, 403);
    let twice = [("Host", web.address.as_str()), ("Host", "evil.example.org")];
    assert_ne!(web.request("GET /healthz", &twice, "").status, 200);

    for host in [
        "localhost",
        "LOCALHOST:1",
        "box.example.org:443",
        "127.0.0.1",
    ] {
        let response = web.request("GET /healthz", &[("Host", host)], "");
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, "ok\n"),
            "{host}"
        );
    }
    // acpbox's own page, under the name by which it was asked for.
    assert_eq!(
        web.request("GET /healthz", &[("Origin", &own)], "").status,
        200
    );
    let rebound = [
        ("Host", "box.example.org"),
        ("Origin", "http://box.example.org"),
    ];
    assert_eq!(web.request("GET /healthz", &rebound, "").status, 200);
    let listed = [("Origin", "https://page.example.org")];
    let response = web.request("GET /healthz", &listed, "");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://page.example.org")
    );
    let preflight = [listed[0], ("Access-Control-Request-Method", "POST")];
    let response = web.request("OPTIONS /acp", &preflight, "");
    assert_eq!(response.status, 204);
    let allowed = response.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("acp-session-id"), "{allowed}");
}

#[test]
fn a_missing_or_wrong_token_and_one_in_a_url_are_refused() {
    let setup = Setup::host();
    let web = Web::start(&setup);
    let bearer = web.bearer();
    let check = |line: &str, headers: &[(&str, &str)], status: u16, body: &str| {
        let response = web.request(line, headers, "");
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, body),
            "{line} {headers:?}"
        );
        if status == 401 {
            let challenge = response.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer realm=\"acpbox\""));
        }
    };
    check("GET /metrics", &[], 401, NO_TOKEN);
    for wrong in ["Bearer x", &format!("Bearer {}0", web.token)] {
        check(
            "GET /metrics",
            &[("Authorization", wrong)],
            401,
            WRONG_TOKEN,
        );
        let headers = [&UPGRADE[..], &[("Authorization", wrong)]].concat();
        check("GET /acp", &headers, 401, WRONG_TOKEN);
    }
    let scheme = "`Authorization` must be `Bearer TOKEN`\n";
    check(
        "GET /metrics",
        &[("Authorization", &web.token)],
        401,
        scheme,
    );
    check(
        "GET /metrics",
        &[("Authorization", "Basic eDp5")],
        401,
        scheme,
    );
    let twice = [
        ("Authorization", bearer.as_str()),
        ("Authorization", bearer.as_str()),
    ];
    check("GET /metrics", &twice, 401, WRONG_TOKEN);
    for name in ["token", "access_token"] {
        let line = format!("GET /metrics?a=b&{name}={}", web.token);
        check(&line, &[("Authorization", &bearer)], 400, IN_URL);
        let line = format!("GET /acp?{name}={}", web.token);
        check(&line, &UPGRADE, 400, IN_URL);
    }
    assert_eq!(
        web.request("GET /metrics", &[("Authorization", &bearer)], "")
            .status,
        200
    );
    check("GET /healthz", &[], 200, "ok\n");

    // Over a WebSocket without a header it is asked for at `initialize`.
    for (meta, what) in [
        (
            json!({}),
            "`_meta.acpbox.token` is missing: clients of this address must know its token",
        ),
        (
            json!({"acpbox": {"token": "x"}}),
            "the token in `_meta.acpbox.token` is wrong",
        ),
    ] {
        let mut socket = web.websocket(&[]);
        let error = socket.initialize(meta).unwrap_err();
        assert_eq!(
            (error["code"].as_i64(), error["message"].as_str()),
            (Some(-32000), Some(what))
        );
        assert_eq!(
            socket.closed(),
            (1001, "acpbox ends the connection".to_owned())
        );
    }
    let mut socket = web.websocket(&[]);
    let error = socket.call("session/list", json!({})).unwrap_err();
    assert!(error.to_string().contains("initialize"), "{error}");
}

#[test]
fn requests_that_nobody_serves_are_told_so() {
    let setup = Setup::host();
    let web = Web::start(&setup);
    let check = |line: &str, status: u16, body: &str| {
        let response = web.request(line, &[("Authorization", &web.bearer())], "");
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, body),
            "{line}"
        );
    };
    check("GET /nowhere", 404, "there is nothing here\n");
    check("GET /acp/", 404, "there is nothing here\n");
    check("POST /healthz", 405, "this method is not for here\n");
    check("DELETE /metrics", 405, "this method is not for here\n");
}

#[test]
fn a_websocket_is_held_to_the_limits() {
    let setup = Setup::host()
        .limits("line_bytes = \"64KiB\"")
        .config("[server]\nhandshake_timeout = \"500ms\"\nkeepalive = \"200ms\"\n");
    let web = Web::start(&setup);
    let bearer = web.bearer();
    let connect = || web.websocket(&[("authorization", &bearer)]);
    // Nothing is said at all.
    let mut silent = connect();
    let said = silent.receive()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(said.contains("server.handshake_timeout"), "{said}");
    assert_eq!(silent.closed().0, 1001);

    let mut large = connect();
    large.initialize(json!({})).unwrap();
    large.send(&format!("\"{}\"", "x".repeat(64 << 10)));
    let limit = "the message is over the limit (limits.line_bytes)";
    assert_eq!(large.closed(), (1009, limit.to_owned()));

    let mut odd = connect();
    odd.initialize(json!({})).unwrap();
    odd.send("{");
    assert_eq!(odd.receive()["error"]["code"], -32700);
    odd.send("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}]");
    assert_eq!(odd.receive()["error"]["code"], -32600);
    // No other framing is looked for, and line ends are white space.
    odd.send("Content-Length: 2\r\n\r\n{}");
    assert_eq!(odd.receive()["error"]["code"], -32700);
    odd.socket.send(Message::binary(vec![0, 1, 2])).unwrap();
    odd.send("{\"jsonrpc\":\"2.0\",\n\"id\":7,\r\n\"method\":\"session/list\",\"params\":{}}");
    assert_eq!(odd.receive()["id"], 7);

    // One that does not answer a ping is let go; one that does stays.
    let begin = Instant::now();
    let mut quiet = connect();
    quiet.initialize(json!({})).unwrap();
    while begin.elapsed() < Duration::from_millis(1500) {
        let message = quiet.socket.read().unwrap();
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        quiet.socket.flush().unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    let why = "nothing was heard of you for too long";
    assert_eq!(quiet.closed(), (1001, why.to_owned()));
}

#[test]
fn one_that_dribbles_its_request_is_let_go() {
    let setup = Setup::host().config("[server]\nhandshake_timeout = \"500ms\"\nconnections = 3\n");
    let web = Web::start(&setup);
    for beginning in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nS",
        "GET / HTTP/1.1\r\nHost: local",
    ] {
        let mut stream = web.connect();
        stream.write_all(beginning.as_bytes()).unwrap();
        let begin = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(begin.elapsed() < Duration::from_secs(5), "{beginning:?}");
    }
    // Whoever shows the token takes a place, and gives it back.
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = web.connect();
            let request = format!(
                "GET /metrics HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\r\n",
                web.address,
                web.bearer()
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let response = web.request("GET /healthz", &[], "");
    let full = "all 3 connections are in use (server.connections)\n";
    assert_eq!((response.status, response.body.as_str()), (503, full));
    drop(held);
    assert!(wait_until(
        || web.request("GET /healthz", &[], "").status == 200
    ));
}
