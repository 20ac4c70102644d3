//! Sessions that go on from where another one is, or was.

use acpbox::store::{SessionRow, Store};
use serde_json::{Value, json};

use crate::support::client::{Client, value};
use crate::support::scripted::script;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

fn turns(answers: &[&str]) -> Vec<Value> {
    let turn = |answer: &&str| [expect_prompt(), chunk(answer), end_turn()];
    answers.iter().flat_map(turn).collect()
}

fn fork(client: &mut Client, session: &str, options: Value) -> Result<Value, Value> {
    let mut params = client.new_params();
    params["sessionId"] = session.into();
    params["_meta"] = json!({"acpbox": options});
    client.call("session/fork", params)
}

fn id(result: &Value) -> String {
    result["sessionId"].as_str().unwrap().to_owned()
}

/// What agents were sent with a method.
fn sent(setup: &Setup, method: &str) -> Vec<Value> {
    let lines = setup.received();
    let such = lines.iter().map(|line| value(line));
    such.filter(|line| line["method"] == method)
        .map(|mut line| line["params"].take())
        .collect()
}

#[test]
fn a_fork_has_the_same_past_and_a_future_of_its_own() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&turns(&["a1", "a2"]));
    let source = client.new_session();
    client.prompt(&source, "u1").unwrap();
    client.updates();
    let before = client.events(&source);
    let mut script = vec![setup.record()];
    script.extend(turns(&["f2"]));
    setup.script(&script);
    let forked = fork(&mut client, &source, json!({})).unwrap();
    let fork_id = id(&forked);
    assert_ne!(fork_id, source);
    let meta = &forked["_meta"]["acpbox"];
    assert_eq!(
        meta["forkedFrom"],
        json!({"sessionId": source, "seq": before.len()})
    );
    assert_eq!(meta["restored"]["tier"], "new");
    assert_eq!(
        meta["restored"]["reasons"][0],
        "the agent does not offer session/fork"
    );
    // Both go on, each with an agent of its own.
    client.prompt(&fork_id, "to the fork").unwrap();
    assert_eq!(client.updates_of(&fork_id).len(), 1);
    client.prompt(&source, "to the source").unwrap();
    assert_eq!(client.updates_of(&source).len(), 1);
    let prompt = sent(&setup, "session/prompt").pop().unwrap();
    let told = prompt["prompt"][0]["text"].as_str().unwrap();
    assert!(told.contains("\nu1\n") && told.contains("\na1\n"), "{told}");
    // The same numbers, times and messages, but for the name.
    let events = client.events(&fork_id);
    let copied = Value::from(events[..before.len()].to_vec()).to_string();
    assert_eq!(
        copied.replace(&fork_id, &source),
        Value::from(before.clone()).to_string()
    );
    assert!(!copied.contains(&source), "{copied}");
    assert!(
        !Value::from(client.events(&source))
            .to_string()
            .contains("to the fork")
    );
    let list = client.call("session/list", json!({})).unwrap();
    let of = |id: &str| {
        let sessions = list["sessions"].as_array().unwrap();
        sessions
            .iter()
            .find(|it| it["sessionId"] == id)
            .unwrap()
            .clone()
    };
    assert_eq!(of(&source)["title"], "u1");
    assert_eq!(of(&fork_id)["title"], "u1 (fork)");
    assert_eq!(
        of(&fork_id)["_meta"]["acpbox"]["forkedFrom"],
        meta["forkedFrom"]
    );
    // The source may go.
    client
        .call("session/delete", json!({"sessionId": source}))
        .unwrap();
    drop(client);
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["sessionId"] = fork_id.as_str().into();
    let loaded = client.call("session/load", params).unwrap();
    assert_eq!(loaded["_meta"]["acpbox"]["forkedFrom"], meta["forkedFrom"]);
    assert_eq!(client.texts(), ["u1", "a1", "to the fork", "f2"]);
}

#[test]
fn a_fork_from_an_earlier_point_knows_nothing_of_what_came_after() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut steps = vec![setup.record()];
    steps.extend(turns(&["a1", "a2"]));
    setup.script(&steps);
    let source = client.new_session();
    client.prompt(&source, "u1").unwrap();
    let first = client.prompt(&source, "u2").unwrap()["_meta"]["acpbox"]["lastSeq"].as_i64();
    client.updates();
    let at = first.unwrap() - 3;
    let forked = fork(&mut client, &source, json!({"seq": at})).unwrap();
    let fork_id = id(&forked);
    assert_eq!(forked["_meta"]["acpbox"]["forkedFrom"]["seq"], at);
    client.prompt(&fork_id, "u3").unwrap();
    client.updates();
    let prompt = sent(&setup, "session/prompt").pop().unwrap();
    let told = prompt["prompt"][0]["text"].as_str().unwrap();
    assert!(
        told.contains("\na1\n") && !told.contains("u2") && !told.contains("a2"),
        "{told}"
    );
    for seq in [0, 1000] {
        let error = fork(&mut client, &source, json!({"seq": seq})).unwrap_err();
        assert_eq!(error["code"], -32602);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("`_meta.acpbox.seq`"),
            "{error}"
        );
    }
    let error = fork(&mut client, "no-such-session", json!({})).unwrap_err();
    assert_eq!(error["code"], -32002);
}

