//! Values that are secret reach the agent and are found nowhere else.

use std::path::Path;

use serde_json::json;

use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt};

/// Every file below a folder that holds the word.
fn found(folder: &Path, word: &str, places: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found(&path, word, places);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let has = bytes
                .windows(word.len())
                .any(|window| window == word.as_bytes());
            if has || path.to_string_lossy().contains(word) {
                places.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn secret_values_reach_the_agent_and_are_neither_stored_nor_logged() {
    let setup = Setup::new()
        .agent("pass_env = [\"PASSED_TOKEN\"]")
        .variable("PASSED_TOKEN", "canary-passed")
        .variable("UNPASSED_TOKEN", "canary-unpassed")
        .variable("ACPBOX_LOG", "trace");
    // Outside of what is searched below.
    let kept = setup.workspace();
    setup.script(&[
        setup.record(),
        json!({"environment": kept.join("env")}),
        expect_prompt(),
        chunk("x"),
        end_turn(),
        expect_prompt(),
        json!({"exit": 3}),
    ]);
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["mcpServers"] = json!([
        {"name": "one", "command": "/bin/true", "args": [], "env": [{"name": "MCP_TOKEN", "value": "canary-mcp-env"}]},
        {"type": "http", "name": "two", "url": "https://example.org", "headers": [{"name": "Authorization", "value": "canary-mcp-header"}]},
        {"name": "three", "command": "/bin/true", "args": [], "env": {"OBJECT": "canary-mcp-object"}},
    ]);
    params["_meta"] = json!({"acpbox": {"env": {"META_TOKEN": "canary-meta"}}, "theirs": 1});
    let result = client.call("session/new", params.clone()).unwrap();
    let session = result["sessionId"].as_str().unwrap().to_owned();
    client.prompt(&session, "go").unwrap();
    client.prompt(&session, "die").unwrap_err();
    let environment = std::fs::read_to_string(kept.join("env")).unwrap();
    assert!(environment.contains("PASSED_TOKEN=canary-passed\n"));
    assert!(environment.contains("META_TOKEN=canary-meta\n"));
    assert!(!environment.contains("canary-unpassed"));
    // The same again for an agent that is brought back, and one that is refused.
    params["sessionId"] = session.as_str().into();
    client.call("session/load", params.clone()).unwrap();
    client
        .call(
            "session/new",
            json!({"cwd": 7, "_meta": params["_meta"], "mcpServers": params["mcpServers"]}),
        )
        .unwrap_err();
    params["_meta"]["acpbox"]["agent"] = "none".into();
    let error = client.call("session/new", params).unwrap_err();
    assert!(!error.to_string().contains("canary"));
    let received = setup.received();
    let new = received
        .iter()
        .map(|line| value(line))
        .find(|line| line["method"] == "session/new")
        .unwrap();
    assert!(
        new.to_string().contains("canary-mcp-env") && new.to_string().contains("canary-mcp-header")
    );
    assert!(new.to_string().contains("canary-mcp-object"));
    assert_eq!(
        new["params"]["_meta"],
        json!({"theirs": 1}),
        "our options are not the agent's"
    );
    client.updates();
    let events = client.events(&session);
    assert!(
        events[0].to_string().contains("META_TOKEN"),
        "names are kept"
    );
    let mut places = Vec::new();
    // While the write-ahead log is there, and after it is gone.
    found(&setup.path().join("state"), "canary", &mut places);
    let logged = client.stderr();
    drop(client);
    found(&setup.path().join("state"), "canary", &mut places);
    found(&setup.path().join("run"), "canary", &mut places);
    found(&setup.path().join("home"), "canary", &mut places);
    assert_eq!(places, Vec::<String>::new());
    assert!(logged.contains("TRACE"), "the log was on");
    assert!(!logged.contains("canary"), "{logged}");
}

#[test]
fn secret_values_in_keys_that_come_twice_are_not_stored_either() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let cwd = setup.workspace();
    let servers = r#"[{"name":"n","command":"c","args":[],"env":[{"name":"A","value":"canary-a","value":"canary-b"}]}]"#;
    client.send(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"session/new","params":{{"mcpServers":{servers},"cwd":{},"mcpServers":{servers},"_meta":{{"acpbox":{{"env":{{"B":"canary-c"}}}}}},"_meta":{{"acpbox":{{"env":{{"B":"canary-d","B":"canary-e"}}}}}}}}}}"#,
        json!(cwd)
    ));
    let answer = value(&client.answer_line("1"));
    // Whether it is taken or refused, nothing of it is stored.
    let mut places = Vec::new();
    found(&setup.path().join("state"), "canary", &mut places);
    assert_eq!(places, Vec::<String>::new(), "{answer}");
}

#[test]
fn what_a_login_a_provider_and_a_fork_are_given_is_not_stored() {
    let setup = Setup::host().variable("ACPBOX_LOG", "trace");
    setup.script(&[
        setup.record(),
        json!({"on": "authenticate", "result": {}}),
        json!({"on": "providers/set", "result": {}}),
        json!({"on": "session/fork", "result": {}}),
    ]);
    let mut client = setup.connect();
    let login = json!({"methodId": "key", "_meta": {"api-key": "canary-login", "deep": [{"x": "canary-deep"}]}});
    // Before there is a session, and in one.
    client.call("authenticate", login.clone()).unwrap();
    let session = client.new_session();
    client.call("authenticate", login).unwrap();
    let provider = json!({"providerId": "main", "apiType": "openai", "baseUrl": "https://user:canary-url@example.org",
        "headers": {"Authorization": "canary-header"}, "env": {"KEY": "canary-env"}, "sessionId": session});
    client.call("providers/set", provider.clone()).unwrap();
    let without = json!({"headers": provider["headers"], "_meta": {"x": "canary-x"}});
    client.call("providers/set", without).unwrap();
    let servers = json!([{"name": "one", "command": "c", "args": [], "env": [{"name": "K", "value": "canary-fork"}]}]);
    client
        .call(
            "session/fork",
            json!({"sessionId": session, "cwd": "/", "mcpServers": servers}),
        )
        .unwrap();
    let received = setup.received().concat();
    for canary in ["login", "deep", "url", "header", "env", "x", "fork"] {
        assert!(received.contains(&format!("canary-{canary}")), "{canary}");
    }
    let events = client.events(&session);
    let stored = serde_json::to_string(&events).unwrap();
    assert!(!stored.contains("canary"), "{stored}");
    for kept in [
        "\"methodId\":\"key\"",
        "\"headers\"",
        "\"baseUrl\"",
        "\"_meta\"",
    ] {
        assert!(stored.contains(kept), "names are kept: {kept} in {stored}");
    }
    let logged = client.stderr();
    drop(client);
    let mut places = Vec::new();
    found(&setup.path().join("state"), "canary", &mut places);
    assert_eq!(places, Vec::<String>::new());
    assert!(!logged.contains("canary"), "{logged}");
}
