//! `acpbox permissions test`.

use serde_json::{Value, json};

use super::{
    ALWAYS, ONCE, asks, command, is_answered_alone, is_asked, listed, option, permissions, results,
    turn,
};
use crate::support::client::Client;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt};

/// Writes the configuration anew, beside what runs.
fn rewritten(setup: Setup, toml: &str) -> Setup {
    let setup = setup.config(toml);
    drop(setup.command());
    setup
}

/// The answer to a request in the set-up's workspace, and the exit code.
fn tested(setup: &Setup, arguments: &[&str]) -> (Value, i32) {
    let workspace = setup.workspace().display().to_string();
    let place = ["test", "--json", "--agent", "inline", "--cwd", &workspace];
    outcome(setup, &[&place, arguments].concat())
}

fn outcome(setup: &Setup, arguments: &[&str]) -> (Value, i32) {
    let output = permissions(setup, arguments);
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|_| panic!("{output:?}"));
    (answer, output.status.code().unwrap())
}

const RULES: &str = "\
    [[permissions.rules]]\ncommand = \"cargo *\"\ndecide = \"allow\"\n\
    [[permissions.rules]]\nkind = [\"edit\"]\npath = \"**/.env*\"\ndecide = \"deny\"\n\
    [[permissions.rules]]\ntitle = \"Weather*\"\ndecide = \"allow\"\n";

#[test]
fn a_request_is_tried_without_an_agent_and_the_deciding_rule_is_named() {
    let setup = Setup::new().config(RULES);
    let check = |arguments: &[&str], decision: &str, rule: Option<u64>, code: i32| {
        let (answer, ended) = tested(&setup, arguments);
        let found = (
            answer["decision"].as_str().unwrap(),
            answer["rule"].as_u64(),
        );
        assert_eq!(
            (found, ended),
            ((decision, rule), code),
            "{arguments:?}: {answer:#}"
        );
        answer
    };
    let answer = check(&["--command", "cargo test"], "allow", Some(1), 0);
    assert_eq!(answer["optionId"], "allow_once");
    let cwd = json!(setup.workspace().canonicalize().unwrap());
    assert_eq!((&answer["cwd"], &answer["agent"]), (&cwd, &json!("inline")));
    let answer = check(&["--command", "cargo test; reboot"], "ask", None, 6);
    let expected = json!([
        {"rule": 1, "fits": "no", "conditions": ["command"]},
        {"rule": 2, "fits": "no", "conditions": ["kind", "path"]},
        {"rule": 3, "fits": "unknown", "conditions": ["title"]}]);
    assert_eq!(answer["rules"], expected);
    let answer = check(
        &["--kind", "edit", "--path", "a/.env.local"],
        "deny",
        Some(2),
        3,
    );
    assert_eq!(answer["rules"].as_array().unwrap().len(), 2, "{answer:#}");
    // It does not say which file.
    let answer = check(&["--kind", "edit"], "ask", Some(2), 6);
    assert!(
        answer["why"].as_str().unwrap().contains("may fit"),
        "{answer:#}"
    );
    let hidden = ["--kind", "fetch", "--title", "Weather \u{202e}here"];
    let answer = check(&hidden, "ask", None, 6);
    assert_eq!(answer["toolCall"], json!({"kind": "fetch", "title": null}));
    let output = permissions(&setup, &["test", "--kind", "exec"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("execute"),
        "{output:?}"
    );

    // What is remembered decides where no rule does, until it is revoked.
    let mut client = setup.connect();
    let session = client.new_session_of(&turn(&setup, &[command("make a")]));
    is_asked(&mut client, &session, ALWAYS);
    let id = listed(&setup)[0]["id"].clone();
    let answer = check(&["--command", "make a"], "allow", None, 0);
    assert_eq!(answer["remembered"], id);
    permissions(&setup, &["revoke", "--all", "--yes"]);
    let answer = check(&["--command", "make a"], "ask", None, 6);
    assert_eq!(answer.get("remembered"), None);
}

#[test]
fn the_requests_of_a_stored_session_are_tried_as_if_they_came_now() {
    let setup = Setup::new();
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "w", "title": "Weather in Oslo",
        "kind": "fetch"});
    let mut steps = vec![
        expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "method": "session/update",
            "params": {"sessionId": "$SESSION", "update": call}}}),
    ];
    steps.extend(asks(0, &command("cargo test")));
    steps.push(end_turn());
    steps.push(expect_prompt());
    // What it is was said long before.
    steps.extend(asks(1, &json!({"toolCallId": "w"})));
    steps.push(end_turn());
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    is_asked(&mut client, &session, ONCE);
    is_asked(&mut client, &session, ONCE);
    client.take_rest();
    let setup = rewritten(setup, RULES);
    let (all, code) = outcome(&setup, &["test", "--session", &session, "--json"]);
    assert_eq!(code, 0);
    let rules: Vec<_> = (all.as_array().unwrap().iter())
        .map(|answer| answer["rule"].as_u64())
        .collect();
    assert_eq!(rules, [Some(1), Some(3)], "{all:#}");
    let (last, code) = outcome(&setup, &["test", "--session", &session, "--last", "--json"]);
    assert_eq!((&last, code), (&all[1], 0));
    assert_eq!(last["toolCall"]["title"], "Weather in Oslo");
    let output = permissions(&setup, &["test", "--session", &session[..20]]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("rule 1: fits"), "{text}");
    assert!(text.contains("answered with option `once`"), "{text}");
    assert!(text.contains("rule 2: does not fit: kind"), "{text}");
}

#[test]
fn rules_count_from_the_next_question_and_a_broken_file_keeps_the_old_ones() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let calls = [(); 6].map(|()| command("make a"));
    let session = {
        let steps = calls.iter().zip(0..).flat_map(|(call, id)| {
            let [ask, wait] = asks(id, call);
            [expect_prompt(), ask, wait, end_turn()]
        });
        client.new_session_of(&[vec![setup.record()], steps.collect()].concat())
    };
    let warnings = |client: &mut Client| {
        let status = client.call("_acpbox/server/status", json!({})).unwrap();
        status["warnings"].to_string()
    };
    is_asked(&mut client, &session, ONCE);
    let rule =
        |decide: &str| format!("[[permissions.rules]]\ncommand = \"make *\"\ndecide = {decide:?}");
    let setup = rewritten(setup, &rule("deny"));
    is_answered_alone(&mut client, &session);
    assert_eq!(warnings(&mut client), "null");
    let mut setup = setup;
    for (broken, words) in [
        ("[permissions\n".to_owned(), "line"),
        (rule("perhaps"), "perhaps"),
        (
            format!("{}\nagent = \"nobody\"", rule("allow")),
            "there is no agent `nobody`",
        ),
    ] {
        setup = rewritten(setup, &broken);
        is_answered_alone(&mut client, &session);
        let warned = warnings(&mut client);
        assert!(
            warned.contains(words) && warned.contains("stay in force"),
            "{warned}"
        );
    }
    let options = |setup: &Setup| -> Vec<String> {
        let results = results(setup);
        results.iter().map(|it| option(it).to_owned()).collect()
    };
    assert_eq!(options(&setup), ["once", "no", "no", "no", "no"]);
    let setup = rewritten(setup, &rule("allow"));
    is_answered_alone(&mut client, &session);
    assert_eq!(options(&setup)[5], "once");
    assert_eq!(warnings(&mut client), "null");
}
