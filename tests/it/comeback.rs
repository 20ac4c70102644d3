//! How sessions come back when something went wrong, or is not as it was.

use serde_json::{Value, json};

use crate::support::client::{Client, value};
use crate::support::scripted::testy;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

mod settings;

fn capable(capabilities: Value) -> Value {
    json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

fn of_all() -> Value {
    capable(json!({"loadSession": true, "sessionCapabilities": {"resume": {}}}))
}

/// A session with one turn, whose acpbox has ended.
fn stored(setup: &Setup) -> String {
    let mut client = setup.connect();
    setup.script(&[expect_prompt(), chunk("a1"), end_turn()]);
    let session = client.new_session();
    client.prompt(&session, "u1").unwrap();
    client.updates();
    session
}

fn load_with(
    client: &mut Client,
    session: &str,
    change: impl Fn(&mut Value),
) -> Result<Value, Value> {
    let mut params = client.new_params();
    params["sessionId"] = session.into();
    change(&mut params);
    client.call("session/resume", params)
}

fn load(client: &mut Client, session: &str) -> Result<Value, Value> {
    load_with(client, session, |_| {})
}

fn restored(result: &Value) -> &Value {
    &result["_meta"]["acpbox"]["restored"]
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
fn a_resume_that_is_not_answered_gives_way_to_a_load_in_a_fresh_process() {
    let setup = Setup::new().limits("session_timeout = \"1s\"");
    let session = stored(&setup);
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/load", "result": {}}),
        json!({"expect": "session/resume"}),
        json!({"sleep_ms": 1200}),
        chunk("late"),
    ]);
    let mut client = setup.connect();
    let loaded = load(&mut client, &session).unwrap();
    assert_eq!(restored(&loaded)["tier"], "load");
    assert_eq!(
        restored(&loaded)["reasons"],
        json!([
            "session/resume failed: the agent `testy` did not answer `session/resume` within 1 s"
        ])
    );
    assert_eq!(sent(&setup, "initialize").len(), 2, "one process each");
    client.prompt(&session, "u2").unwrap();
    assert!(client.texts().is_empty(), "nothing of the first process");
}

#[test]
fn an_agent_that_ends_while_it_loads_is_started_again_for_a_new_session() {
    let setup = Setup::new();
    let session = stored(&setup);
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "error": {"code": -32002, "message": "gone"}}),
        json!({"expect": "session/load"}),
        json!({"exit": 5}),
    ]);
    let mut client = setup.connect();
    let loaded = load(&mut client, &session).unwrap();
    let restored = restored(&loaded);
    assert_eq!(restored["tier"], "new");
    let reasons = restored["reasons"].to_string();
    assert!(
        reasons.contains("session/resume failed: {\\\"code\\\":-32002"),
        "{reasons}"
    );
    assert!(
        reasons.contains("session/load failed") && reasons.contains("exit code 5"),
        "{reasons}"
    );
    assert!(restored["preamble"].is_object());
    assert_eq!(sent(&setup, "initialize").len(), 2);
    client.prompt(&session, "u2").unwrap();
    let prompt = sent(&setup, "session/prompt").pop().unwrap();
    assert!(
        prompt["prompt"][0]["text"]
            .as_str()
            .unwrap()
            .contains("\na1\n")
    );
    // The end of the first process is told, and no number comes twice.
    let events = client.events(&session);
    assert!(
        events
            .iter()
            .any(|event| event["kind"] == "_acpbox/agent/exit")
    );
}

#[test]
fn when_nothing_works_every_reason_is_told_and_nothing_is_forgotten() {
    let setup = Setup::new();
    let session = stored(&setup);
    let error = |words: &str| json!({"code": -7, "message": words});
    setup.script(&[
        of_all(),
        json!({"on": "session/resume", "error": error("no resume")}),
        json!({"on": "session/load", "error": error("no load")}),
        json!({"on": "session/new", "error": error("no new")}),
    ]);
    let mut client = setup.connect();
    let before = client.call("session/list", json!({})).unwrap();
    let error = load(&mut client, &session).unwrap_err();
    let message = error["message"].as_str().unwrap();
    for words in [
        "could not be brought back",
        "no resume",
        "no load",
        "no new",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(error["code"], -7);
    let after = client.call("session/list", json!({})).unwrap();
    assert_eq!(before, after);
    let events = client.events(&session);
    assert!(
        events
            .iter()
            .any(|event| event["kind"] == "agent_message_chunk")
    );
    // The agent's own session is still known.
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": {}}),
    ]);
    let loaded = load(&mut client, &session).unwrap();
    assert_eq!(restored(&loaded)["tier"], "resume");
    assert_eq!(
        sent(&setup, "session/resume")[0]["sessionId"],
        "testy-session"
    );
}

