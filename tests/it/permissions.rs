//! Who answers when an agent asks whether it may: rules, answers for always, and
//! nobody.

mod answers;
mod deceptive;

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Place;
use crate::support::client::{Client, value};
use crate::support::scripted::{script, testy};
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

const REQUEST: &str = "session/request_permission";
const CANCELLED: &str = r#"{"outcome":{"outcome":"cancelled"}}"#;
const ALWAYS: &str = r#"{"outcome":{"outcome":"selected","optionId":"always"}}"#;
const ONCE: &str = r#"{"outcome":{"outcome":"selected","optionId":"once"}}"#;

/// A step in which the agent asks, then one that waits for the answer.
fn asks(id: u64, call: &Value) -> [Value; 2] {
    let option = |id: &str, kind: &str| json!({"optionId": id, "name": id, "kind": kind});
    let options = json!([
        option("always", "allow_always"),
        option("once", "allow_once"),
        option("never", "reject_always"),
        option("no", "reject_once"),
    ]);
    asks_with(id, call, &options)
}

fn asks_with(id: u64, call: &Value, options: &Value) -> [Value; 2] {
    let params = json!({"sessionId": "$SESSION", "toolCall": call, "options": options});
    [
        json!({"send": {"jsonrpc": "2.0", "id": id, "method": REQUEST, "params": params}}),
        json!({"expect_answer": id}),
    ]
}

fn command(line: &str) -> Value {
    json!({"toolCallId": "c", "kind": "execute", "title": line, "rawInput": {"command": line}})
}

/// A turn in which the agent asks for each of these, with ids from 0.
fn turn(setup: &Setup, calls: &[Value]) -> Vec<Value> {
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.extend((0..).zip(calls).flat_map(|(id, call)| asks(id, call)));
    steps.push(end_turn());
    steps
}

/// The results that agents got, in order.
fn results(setup: &Setup) -> Vec<Value> {
    let received = setup.received();
    let answers = received.iter().map(|line| value(line));
    let answers = answers.filter(|line| line.get("method").is_none());
    answers.map(|mut line| line["result"].take()).collect()
}

fn option(results: &Value) -> &str {
    results["outcome"]["optionId"].as_str().unwrap_or("none")
}

/// A prompt during which nobody is asked.
fn is_answered_alone(client: &mut Client, session: &str) {
    client.prompt(session, "go").unwrap();
    assert_eq!(client.take(REQUEST), Vec::<String>::new());
}

/// A prompt during which the client is asked once.
fn is_asked(client: &mut Client, session: &str, result: &str) -> String {
    let turn = client.request("session/prompt", prompt(session, "go"));
    let asked = client.expect(REQUEST);
    client.respond(&asked, result);
    client.answer(turn).unwrap();
    asked
}

