//! ACP by POST and event streams: what goes where, what is refused, and streams
//! that break and go on.

use std::time::Duration;

use serde_json::{Value, json};

use super::Web;
use super::events::text_of;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// A step that asks for a permission.
fn ask() -> Value {
    json!({"send": {"jsonrpc": "2.0", "id": "p1", "method": "session/request_permission", "params": {
        "sessionId": "$SESSION", "toolCall": {"toolCallId": "t1", "title": "T"},
        "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]}}})
}

/// A step that does another one so often.
fn repeated(count: usize, mut step: Value) -> Value {
    step["repeat"] = count.into();
    step
}

#[test]
fn each_message_comes_on_its_own_stream() {
    let setup = Setup::new();
    setup.script(&[
        expect_prompt(),
        chunk("a"),
        ask(),
        json!({"expect_answer": "p1"}),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let mut remote = web.remote();
    let mut own = remote.events(None, None);
    let session = remote.new_session(&mut own, &setup);
    let mut events = remote.events(Some(&session), None);
    let id = remote.send(Some(&session), "session/prompt", prompt(&session, "u"));
    let update = events.next().unwrap();
    assert_eq!(text_of(&update.message).unwrap(), "a");
    let seq = update.message["params"]["_meta"]["acpbox"]["seq"].to_string();
    assert_eq!(update.id.unwrap(), seq);
    let asked = events.next().unwrap();
    assert_eq!(asked.message["method"], "session/request_permission");
    assert_eq!(asked.id.unwrap(), format!("{seq}.1"));

    // Its answer must be about the session that asked.
    let outcome = json!({"outcome": {"outcome": "selected", "optionId": "yes"}});
    let answer = json!({"jsonrpc": "2.0", "id": asked.message["id"], "result": outcome});
    let connection_id = remote.id.clone();
    let connection = ("Acp-Connection-Id", connection_id.as_str());
    let other = [connection, ("Acp-Session-Id", "other")];
    let response = web.post(&other, &answer.to_string());
    let mismatch = "`Acp-Session-Id` is not the session of the message\n";
    assert_eq!((response.status, response.body.as_str()), (400, mismatch));
    // Its id tells which that is, if no header does.
    remote.post(None, &answer);
    let (texts, result) = events.answer(id);
    assert!(texts.is_empty());
    assert_eq!(result["stopReason"], "end_turn");

    // A session that is loaded says so on the connection's stream.
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    let id = remote.send(Some(&session), "session/load", params);
    assert_eq!(own.answer(id).0.len(), 0);
    let texts = [events.next().unwrap(), events.next().unwrap()];
    assert_eq!(
        texts.map(|event| text_of(&event.message).unwrap()),
        ["u", "a"]
    );
    // Who names the session in the message only is answered there too.
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    for (method, count) in [("session/load", 2), ("session/resume", 0)] {
        let id = remote.send(None, method, params.clone());
        assert_eq!(own.answer(id).1["sessionId"], session.as_str());
        for _ in 0..count {
            assert!(text_of(&events.next().unwrap().message).is_some());
        }
    }
    let asking = json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt", "params": prompt(&session, "u")});
    let response = web.post(&[connection], &asking.to_string());
    assert_eq!(
        (response.status, response.body.as_str()),
        (400, "`acp-session-id` is missing\n")
    );

    let response = web.request(
        "DELETE /acp",
        &[("Authorization", &web.bearer()), connection],
        "",
    );
    assert_eq!((response.status, response.body.as_str()), (202, ""));
    assert!(own.next().is_none() && events.next().is_none());
    assert!(wait_until(|| web
        .post(
            &[connection],
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}"
        )
        .status
        == 404));
}

#[test]
fn wrong_requests_are_refused_with_what_is_wrong() {
    let setup = Setup::host().limits("line_bytes = \"128KiB\"");
    let web = Web::start(&setup);
    let remote = web.remote();
    let connection = ("Acp-Connection-Id", remote.id.as_str());
    let message = |method: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}).to_string()
    };
    let check = |headers: &[(&str, &str)], body: &str, status: u16, said: &str| {
        let response = web.post(headers, body);
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, said),
            "{body:.100}"
        );
    };
    let unknown = "this `Acp-Connection-Id` is unknown, or its connection has ended: begin with `initialize`\n";
    check(
        &[("Acp-Connection-Id", "x")],
        &message("session/list"),
        404,
        unknown,
    );
    check(
        &[],
        &message("session/list"),
        400,
        "`acp-connection-id` is missing\n",
    );
    check(
        &[connection],
        &message("initialize"),
        400,
        "this connection is initialized already\n",
    );
    check(
        &[connection],
        &message("session/prompt"),
        400,
        "`acp-session-id` is missing\n",
    );
    let too_long = format!("\"{}\"", "x".repeat(128 << 10));
    let over = "the message is over the limit of 131072 bytes (limits.line_bytes)\n";
    check(&[connection], &too_long, 413, over);
    check(
        &[connection],
        "{\"id\":1,\"method\":\"x\"}",
        400,
        "`jsonrpc` must be \"2.0\"\n",
    );
    let batch = web.post(&[connection], "[]");
    assert_eq!(batch.status, 501);
    let batch: Value = serde_json::from_str(&batch.body).unwrap();
    assert_eq!(
        (batch["error"]["code"].as_i64(), &batch["id"]),
        (Some(-32600), &Value::Null)
    );
    let said = batch["error"]["message"].as_str().unwrap();
    assert!(said.contains("batches"));
    let broken = web.post(&[connection], "{");
    assert_eq!((broken.status, broken.body.contains("-32700")), (400, true));

    let raw = |line: &str, headers: &[(&str, &str)], body: &str, status: u16, said: &str| {
        let response = web.request(line, headers, body);
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, said),
            "{line} {headers:?}"
        );
    };
    let bearer = web.bearer();
    let token = ("Authorization", bearer.as_str());
    let kind = "`Content-Type` must be application/json\n";
    raw(
        "POST /acp",
        &[token, ("Content-Type", "text/plain")],
        "{}",
        415,
        kind,
    );
    raw("POST /acp", &[token], "{}", 415, kind);
    let accept = "`Accept` must have text/event-stream; or ask for a WebSocket\n";
    raw("GET /acp", &[token, connection], "", 406, accept);
    let events = ("Accept", "application/json, text/event-stream");
    raw(
        "GET /acp",
        &[token, events],
        "",
        400,
        "`acp-connection-id` is missing\n",
    );
    raw(
        "GET /acp",
        &[token, events, ("Acp-Connection-Id", "x")],
        "",
        404,
        unknown,
    );
    let session = ("Acp-Session-Id", "019a0000-0000-7000-8000-000000000000");
    let nobody_knows = "there is no session of this `Acp-Session-Id`\n";
    raw(
        "GET /acp",
        &[token, events, connection, session],
        "",
        404,
        nobody_knows,
    );
    let prompt = json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt",
        "params": {"sessionId": session.1, "prompt": []}});
    check(
        &[connection, session],
        &prompt.to_string(),
        404,
        nobody_knows,
    );
    let last = "`Last-Event-ID` must be the `id` of an event of this stream\n";
    raw(
        "GET /acp",
        &[token, events, connection, ("Last-Event-ID", "x")],
        "",
        400,
        last,
    );
    raw(
        "PUT /acp",
        &[token],
        "",
        405,
        "only GET, POST and DELETE are for here\n",
    );

    // Without the token nothing of it is done, also with somebody's connection.
    let missing =
        "`Authorization: Bearer TOKEN` is missing: clients of this address must know its token\n";
    let json_type = ("Content-Type", "application/json");
    raw(
        "POST /acp",
        &[json_type, connection],
        &message("session/list"),
        401,
        missing,
    );
    raw("GET /acp", &[events, connection], "", 401, missing);
    raw("DELETE /acp", &[connection], "", 401, missing);
    let first = "the first message must be `initialize`, and the token must come with it\n";
    raw(
        "POST /acp",
        &[json_type],
        &message("session/list"),
        401,
        first,
    );
    let over = "the message is over the limit of 65536 bytes for one who has not shown the token\n";
    raw("POST /acp", &[json_type], &too_long, 413, over);
    let initialize = |token: &str| {
        let meta = json!({"acpbox": {"token": token}});
        let params = json!({"protocolVersion": 1, "_meta": meta});
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string()
    };
    let wrong = "the token in `_meta.acpbox.token` is wrong\n";
    raw("POST /acp", &[json_type], &initialize("x"), 401, wrong);
    // With it in `initialize`, the connection's id stands for it.
    let response = web.request("POST /acp", &[json_type], &initialize(&web.token));
    assert_eq!(response.status, 200);
    let id = response.header("acp-connection-id").unwrap();
    let own = ("Acp-Connection-Id", id);
    raw(
        "POST /acp",
        &[json_type, own],
        &message("session/list"),
        202,
        "",
    );
    raw(
        "POST /acp",
        &[json_type, own, ("Authorization", "Bearer x")],
        "{}",
        401,
        "the token in `Authorization` is wrong\n",
    );

    // One stream of a kind at a time; who knows where it broke takes it over.
    let mut first = remote.events(None, None);
    assert_eq!(remote.try_events(None, None).err(), Some(409));
    let mut second = remote.events(None, Some("0"));
    assert!(first.next().is_none());
    remote.post(
        None,
        &serde_json::from_str(&message("session/list")).unwrap(),
    );
    assert_eq!(second.next().unwrap().message["id"], 1);
}