#[test]
fn an_agent_that_can_fork_does_so_in_a_process_of_its_own() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let capable = json!({"on": "initialize", "result": {"protocolVersion": 1,
        "agentCapabilities": {"sessionCapabilities": {"fork": {}, "resume": {}}}}});
    let mut steps = vec![
        setup.record(),
        capable,
        json!({"on": "session/fork", "result": {"sessionId": "forked", "x": 1.0}}),
        json!({"on": "session/resume", "result": {}}),
    ];
    steps.extend(turns(&["a1"]));
    setup.script(&steps);
    let source = client.new_session();
    client.prompt(&source, "u1").unwrap();
    client.updates();
    let forked = fork(&mut client, &source, json!({})).unwrap();
    let restored = &forked["_meta"]["acpbox"]["restored"];
    assert_eq!(restored["tier"], "fork");
    assert_eq!(restored["agentSession"], "forked");
    assert!(restored["preamble"].is_null() && restored["reasons"].is_null());
    assert_eq!(forked["x"], 1.0, "what else the agent says is passed on");
    let asked = sent(&setup, "session/fork");
    assert_eq!(asked[0]["sessionId"], "testy-session");
    assert_eq!(asked[0]["cwd"], json!(setup.workspace()));
    assert_eq!(sent(&setup, "initialize").len(), 2);
    let fork_id = id(&forked);
    client.prompt(&fork_id, "u2").unwrap();
    let prompt = sent(&setup, "session/prompt").pop().unwrap();
    assert_eq!(prompt["sessionId"], "forked");
    assert_eq!(prompt["prompt"], json!([{"type": "text", "text": "u2"}]));
    // An earlier point is not what the agent would fork at.
    let earlier = fork(&mut client, &source, json!({"seq": 3})).unwrap();
    let restored = &earlier["_meta"]["acpbox"]["restored"];
    assert_eq!(restored["tier"], "new");
    assert!(
        restored["reasons"][0]
            .as_str()
            .unwrap()
            .contains("would not end at"),
        "{restored}"
    );
    client.take_rest();
    drop(client);
    // It comes back as what it became.
    let mut client = setup.connect();
    client.prompt(&fork_id, "u3").unwrap();
    client.updates();
    assert_eq!(
        sent(&setup, "session/resume").pop().unwrap()["sessionId"],
        "forked"
    );
}

#[test]
fn a_fork_during_a_turn_is_made_from_the_transcript_and_another_agent_may_go_on() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let capable = json!({"on": "initialize", "result": {"protocolVersion": 1,
        "agentCapabilities": {"sessionCapabilities": {"fork": {}}}}});
    setup.script(&[
        setup.record(),
        capable,
        expect_prompt(),
        chunk("half"),
        json!({"expect": "go"}),
        end_turn(),
    ]);
    let source = client.new_session();
    let turn = client.request(
        "session/prompt",
        json!({"sessionId": source, "prompt": [{"type": "text", "text": "u1"}]}),
    );
    client.expect("session/update");
    let forked = fork(&mut client, &source, json!({})).unwrap();
    let restored = &forked["_meta"]["acpbox"]["restored"];
    assert!(
        restored["reasons"][0]
            .as_str()
            .unwrap()
            .contains("a turn runs"),
        "{restored}"
    );
    let options = json!({"agent": "inline", "env": {"TESTY_SCRIPT": script(&[setup.record()])}});
    let other = fork(&mut client, &source, options).unwrap();
    assert_eq!(other["_meta"]["acpbox"]["agent"], "inline");
    client.prompt(&id(&other), "u2").unwrap();
    let prompt = sent(&setup, "session/prompt").pop().unwrap();
    assert!(
        prompt["prompt"][0]["text"]
            .as_str()
            .unwrap()
            .contains("\nhalf\n")
    );
    client.notify("go", json!({"sessionId": source}));
    client.answer(turn).unwrap();
    client.updates();
}

#[test]
fn a_fork_that_fails_leaves_nothing_behind() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let source = client.new_session();
    client.prompt(&source, "u1").unwrap();
    setup.script(&[json!({"on": "session/new", "error": {"code": -9, "message": "no room"}})]);
    let error = fork(&mut client, &source, json!({})).unwrap_err();
    assert!(
        error["message"].as_str().unwrap().contains("no room"),
        "{error}"
    );
    let list = client.call("session/list", json!({})).unwrap();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
    setup.script(&[]);
    fork(&mut client, &source, json!({})).unwrap();
}

#[test]
fn a_fork_that_was_cut_short_is_completed_when_it_is_used() {
    let setup = Setup::new();
    let mut client = setup.connect();
    setup.script(&turns(&["a1"]));
    let source = client.new_session();
    client.prompt(&source, "u1").unwrap();
    client.updates();
    let count = client.events(&source).len();
    drop(client);
    let cut = "0199aaaa-0000-7000-8000-000000000001";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&setup.state().join("acpbox.db")).unwrap();
        let row = store.session(&source).await.unwrap().unwrap();
        let mut options: Value = serde_json::from_str(&row.options).unwrap();
        options["forkedFrom"] = json!({"sessionId": source, "seq": count});
        let row = SessionRow {
            id: cut.into(),
            state: "forking".into(),
            agent_session: None,
            options: options.to_string(),
            ..row
        };
        store.create_session(&row).await.unwrap();
        store.close().await.unwrap();
    });
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["sessionId"] = cut.into();
    client.call("session/load", params).unwrap();
    assert_eq!(client.texts(), ["u1", "a1"]);
    assert!(client.events(cut).len() > count);
}
