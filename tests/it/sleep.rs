//! Idle agents and VMs are ended until they are needed, and nobody misses anything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod shared;

/// Longer than anything idle is left awake in these tests.
const LONG: Duration = Duration::from_millis(1500);

/// The step of an agent that can go on with a session.
fn can_resume() -> Value {
    let capabilities = json!({"loadSession": false, "sessionCapabilities": {"resume": {}}});
    json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

fn resumes() -> Value {
    json!({"on": "session/resume", "result": {}})
}

/// A client that hears of agents' ends, sleep and return.
fn connect(setup: &Setup) -> Client {
    let mut client = setup.start();
    client.initialize_offering(json!({"_meta": {"acpbox": {"agentNotifications": true}}}));
    client
}

fn state(client: &mut Client, session: &str) -> String {
    let list = client.call("session/list", json!({})).unwrap();
    let all = list["sessions"].as_array().unwrap();
    let this = all.iter().find(|it| it["sessionId"] == session).unwrap();
    this["_meta"]["acpbox"]["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect()
}

fn status(client: &mut Client) -> Value {
    let list = client.call("_acpbox/vm/list", json!({})).unwrap();
    assert_eq!(list["vms"].as_array().unwrap().len(), 1, "{list}");
    list["vms"][0].clone()
}

#[test]
fn an_idle_agent_sleeps_and_whatever_is_sent_next_wakes_it() {
    let setup = Setup::new().vm("agent_sleep_after = \"300ms\"");
    let mut client = connect(&setup);
    // Its script is a variable of the session's, which is nowhere stored.
    let mode = json!({"on": "session/set_mode", "result": {}});
    let script = [can_resume(), resumes(), mode];
    let session = client.new_session_of(&script);
    client.prompt(&session, "one").unwrap();
    let slept = value(&client.expect("_acpbox/session/sleep"));
    assert_eq!(
        slept["params"],
        json!({"sessionId": session, "reason": "idle"})
    );
    assert_eq!(state(&mut client, &session), "sleeping");
    assert!(!setup.state().join("leases").join(&session).exists());
    assert_eq!(
        status(&mut client)["state"],
        "running",
        "others may need the VM"
    );

    let answer = client.prompt(&session, "two").unwrap();
    let woke = value(&client.expect("_acpbox/session/wake"));
    assert_eq!(
        woke["params"],
        json!({"sessionId": session, "tier": "resume"})
    );
    assert_eq!(state(&mut client, &session), "live");
    client.expect("_acpbox/session/sleep");
    let params = json!({"sessionId": session, "modeId": "plan"});
    client.call("session/set_mode", params).unwrap();
    client.expect("_acpbox/session/wake");

    let events = client.events(&session);
    let seqs: Vec<i64> = events
        .iter()
        .map(|it| it["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>());
    let second = answer["_meta"]["acpbox"]["lastSeq"].as_u64().unwrap() as usize;
    assert_eq!(
        kinds(&events)[second - 5..second],
        [
            "_acpbox/session/sleep",
            "_acpbox/session/restored",
            "_acpbox/session/wake",
            "session/prompt",
            "session/prompt:result",
        ]
    );
    assert!(
        !kinds(&events).contains(&"_acpbox/agent/exit"),
        "sleep is no end"
    );
    // It may have fallen asleep once more, and nothing else was said.
    client.take("_acpbox/session/sleep");
}

#[test]
fn an_agent_that_is_needed_or_could_not_come_back_stays_awake() {
    let setup = Setup::new().vm("agent_sleep_after = \"500ms\"");
    let mut client = connect(&setup);
    let asks = json!({"send": {"jsonrpc": "2.0", "id": 7, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "t"}, "options": []}}});
    let terminal = json!({"send": {"jsonrpc": "2.0", "id": 8, "method": "terminal/create",
        "params": {"sessionId": "$SESSION", "command": "sleep", "args": ["60"]}}});
    let rest = json!({"sleep_ms": LONG.as_millis() as u64});
    let turn = [expect_prompt(), rest, chunk("done"), end_turn()];
    let asking = [expect_prompt(), end_turn(), asks];
    let running = [
        expect_prompt(),
        terminal,
        json!({"expect_answer": 8}),
        end_turn(),
    ];
    let silent = [json!({"expect": "session/set_mode"})];
    let start = |client: &mut Client, steps: &[Value]| {
        client.new_session_of(&[&[can_resume(), resumes()], steps].concat())
    };
    // Each is given something to do at once.
    let in_turn = start(&mut client, &turn);
    let turn = client.request("session/prompt", prompt(&in_turn, "go"));
    let asking = start(&mut client, &asking);
    client.prompt(&asking, "go").unwrap();
    let running = start(&mut client, &running);
    client.prompt(&running, "go").unwrap();
    let waiting = start(&mut client, &silent);
    let params = json!({"sessionId": waiting, "modeId": "plan"});
    let mode = client.request("session/set_mode", params);
    let forgetful = client.new_session_of(&[]);
    let asked = client.expect("session/request_permission");
    std::thread::sleep(LONG);
    assert!(client.take("_acpbox/session/sleep").is_empty());
    for session in [&in_turn, &asking, &running, &waiting, &forgetful] {
        assert_eq!(state(&mut client, session), "live");
    }
    client.answer(turn).unwrap();
    assert_eq!(client.texts(), ["done"]);

    // Once it is answered, and the turn is over, they are idle too.
    client.respond(&asked, r#"{"outcome":{"outcome":"cancelled"}}"#);
    let mut slept = [(); 2].map(|()| {
        let line = value(&client.expect("_acpbox/session/sleep"));
        line["params"]["sessionId"].as_str().unwrap().to_owned()
    });
    slept.sort();
    let mut expected = [in_turn, asking];
    expected.sort();
    assert_eq!(slept, expected);
    let ended = json!({"sessionId": waiting});
    client.call("session/close", ended).unwrap();
    client.answer(mode).unwrap_err();
    client.expect("_acpbox/agent/exit");
}

#[test]
fn a_vm_that_nobody_is_in_sleeps_and_keeps_its_disk() {
    let setup = Setup::new().vm("sleep_after = \"400ms\"");
    let mut client = connect(&setup);
    let session = client.new_session();
    let running = status(&mut client);
    assert_eq!(running["state"], "running");
    assert!(
        running["lastActivity"].is_i64() && running["idleSince"].is_null(),
        "{running}"
    );
    let disk = setup
        .state()
        .join("vms")
        .join(running["name"].as_str().unwrap());
    std::fs::write(disk.join("home/note"), "kept").unwrap();
    // While a client is attached it runs on.
    std::thread::sleep(LONG);
    assert_eq!(status(&mut client)["state"], "running");
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    assert!(wait_until(|| status(&mut client)["state"] == "sleeping"));
    assert_eq!(status(&mut client)["liveSessions"], 0);
    client.take("_acpbox/agent/exit");

    // A prompt to the closed session boots it again.
    client.prompt(&session, "on").unwrap();
    assert_eq!(status(&mut client)["state"], "running");
    assert_eq!(
        std::fs::read_to_string(disk.join("home/note")).unwrap(),
        "kept"
    );
    client.take_rest();
}

#[test]
fn a_vm_sleeps_on_request_but_not_under_a_turn() {
    let setup = Setup::new();
    let mut client = connect(&setup);
    let quiet = client.new_session_of(&[can_resume(), resumes()]);
    let steps = [expect_prompt(), chunk("half"), json!({"hang": true})];
    let busy = client.new_session_of(&[&[can_resume(), resumes()], &steps[..]].concat());
    let turn = client.request("session/prompt", prompt(&busy, "go"));
    client.expect("session/update");
    let name = status(&mut client)["name"].clone();
    let sleep = |client: &mut Client, force: bool| {
        client.call("_acpbox/vm/sleep", json!({"name": name, "force": force}))
    };
    let refused = sleep(&mut client, false).unwrap_err();
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains(&busy) && message.contains("a turn runs"),
        "{refused}"
    );
    assert!(refused["data"]["hint"].as_str().unwrap().contains("force"));
    assert_eq!(state(&mut client, &quiet), "live", "nothing was ended");

    let slept = sleep(&mut client, true).unwrap();
    assert_eq!(slept["state"], "sleeping");
    let error = client.answer(turn).unwrap_err();
    assert!(
        error["message"].as_str().unwrap().contains("put to sleep"),
        "{error}"
    );
    for _ in 0..2 {
        let slept = value(&client.expect("_acpbox/session/sleep"));
        assert_eq!(slept["params"]["reason"], "asked");
    }
    let events = client.events(&busy);
    let end = events
        .iter()
        .find(|it| it["kind"] == "_acpbox/turn/end")
        .unwrap();
    assert_eq!(end["message"]["params"]["reason"], "sleep");

    let woken = client
        .call("_acpbox/vm/wake", json!({"name": name}))
        .unwrap();
    assert_eq!(woken["state"], "running");
    assert_eq!(woken["liveSessions"], 0);
    assert!(
        woken["idleSince"].is_null(),
        "its sessions are followed: {woken}"
    );
    client.prompt(&quiet, "on").unwrap();
    client.expect("_acpbox/session/wake");
    // Without a turn nobody needs to be forced.
    assert_eq!(sleep(&mut client, false).unwrap()["state"], "sleeping");
    client.expect("_acpbox/session/sleep");
    let deleted = client
        .call("_acpbox/vm/delete", json!({"name": name}))
        .unwrap();
    assert_eq!(deleted, json!({"deleted": true}));
    assert!(
        !setup
            .state()
            .join("vms")
            .join(name.as_str().unwrap())
            .exists()
    );
}