#[test]
fn a_stream_that_breaks_goes_on_where_it_broke() {
    const CHUNKS: usize = 4000;
    let setup = Setup::new();
    setup.script(&[
        expect_prompt(),
        repeated(CHUNKS / 2, chunk("c$N ")),
        ask(),
        json!({"expect_answer": "p1"}),
        repeated(CHUNKS / 2, chunk("d$N ")),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let mut remote = web.remote();
    let mut own = remote.events(None, None);
    let session = remote.new_session(&mut own, &setup);
    let mut events = remote.events(Some(&session), None);
    let id = remote.send(Some(&session), "session/prompt", prompt(&session, "u"));
    let mut random = Random::new();
    let (mut texts, mut asked, mut breaks) = (Vec::new(), 0, 0);
    let mut last = None;
    'turn: loop {
        // The first breaks come right where requests and answers are.
        let count = match breaks {
            0 => 3,
            _ => 1 + random.below(CHUNKS / 20),
        };
        for _ in 0..count {
            let event = events.next().expect("the stream ended");
            last = event.id.or(last);
            let message = event.message;
            if message.get("method").is_none() {
                assert_eq!(message["id"], id);
                break 'turn;
            }
            if message["method"] == "session/request_permission" {
                asked += 1;
                // It breaks before the answer is sent, and with the request just read.
                drop(events);
                events = remote.events(Some(&session), last.as_deref());
                let outcome = json!({"outcome": {"outcome": "selected", "optionId": "yes"}});
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": outcome});
                remote.post(Some(&session), &answer);
            }
            texts.extend(text_of(&message));
        }
        breaks += 1;
        drop(events);
        events = remote.events(Some(&session), last.as_deref());
    }
    let halves = ["c", "d"].map(|half| (0..CHUNKS / 2).map(move |n| format!("{half}{n} ")));
    let expected: Vec<String> = halves.into_iter().flatten().collect();
    assert_eq!(
        texts.len(),
        expected.len(),
        "after {breaks} breaks ({})",
        random.seed
    );
    assert_eq!(texts, expected, "after {breaks} breaks ({})", random.seed);
    assert_eq!(asked, 1, "({})", random.seed);
    assert!(breaks >= 20, "{breaks}");
    // What was sent last is sent again to one that has not seen it.
    drop(events);
    let before = last.unwrap().split('.').next().unwrap().to_owned();
    let mut events = remote.events(Some(&session), Some(&before));
    assert_eq!(events.next().unwrap().message["id"], id);
}

#[test]
fn a_client_that_comes_back_on_another_connection_reads_on() {
    let setup = Setup::new();
    setup.script(&[
        expect_prompt(),
        repeated(500, chunk("c$N ")),
        json!({"expect": "_test/go"}),
        repeated(500, chunk("d$N ")),
        end_turn(),
    ]);
    let mut web = Web::start(&setup);
    let mut first = web.remote();
    let mut own = first.events(None, None);
    let session = first.new_session(&mut own, &setup);
    let mut events = first.events(Some(&session), None);
    first.send(Some(&session), "session/prompt", prompt(&session, "u"));
    let mut last = None;
    for _ in 0..123 {
        last = events.next().unwrap().id;
    }
    drop((events, own));
    let bearer = web.bearer();
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Acp-Connection-Id", first.id.as_str()),
    ];
    assert_eq!(web.request("DELETE /acp", &headers, "").status, 202);

    let mut second = web.remote();
    let mut events = second.events(Some(&session), last.as_deref());
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    let id = second.send(Some(&session), "session/resume", params);
    let (mut texts, result) = events.answer(id);
    assert_eq!(result["_meta"]["acpbox"]["restored"]["tier"], "attach");
    let go = json!({"jsonrpc": "2.0", "method": "_test/go", "params": {"sessionId": session}});
    second.post(Some(&session), &go);
    while texts.last().is_none_or(|text| text != "d499 ") {
        texts.extend(text_of(&events.next().unwrap().message));
    }
    let expected = (123..500).map(|n| format!("c{n} "));
    let expected: Vec<String> = expected.chain((0..500).map(|n| format!("d{n} "))).collect();
    assert_eq!(texts, expected);
    // Nobody waits for the turn's end, which comes behind the last of its updates.
    web.server.signal(libc::SIGTERM);
    assert_eq!(web.server.exit_code(), Some(0));
}