/// `acpbox permissions …`, beside what runs.
fn permissions(setup: &Setup, arguments: &[&str]) -> Output {
    let stdio = setup.command();
    let mut command = std::process::Command::new(stdio.get_program());
    command.arg("permissions").args(arguments).env_clear();
    for (name, value) in stdio.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

fn listed(setup: &Setup) -> Vec<Value> {
    let output = permissions(setup, &["list", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_rule_answers_for_a_person_and_the_transcript_says_which() {
    let setup = Setup::new().config(
        "[[permissions.rules]]\nagent = \"inline\"\nkind = [\"execute\"]\ncommand = \"cargo *\"\n\
         decide = \"allow\"\n\
         [[permissions.rules]]\nkind = [\"execute\"]\ndecide = \"deny\"\n\
         [[permissions.rules]]\npath = \"src/**\"\ndecide = \"allow\"\n",
    );
    let workspace = setup.workspace();
    std::fs::create_dir(workspace.join("src")).unwrap();
    std::os::unix::fs::symlink("../.testy", workspace.join("src/link")).unwrap();
    let edit = |path: &str| {
        let path = workspace.join(path);
        json!({"toolCallId": "e", "kind": "edit", "title": "Edit", "locations": [{"path": path}]})
    };
    let calls = [
        command("cargo test"),
        command("cargo test; reboot"),
        edit("src/new/a.rs"),
        // It leads out of src.
        edit("src/link"),
    ];
    let mut client = setup.connect();
    let session = client.new_session_of(&turn(&setup, &calls));
    let asked = is_asked(&mut client, &session, CANCELLED);
    assert_eq!(value(&asked)["params"]["toolCall"], calls[3]);
    let results = results(&setup);
    let options: Vec<&str> = results.iter().map(option).collect();
    assert_eq!(options, ["once", "no", "once", "none"]);
    let events = client.events(&session);
    let of_permission: Vec<(&str, &Value)> = events
        .iter()
        .map(|event| (event["kind"].as_str().unwrap(), &event["message"]["params"]))
        .filter(|(kind, _)| kind.contains("permission"))
        .collect();
    let kinds: Vec<&str> = of_permission.iter().map(|(kind, _)| *kind).collect();
    let decided = "_acpbox/permission/decided";
    let result = "session/request_permission:result";
    let by_rule = [REQUEST, decided, result];
    let expected = [by_rule, by_rule, by_rule].concat();
    assert_eq!(kinds, [expected.as_slice(), &[REQUEST, result]].concat());
    let said = |decision: &str, rule: u64, call: &str, option: &str| {
        json!({"sessionId": session, "toolCallId": call, "decision": decision, "rule": rule,
            "optionId": option})
    };
    assert_eq!(*of_permission[1].1, said("allow", 1, "c", "once"));
    assert_eq!(*of_permission[4].1, said("deny", 2, "c", "no"));
    assert_eq!(*of_permission[7].1, said("allow", 3, "e", "once"));
}

#[test]
fn what_is_no_clear_question_is_asked_and_with_nobody_there_refused() {
    let setup = Setup::new().config("[permissions]\ndefault = \"allow\"");
    let option = |id: &str, kind: &str| json!({"optionId": id, "name": id, "kind": kind});
    let yes = option("yes", "allow_once");
    let no = option("no", "reject_once");
    let odd = [
        json!([yes]),
        json!([option("yes", "allow_always"), no]),
        json!([yes, option("yes", "reject_once")]),
        json!([yes, no, option("", "allow_once")]),
        json!([yes, no, option("x", "allow_for_ever")]),
        json!([yes, option("more", "allow_once"), no]),
    ];
    let mut steps = vec![setup.record(), expect_prompt()];
    for (id, options) in (0..).zip(&odd) {
        steps.extend(asks_with(id, &command("ls"), options));
    }
    steps.extend(asks_with(9, &command("ls \u{202e}x"), &json!([yes, no])));
    steps.extend(asks_with(10, &command("ls"), &json!([yes, no])));
    steps.push(end_turn());
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    for _ in 0..3 {
        let asked = client.expect(REQUEST);
        client.respond(&asked, CANCELLED);
    }
    client.expect(REQUEST);
    client.close_input();
    client.answer(turn).unwrap();
    let results = results(&setup);
    let refused = vec![value(CANCELLED); odd.len() + 1];
    assert_eq!(results[..=odd.len()], refused);
    // With nobody there a rule still answers.
    assert_eq!(results[odd.len() + 1]["outcome"]["optionId"], "yes");
}

#[test]
fn an_answer_for_always_holds_for_just_this_until_it_is_revoked() {
    let setup = Setup::new();
    let twice = turn(&setup, &[command("make a"), command("make a")]);
    let mut client = setup.connect();
    let session = client.new_session_of(&twice);
    let asked = is_asked(&mut client, &session, ALWAYS);
    assert_eq!(value(&asked)["params"]["toolCall"], command("make a"));
    // Once is what the policy chooses, not the agent's own way of remembering.
    let options: Vec<String> = results(&setup)
        .iter()
        .map(|it| option(it).to_owned())
        .collect();
    assert_eq!(options, ["always", "once"]);
    let remembered = listed(&setup);
    assert_eq!(remembered.len(), 1);
    let id = remembered[0]["id"].as_i64().unwrap();
    let expected = json!({"id": id, "decision": "allow", "agent": "inline",
        "workspace": setup.workspace().canonicalize().unwrap(), "kind": "execute", "scope": "command",
        "subject": "make a", "createdAt": remembered[0]["createdAt"], "sessionId": session});
    assert_eq!(remembered[0], expected);

    // Another session of another process, in a folder of the same workspace.
    drop(client);
    std::fs::create_dir_all(setup.workspace().join(".git")).unwrap();
    std::fs::create_dir(setup.workspace().join("below")).unwrap();
    let mut client = setup.connect();
    let once = turn(&setup, &[command("make a")]);
    let second = client.new_session_of(&once);
    is_answered_alone(&mut client, &second);
    let decided = client.events(&second);
    let decided = decided
        .iter()
        .find(|event| event["kind"] == "_acpbox/permission/decided")
        .unwrap();
    assert_eq!(decided["message"]["params"]["remembered"], id);
    // Other words, another kind, another agent, another workspace: asked.
    let mut other_kind = command("make a");
    other_kind["kind"] = "other".into();
    for call in [command("make b"), command("make a; b"), other_kind] {
        let session = client.new_session_of(&turn(&setup, &[call]));
        is_asked(&mut client, &session, ONCE);
    }
    setup.script(&once);
    let other_agent = client.new_session();
    is_asked(&mut client, &other_agent, ONCE);
    let elsewhere = setup.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let params = json!({"cwd": elsewhere, "mcpServers": [], "_meta": {"acpbox":
        {"agent": "inline", "env": {"TESTY_SCRIPT": script(&[expect_prompt(), asks(0, &command("make a"))[0].clone(),
            json!({"expect_answer": 0}), end_turn()])}}}});
    let result = client.call("session/new", params).unwrap();
    is_asked(&mut client, result["sessionId"].as_str().unwrap(), ONCE);
    assert_eq!(listed(&setup).len(), 1, "once is not for always");

    // Revoked beside a process that runs.
    let output = permissions(&setup, &["revoke", "4711"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = permissions(&setup, &["revoke", &id.to_string()]);
    assert!(output.status.success(), "{output:?}");
    let third = client.new_session_of(&once);
    let never = r#"{"outcome":{"outcome":"selected","optionId":"never"}}"#;
    is_asked(&mut client, &third, never);
    // What is refused for always is refused.
    let fourth = client.new_session_of(&once);
    is_answered_alone(&mut client, &fourth);
    assert_eq!(option(results(&setup).last().unwrap()), "no");
    let output = permissions(&setup, &["revoke", "--all", "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(listed(&setup), Vec::<Value>::new());
}

#[test]
fn nothing_is_remembered_where_that_is_turned_off() {
    let setup = Setup::new().config("[permissions]\nremember = false");
    let mut client = setup.connect();
    for _ in 0..2 {
        let session = client.new_session_of(&turn(&setup, &[command("make a")]));
        is_asked(&mut client, &session, ALWAYS);
    }
    assert_eq!(listed(&setup), Vec::<Value>::new());
}

#[test]
fn a_question_that_nobody_answers_in_time_is_refused_and_taken_back() {
    let setup = Setup::new().config("[permissions]\nunanswered = \"300ms\"");
    let form = json!({"sessionId": "$SESSION", "mode": "form", "message": "Who?",
        "requestedSchema": {"type": "object", "properties": {}}});
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.extend(asks(0, &command("make a")));
    steps.extend([
        json!({"send": {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": form}}),
        json!({"expect_answer": 1}),
    ]);
    // The same id again, for a question that is answered in time.
    steps.extend(asks(0, &command("make b")));
    steps.push(end_turn());
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = client.expect(REQUEST);
    let withdrawn = value(&client.expect("$/cancel_request"));
    assert_eq!(withdrawn["params"]["requestId"], value(&asked)["id"]);
    client.expect("elicitation/create");
    client.expect("$/cancel_request");
    let next = client.expect(REQUEST);
    // Too late, and for something else than what is asked now.
    client.respond(&asked, ALWAYS);
    client.respond(&next, ONCE);
    client.answer(turn).unwrap();
    let expected = [value(CANCELLED), json!({"action": "cancel"}), value(ONCE)];
    assert_eq!(results(&setup), expected);
    assert_eq!(listed(&setup), Vec::<Value>::new());
    let events = client.events(&session);
    let denied: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "_acpbox/permission/denied")
        .map(|event| &event["message"]["params"]["reason"])
        .collect();
    let reason = "nobody answered within 300 ms (permissions.unanswered)";
    assert_eq!(denied, [reason, reason]);
}

#[test]
fn an_approval_that_is_late_repeated_or_anothers_allows_nothing() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut one_question = vec![setup.record(), expect_prompt()];
    one_question.extend(asks(0, &command("make a")));
    let mut cancelled = one_question.clone();
    cancelled.extend([
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
        expect_prompt(),
    ]);
    cancelled.extend(asks(0, &command("make b")));
    cancelled.push(end_turn());
    let session = client.new_session_of(&cancelled);
    let first = client.request("session/prompt", prompt(&session, "go"));
    let late = client.expect(REQUEST);
    client.notify("session/cancel", json!({"sessionId": session}));
    client.answer(first).unwrap();
    // The same agent asks with the same id, and so does another session's.
    let second = client.request("session/prompt", prompt(&session, "again"));
    let asked = client.expect(REQUEST);
    one_question.push(end_turn());
    let other = client.new_session_of(&one_question);
    let third = client.request("session/prompt", prompt(&other, "go"));
    let of_other = client.expect(REQUEST);
    client.respond(&late, ALWAYS);
    client.respond(&late, ALWAYS);
    assert!(client.is_quiet(Duration::from_millis(200)));
    assert_eq!(results(&setup), [value(CANCELLED)]);
    // Each answer goes where it was asked, once.
    client.respond(
        &of_other,
        r#"{"outcome":{"outcome":"selected","optionId":"no"}}"#,
    );
    client.answer(third).unwrap();
    client.respond(&of_other, ALWAYS);
    client.respond(&asked, ONCE);
    client.answer(second).unwrap();
    let results = results(&setup);
    let options: Vec<&str> = results.iter().map(option).collect();
    assert_eq!(options, ["none", "no", "once"]);
    assert_eq!(
        listed(&setup),
        Vec::<Value>::new(),
        "nobody said always in time"
    );
}

#[test]
fn two_questions_under_one_id_are_never_mistaken_for_each_other() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.push(asks(0, &command("make harmless"))[0].clone());
    steps.extend(asks(0, &command("make harm")));
    steps.extend([json!({"expect_answer": 0}), end_turn()]);
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let harmless = client.expect(REQUEST);
    let harm = client.expect(REQUEST);
    client.respond(&harmless, ALWAYS);
    client.respond(&harm, CANCELLED);
    client.answer(turn).unwrap();
    assert_eq!(listed(&setup), Vec::<Value>::new());
}

#[test]
fn run_with_yes_is_held_by_the_rules_and_by_clear_options() {
    let place = Place::new();
    let rule = "[[permissions.rules]]\ntitle = \"May I*\"\ndecide = \"deny\"\n";
    place.configure(rule);
    let ended = place.run(&["--yes", "[[ask:May I?]]"]).expect(0);
    assert!(ended.stdout.contains("ASK reject_once"), "{ended:?}");
    let ended = place.run(&["--yes", "[[ask:Or I?]]"]).expect(0);
    assert!(ended.stdout.contains("ASK allow_once"), "{ended:?}");

    let received = place.workspace().join("received");
    let yes = json!([{"optionId": "a", "name": "Yes", "kind": "allow_once"}]);
    let mut steps = vec![json!({"record": received}), expect_prompt()];
    steps.extend(asks_with(0, &command("x"), &yes));
    steps.push(end_turn());
    let file = place.workspace().join("script");
    std::fs::write(&file, script(&steps)).unwrap();
    place.configure(&format!(
        "[agents.testy]\ncommand = {:?}\nargs = [{file:?}]\ninstructions = \"none\"\n",
        testy()
    ));
    let ended = place.acpbox(&["run", "--agent", "testy", "--yes", "go"]);
    let ended = ended.expect(0);
    assert!(
        ended.stderr.contains("without a clear way to say yes"),
        "{ended:?}"
    );
    let received = std::fs::read_to_string(received).unwrap();
    let answer = received
        .lines()
        .map(value)
        .find(|line| line["id"] == 0 && line.get("method").is_none());
    assert_eq!(answer.unwrap()["result"], value(CANCELLED));
}

#[test]
fn a_rule_that_could_never_fit_is_an_error_that_names_it() {
    let place = Place::new();
    let check = |rule: &str, words: &[&str]| {
        place.configure(&format!("[[permissions.rules]]\n{rule}\n"));
        let ended = place.acpbox(&["permissions", "list"]);
        ended.expect_words(2, words);
    };
    check("decide = \"allow\"\nkind = [\"exec\"]", &["kind", "exec"]);
    check(
        "decide = \"allow\"\nkind = []",
        &["rule 1", "kind", "empty"],
    );
    check("decide = \"never\"", &["decide", "never"]);
    check("kind = [\"read\"]", &["decide"]);
    check("decide = \"deny\"\nalways = true", &["rule 1", "always"]);
    check(
        "decide = \"allow\"\npath = \"../x\"",
        &["rule 1", "path", ".."],
    );
    check(
        "decide = \"allow\"\npath = \"src/[\"",
        &["rule 1", "path", "no glob"],
    );
    check(
        "decide = \"allow\"\ncommand = \"a\\nb\"",
        &["rule 1", "command", "control"],
    );
    check(
        "decide = \"allow\"\nworkspace = \"src\"",
        &["rule 1", "workspace", "absolute"],
    );
    check(
        "decide = \"deny\"\nagent = \"clade\"",
        &["rule 1", "agent", "clade"],
    );
    check(
        "decide = \"deny\"\nagents = \"claude\"",
        &["agents", "did you mean `agent`?"],
    );
}
