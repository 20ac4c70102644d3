//! What agents tell of tokens and costs is added up, over turns and processes.

use serde_json::{Value, json};

use super::fill;
use crate::cli::Place;
use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::expect_prompt;

/// A turn that tells a cost as the agent sums it, and these tokens.
fn turn(cost: f64, usage: &Value) -> Vec<Value> {
    let update = json!({"sessionUpdate": "usage_update", "used": 100, "size": 1000,
        "cost": {"amount": cost, "currency": "USD"}});
    let update = json!({"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": update}});
    let result = format!(
        r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"stopReason":"end_turn","usage":{usage}}}}}"#
    );
    vec![
        expect_prompt(),
        json!({"send": update}),
        json!({"send": result}),
    ]
}

fn tokens(input: u64, output: u64) -> Value {
    json!({"totalTokens": input + output, "inputTokens": input, "outputTokens": output,
        "cachedReadTokens": 1, "thoughtTokens": null})
}

fn listed(client: &mut Client, session: &str) -> Value {
    let list = client.call("session/list", json!({})).unwrap();
    let mut sessions = list["sessions"].as_array().unwrap().iter();
    let found = sessions.find(|it| it["sessionId"] == session).unwrap();
    found["_meta"]["acpbox"]["usage"].clone()
}

fn can_resume() -> Value {
    let capabilities = json!({"sessionCapabilities": {"resume": {}}});
    json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

#[test]
fn usage_adds_up_over_turns_restarts_and_restores() {
    let setup = Setup::host();
    let (one, two) = (turn(0.25, &tokens(10, 5)), turn(0.5, &tokens(20, 7)));
    setup.script(&[one.clone(), two].concat());
    let mut client = setup.connect();
    let session = client.new_session();
    let other = client.new_session();
    client.prompt(&session, "one").unwrap();
    client.prompt(&session, "two").unwrap();
    client.prompt(&other, "one").unwrap();
    client.updates();
    let expected = json!({"turns": 2, "totalTokens": 42, "inputTokens": 30, "outputTokens": 12,
        "thoughtTokens": 0, "cachedReadTokens": 2, "cachedWriteTokens": 0,
        "contextUsed": 100, "contextSize": 1000,
        "costs": [{"amount": 0.5, "currency": "USD"}]});
    assert_eq!(listed(&mut client, &session), expected);
    assert_eq!(listed(&mut client, &other)["totalTokens"], 15);
    drop(client);

    // The agent goes on with its sum in a new process; the turns before it count once.
    let more = turn(0.75, &tokens(1, 1));
    setup.script(&[&[can_resume()], &more[..]].concat());
    let mut client = setup.connect();
    assert_eq!(listed(&mut client, &session), expected);
    let params = json!({"sessionId": session, "cwd": setup.workspace(), "mcpServers": []});
    let on_resume = json!({"on": "session/resume", "result": {}});
    setup.script(&[&[can_resume(), on_resume.clone()], &more[..]].concat());
    let resumed = client.call("session/resume", params.clone()).unwrap();
    let ours = &resumed["_meta"]["acpbox"];
    assert_eq!(ours["restored"]["tier"], "resume");
    assert_eq!(ours["usage"], expected, "it is told at once");
    client.prompt(&session, "three").unwrap();
    client.updates();
    let usage = listed(&mut client, &session);
    assert_eq!(
        (&usage["turns"], &usage["totalTokens"]),
        (&json!(3), &json!(44))
    );
    assert_eq!(usage["costs"][0]["amount"], 0.75);
    drop(client);

    // One that begins at zero, and one that knows nothing any more.
    setup.script(&[&[can_resume(), on_resume], &turn(0.25, &tokens(1, 1))[..]].concat());
    let mut client = setup.connect();
    client.prompt(&session, "four").unwrap();
    client.updates();
    assert_eq!(listed(&mut client, &session)["costs"][0]["amount"], 1.0);
    drop(client);
    setup.script(&turn(2.0, &tokens(1, 1)));
    let mut client = setup.connect();
    client.prompt(&session, "five").unwrap();
    client.updates();
    let usage = listed(&mut client, &session);
    assert_eq!(usage["costs"][0]["amount"], 3.0);
    assert_eq!(
        (&usage["turns"], &usage["totalTokens"]),
        (&json!(5), &json!(48))
    );
    assert_eq!(
        listed(&mut client, &other)["turns"],
        1,
        "the other's are its own"
    );
}

#[test]
fn what_a_killed_process_did_not_add_up_is_added_later() {
    let setup = Setup::host();
    let [prompt, update, result] = &turn(0.5, &tokens(20, 7))[..] else {
        unreachable!("a turn has three steps")
    };
    // The cost has come, and the turn goes on.
    setup.script(&[prompt.clone(), update.clone(), json!({"hang": true})]);
    let mut client = setup.connect();
    let session = client.new_session();
    client.request(
        "session/prompt",
        json!({"sessionId": session, "prompt": [{"type": "text", "text": "one"}]}),
    );
    client.expect("session/update");
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    drop(client);
    setup.script(&[prompt.clone(), result.clone()]);
    let mut client = setup.connect();
    client.prompt(&session, "two").unwrap();
    let usage = listed(&mut client, &session);
    assert_eq!(usage["costs"], json!([{"amount": 0.5, "currency": "USD"}]));
    assert_eq!(usage["turns"], 1);
}

#[test]
fn commands_show_what_was_used() {
    let place = Place::new();
    let mut row = super::row("01a20000-0000-7000-8000-000000000001", 1000);
    row.usage = r#"{"through":9,"turns":2,"total":42,"input":30,"output":12,"context":[7,8],
        "costs":[{"currency":"USD","earlier":0.5,"now":0.25}]}"#
        .into();
    let untold = super::row("01a20000-0000-7000-8000-000000000002", 1001);
    let id = row.id.clone();
    fill(
        &place.file("state/acpbox/acpbox.db"),
        &[(row, 0), (untold, 0)],
    );
    let shown = place.acpbox(&["sessions", "show", &id]).expect(0).stdout;
    assert!(
        shown.ends_with(
            "usage: 42 tokens in 2 turns (30 input, 12 output) · context 7 of 8 · 0.7500 USD\n"
        ),
        "{shown}"
    );
    let list = place
        .acpbox(&["sessions", "list", "--json"])
        .expect(0)
        .json();
    assert_eq!(list[0].get("usage"), None);
    assert_eq!(list[1]["usage"]["totalTokens"], 42);
    assert_eq!(list[1]["usage"]["costs"][0]["amount"], 0.75);
}