#[test]
fn a_login_that_is_due_is_asked_for_in_the_agents_words() {
    let setup = Setup::new();
    let session = stored(&setup);
    let error = json!({"code": -32000, "message": "log in first"});
    setup.script(&[
        of_all(),
        json!({"on": "session/resume", "error": error}),
        json!({"on": "session/load", "error": error}),
        json!({"on": "session/new", "error": error}),
    ]);
    let mut client = setup.connect();
    assert_eq!(load(&mut client, &session).unwrap_err(), error);
}

#[test]
fn values_that_were_not_stored_are_named_until_they_are_sent_anew() {
    let setup = Setup::new()
        .agent("pass_env = [\"PASSED\"]")
        .variable("PASSED", "x");
    let servers = json!([{"name": "tools", "command": "/bin/true", "args": [],
        "env": [{"name": "KEY", "value": "secret"}]}]);
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["mcpServers"] = servers.clone();
    params["_meta"] = json!({"acpbox": {"env": {"TOKEN": "secret", "PASSED": "secret"}},
        "other": {"kept": 1.0}});
    params["systemPrompt"] = json!("be kind");
    let created = client.call("session/new", params).unwrap();
    let session = created["sessionId"].as_str().unwrap().to_owned();
    client.prompt(&session, "u1").unwrap();
    drop(client);
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": {}}),
    ]);
    let without_servers = |params: &mut Value| {
        params.as_object_mut().unwrap().remove("mcpServers");
    };
    for _ in 0..2 {
        let mut client = setup.connect();
        let loaded = load_with(&mut client, &session, without_servers).unwrap();
        assert_eq!(
            restored(&loaded)["missing"],
            json!(["TOKEN", "mcpServers/tools/env/KEY"])
        );
    }
    let mut client = setup.connect();
    let loaded = load_with(&mut client, &session, |params| {
        params["mcpServers"] = servers.clone();
        params["_meta"] = json!({"acpbox": {"env": {"TOKEN": "secret", "NEW": "secret"}}, "x": 2});
    });
    assert!(restored(&loaded.unwrap())["missing"].is_null());
    let asked = sent(&setup, "session/resume");
    let server = &asked[0]["mcpServers"][0];
    assert_eq!(
        (&server["name"], &server["env"]),
        (&json!("tools"), &json!([]))
    );
    assert_eq!(asked[0]["_meta"], json!({"other": {"kept": 1.0}}));
    assert_eq!(asked[0]["systemPrompt"], "be kind");
    assert_eq!(asked[2]["mcpServers"], servers);
    assert_eq!(asked[2]["_meta"], json!({"x": 2, "other": {"kept": 1.0}}));
    drop(client);
    // What was sent anew is known from now on.
    let mut client = setup.connect();
    let loaded = load_with(&mut client, &session, without_servers).unwrap();
    let missing = restored(&loaded)["missing"].to_string();
    assert!(missing.contains("NEW"), "{missing}");
}

#[test]
fn further_folders_are_kept_and_may_be_others() {
    let setup = Setup::new();
    let folder = |name: &str| {
        let folder = setup.workspace().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        json!([folder])
    };
    let (one, other) = (folder("one"), folder("other"));
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["additionalDirectories"] = one.clone();
    let created = client.call("session/new", params).unwrap();
    let session = created["sessionId"].as_str().unwrap().to_owned();
    drop(client);
    setup.script(&[
        setup.record(),
        of_all(),
        json!({"on": "session/resume", "result": {}}),
    ]);
    for folders in [json!(null), other.clone(), json!([])] {
        let mut client = setup.connect();
        let set = |params: &mut Value| params["additionalDirectories"] = folders.clone();
        load_with(&mut client, &session, set).unwrap();
    }
    let asked = sent(&setup, "session/resume");
    let asked: Vec<_> = asked
        .iter()
        .map(|it| &it["additionalDirectories"])
        .collect();
    assert_eq!(asked, [&one, &other, &other]);
}