#[test]
fn what_nobody_reads_is_bounded_and_holds_up_no_turn() {
    const CHUNKS: usize = 3000;
    let setup = Setup::new();
    let long = format!("c$N {}", "x".repeat(4000));
    setup.script(&[expect_prompt(), repeated(CHUNKS, chunk(&long)), end_turn()]);
    let web = Web::start(&setup);
    let mut remote = web.remote();
    let mut own = remote.events(None, None);
    let session = remote.new_session(&mut own, &setup);
    let id = remote.send(Some(&session), "session/prompt", prompt(&session, "u"));
    // 12 MB come, and no stream is open.
    let figure = |name: &str| -> u64 {
        let bearer = web.bearer();
        let text = web
            .request("GET /metrics", &[("Authorization", &bearer)], "")
            .body;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(wait_until(|| figure("acpbox_turns_running") == 1));
    assert!(
        wait_until(|| figure("acpbox_turns_running") == 0),
        "the turn does not end"
    );
    assert_eq!(figure("acpbox_http_clients"), 1);
    let queued = figure("acpbox_http_queued_bytes");
    // The result, once it is there, has up to 4 MiB of the reply's text.
    assert!((500_000..6_000_000).contains(&queued), "{queued}");
    let (texts, result) = remote.events(Some(&session), None).answer(id);
    assert_eq!(result["stopReason"], "end_turn");
    let numbers: Vec<&str> = texts
        .iter()
        .filter_map(|text| text.split(' ').next())
        .collect();
    let expected: Vec<String> = (0..CHUNKS).map(|n| format!("c{n}")).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_client_that_reads_no_stream_is_let_go() {
    let setup = Setup::host().config("[server]\nidle_timeout = \"600ms\"\nkeepalive = \"200ms\"\n");
    let web = Web::start(&setup);
    let (idle, reading) = (web.remote(), web.remote());
    let mut own = reading.events(None, None);
    let is_known = |id: &str| {
        let message = "{\"jsonrpc\":\"2.0\",\"method\":\"_test/x\"}";
        web.post(&[("Acp-Connection-Id", id)], message).status == 202
    };
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!is_known(&idle.id));
    assert!(is_known(&reading.id));
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "session/list", "params": {}});
    reading.post(None, &message);
    assert_eq!(own.next().unwrap().message["id"], 1);
}

/// Numbers that a seed repeats (`ACPBOX_TEST_SEED`).
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new() -> Random {
        let given = std::env::var("ACPBOX_TEST_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
        Random { seed, state: seed }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.state >> 33) as usize % bound
    }
}