#[test]
fn a_session_whose_folder_is_gone_says_so_and_goes_on_where_it_is_now() {
    let setup = Setup::new();
    let program = toml::Value::from(testy().display().to_string());
    let setup = setup.config(&format!(
        "[agents.plain]\ncommand = {program}\nenv = {{ TESTY_SCRIPT = \"\" }}\n"
    ));
    let folder = |name: &str| setup.path().join("projects").join(name);
    std::fs::create_dir_all(folder("old")).unwrap();
    let mut client = setup.connect();
    let params =
        json!({"cwd": folder("old"), "mcpServers": [], "_meta": {"acpbox": {"agent": "plain"}}});
    let created = client.call("session/new", params).unwrap();
    let session = created["sessionId"].as_str().unwrap().to_owned();
    client.prompt(&session, "u1").unwrap();
    drop(client);
    let mut client = setup.connect();
    // A folder that its VM does not share is not moved to.
    std::fs::create_dir_all(folder("new")).unwrap();
    let elsewhere = |params: &mut Value| params["cwd"] = json!(folder("new"));
    let loaded = load_with(&mut client, &session, elsewhere).unwrap();
    let reasons = restored(&loaded)["reasons"].to_string();
    assert!(reasons.contains("the session stays in"), "{reasons}");
    client
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    drop(client);
    std::fs::remove_dir_all(folder("old")).unwrap();
    let mut client = setup.connect();
    let same = |params: &mut Value| params["cwd"] = json!(folder("old"));
    let error = load_with(&mut client, &session, same).unwrap_err();
    assert_eq!(error["code"], -32002, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("projects/old is gone"), "{message}");
    let hint = error["data"]["hint"].as_str().unwrap();
    assert!(
        hint.contains("`cwd`") && hint.contains("acpbox sessions show"),
        "{hint}"
    );
    let error = client.prompt(&session, "u2").unwrap_err();
    assert!(
        error["message"].as_str().unwrap().contains("is gone"),
        "{error}"
    );
    assert!(!client.events(&session).is_empty(), "it can be read");
    let loaded = load_with(&mut client, &session, elsewhere).unwrap();
    assert_ne!(
        loaded["_meta"]["acpbox"]["vm"],
        created["_meta"]["acpbox"]["vm"]
    );
    let reasons = restored(&loaded)["reasons"].to_string();
    assert!(
        reasons.contains("projects/old is gone: the session goes on in"),
        "{reasons}"
    );
    let list = client
        .call("session/list", json!({"cwd": folder("new")}))
        .unwrap();
    assert_eq!(list["sessions"][0]["sessionId"], session.as_str());
    client.prompt(&session, "u2").unwrap();
}

#[test]
fn an_agent_or_a_vm_that_is_not_configured_any_more_is_named_with_the_mend() {
    let program = toml::Value::from(testy().display().to_string());
    let workspace = |setup: &Setup| toml::Value::from(setup.workspace().display().to_string());
    let setup = Setup::new();
    let tables = format!(
        "[agents.passing]\ncommand = {program}\nenv = {{ TESTY_SCRIPT = \"\" }}\n[vms.brief]\nworkspaces = [{}]\n",
        workspace(&setup)
    );
    let mut setup = setup.config(&tables);
    let mut client = setup.connect();
    let mut open = |options: Value| {
        let mut params = client.new_params();
        params["_meta"] = json!({"acpbox": options});
        let created = client.call("session/new", params).unwrap();
        created["sessionId"].as_str().unwrap().to_owned()
    };
    let of_agent = open(json!({"agent": "passing"}));
    let of_vm = open(json!({"vm": "brief"}));
    drop(client);
    setup = setup.config("");
    let mut client = setup.connect();
    let mut check = |session: &str, words: [&str; 2]| {
        let error = load(&mut client, session).unwrap_err();
        let message = error["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        let hint = error["data"]["hint"].as_str().unwrap();
        assert!(hint.contains("the transcript can be read"), "{hint}");
        assert!(!client.events(session).is_empty());
    };
    check(
        &of_agent,
        ["there is no agent `passing`", "[agents.passing]"],
    );
    check(&of_vm, ["no VM of this name", "[vms.brief]"]);
    let error = load_with(&mut client, &of_vm, |params| {
        params["_meta"] = json!({"acpbox": {"agent": "inline"}});
    });
    let error = error.unwrap_err();
    assert_eq!(error["code"], -32602);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("one of `testy`"),
        "{error}"
    );
}
