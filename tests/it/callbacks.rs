//! What agents ask of their client: files, permission, forms. acpbox stands in
//! between and fails closed.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::{Client, value};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod embedded;
mod terminals;

/// Steps of a turn in which the agent sends these requests, each after the
/// answer to the one before; ids count from 0.
pub(crate) fn asking(requests: &[(&str, Value)]) -> Vec<Value> {
    let mut steps = vec![expect_prompt()];
    for (id, (method, params)) in requests.iter().enumerate() {
        let mut params = params.clone();
        if params.is_object() {
            params["sessionId"] = "$SESSION".into();
        }
        steps.push(
            json!({"send": {"jsonrpc": "2.0", "id": id, "method": method, "params": params}}),
        );
        steps.push(json!({"expect_answer": id}));
    }
    steps.push(end_turn());
    steps
}

/// The answers that the agent got to requests that count from 0.
pub(crate) fn answers(setup: &Setup, count: usize) -> Vec<Value> {
    let received: Vec<Value> = setup.received().iter().map(|line| value(line)).collect();
    let is_answer =
        |id: usize| move |line: &&Value| line.get("method").is_none() && line["id"] == json!(id);
    (0..count)
        .map(|id| received.iter().find(is_answer(id)).unwrap().clone())
        .collect()
}

/// Lets the agent ask, and returns the answers.
pub(crate) fn ask(setup: &Setup, client: &mut Client, requests: &[(&str, Value)]) -> Vec<Value> {
    let mut steps = vec![setup.record()];
    steps.extend(asking(requests));
    let session = client.new_session_of(&steps);
    client.prompt(&session, "go").unwrap();
    answers(setup, requests.len())
}

#[test]
fn files_are_reached_below_the_sessions_folders_and_nowhere_else() {
    let setup = Setup::new();
    let workspace = setup.workspace();
    let path = |below: &str| format!("{}{below}", workspace.display());
    for folder in ["/src", "/.git/hooks", "-evil"] {
        std::fs::create_dir_all(path(folder)).unwrap();
    }
    std::fs::write(path("/a.txt"), "text").unwrap();
    std::fs::write(path("-evil/f"), "canary").unwrap();
    symlink("a.txt", path("/inside")).unwrap();
    symlink("/etc", path("/out")).unwrap();
    symlink(path("-evil/new"), path("/dangling")).unwrap();
    symlink("../..", path("/src/up")).unwrap();
    let (read, write) = ("fs/read_text_file", "fs/write_text_file");
    let out = "a symlink leads out of the session's folders";
    let cases = [
        (read, json!({"path": path("/a.txt")}), None),
        (read, json!({"path": path("/inside"), "line": 1, "limit": 4_294_967_295_u64}), None),
        (read, json!({"path": path("//src/./../a.txt")}), Some(format!("`path` must not contain `..`: {}", path("//src/./../a.txt")))),
        (read, json!({"path": "/etc/passwd"}), Some("/etc/passwd is outside the session's folders; add its folder to `additionalDirectories`".into())),
        (read, json!({"path": path("-evil/f")}), Some(format!("{} is outside the session's folders; add its folder to `additionalDirectories`", path("-evil/f")))),
        (read, json!({"path": path("/out/passwd")}), Some(format!("{}: {out}", path("/out/passwd")))),
        (read, json!({"path": path("/src/up/home")}), Some(format!("{}: {out}", path("/src/up/home")))),
        (read, json!({"path": path("/%2e%2e/x")}), Some(format!("{}: No such file or directory (os error 2)", path("/%2e%2e/x")))),
        (read, json!({"path": path("/src")}), Some(format!("{}: it is a folder", path("/src")))),
        (read, json!({"path": "a.txt"}), Some("`path` must be absolute: a.txt".into())),
        (read, json!({"path": "/proc/self/environ"}), Some("/proc/self/environ is outside the session's folders; add its folder to `additionalDirectories`".into())),
        (read, json!({}), Some("`fs/read_text_file` needs `path`, a string".into())),
        (read, json!({"path": 7}), Some("`fs/read_text_file` needs `path`, a string".into())),
        (read, json!({"path": path("/a.txt"), "line": -1}), Some("`line` must be a whole number from 0 to 4294967295, not -1".into())),
        (read, json!({"path": path("/a.txt"), "limit": 1e300}), Some("`limit` must be a whole number from 0 to 4294967295, not 1e+300".into())),
        (write, json!({"path": path("/new/folder/b.txt"), "content": "x"}), None),
        (write, json!({"path": path("/out/new"), "content": "x"}), Some(format!("{}: {out}", path("/out/new")))),
        (write, json!({"path": path("/dangling"), "content": "x"}), Some(format!("{}: {out}", path("/dangling")))),
        (write, json!({"path": path("/.git/hooks/pre-commit"), "content": "x"}), Some(format!("{} is protected: the host may run or trust `.git/hooks`", path("/.git/hooks/pre-commit")))),
        (write, json!({"path": path("-evil/f"), "content": "x"}), Some(format!("{} is outside the session's folders; add its folder to `additionalDirectories`", path("-evil/f")))),
    ];
    let mut client = setup.connect();
    // Whatever comes through is answered so.
    client
        .answers
        .insert(read, "{\"content\":\"from the editor\"}".into());
    client.answers.insert(write, "{}".into());
    let requests: Vec<_> = cases
        .iter()
        .map(|(method, params, _)| (*method, params.clone()))
        .collect();
    let answered = ask(&setup, &mut client, &requests);
    for ((method, params, refused), answer) in cases.into_iter().zip(answered) {
        match refused {
            None => assert!(
                answer.get("result").is_some(),
                "{method} {params}: {answer}"
            ),
            Some(why) => {
                assert_eq!(
                    answer["error"]["message"],
                    format!("Invalid params: {why}"),
                    "{method} {params}"
                );
                assert_eq!(answer["error"]["code"], -32602);
            }
        }
    }
}

#[test]
fn files_are_not_asked_of_a_client_that_does_not_offer_them() {
    let setup = Setup::new();
    let mut client = setup.start();
    client.initialize_offering(json!({"fs": {"readTextFile": true}}));
    let path = setup.workspace().join("a.txt");
    std::fs::write(&path, "x").unwrap();
    client
        .answers
        .insert("fs/read_text_file", "{\"content\":\"\"}".into());
    let requests = [
        ("fs/write_text_file", json!({"path": path, "content": ""})),
        ("fs/read_text_file", json!({"path": path})),
    ];
    let answered = ask(&setup, &mut client, &requests);
    assert_eq!(
        answered[0]["error"]["message"],
        "Method not found: the client does not offer `fs/write_text_file`; use the files in the VM"
    );
    assert_eq!(answered[0]["error"]["code"], -32601);
    assert_eq!(answered[1]["result"]["content"], "");
    // The agent was told before.
    let told = value(&setup.received()[0]);
    assert_eq!(
        told["params"]["clientCapabilities"]["fs"],
        json!({"readTextFile": true})
    );
}

#[test]
fn additional_folders_are_reached_too() {
    let setup = Setup::new();
    let more = setup.path().join("more");
    std::fs::create_dir(&more).unwrap();
    std::fs::write(more.join("b.txt"), "x").unwrap();
    let mut client = setup.connect();
    client
        .answers
        .insert("fs/read_text_file", "{\"content\":\"b\"}".into());
    let mut steps = vec![setup.record()];
    steps.extend(asking(&[(
        "fs/read_text_file",
        json!({"path": more.join("b.txt")}),
    )]));
    let mut params = client.new_params();
    params["additionalDirectories"] = json!([more]);
    setup.script(&steps);
    let session = client.call("session/new", params).unwrap();
    client
        .prompt(session["sessionId"].as_str().unwrap(), "go")
        .unwrap();
    assert_eq!(answers(&setup, 1)[0]["result"]["content"], "b");
}

#[test]
fn a_permission_is_what_the_client_answers() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let ask_for = |title: &str| {
        (
            "session/request_permission",
            json!({"toolCall": {"toolCallId": "c", "title": title},
            "options": [{"optionId": "a", "name": "Allow", "kind": "allow_once"}, {"optionId": "a", "name": "", "kind": "allow_once"}]}),
        )
    };
    let requests = [
        ask_for("one"),
        ask_for("\u{202e}two \u{1b}]52;c;x\u{7}"),
        ask_for("three"),
    ];
    let mut steps = vec![setup.record()];
    steps.extend(asking(&requests));
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let results = [
        r#"{"outcome":{"outcome":"selected","optionId":"a"}}"#,
        r#"{"outcome":{"outcome":"cancelled"}}"#,
        r#"{"outcome":{"outcome":"selected","optionId":"never offered"}}"#,
    ];
    for (result, (_, params)) in results.iter().zip(&requests) {
        let asked = client.expect("session/request_permission");
        assert_eq!(value(&asked)["params"]["toolCall"], params["toolCall"]);
        client.respond(&asked, result);
    }
    client.answer(turn).unwrap();
    let answered = answers(&setup, 3);
    for (answer, result) in answered.iter().zip(&results) {
        let expected = match result.contains("never offered") {
            true => results[1],
            false => *result,
        };
        assert_eq!(answer["result"], value(expected));
    }
    let events = client.events(&session);
    let kept = events
        .iter()
        .filter(|event| event["kind"] == "session/request_permission:result");
    assert_eq!(kept.count(), 3);
}

#[test]
fn what_a_vanished_client_was_asked_fails_closed() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let methods = ["session/request_permission", "elicitation/create", "_v/ask"];
    let mut steps = vec![setup.record(), expect_prompt()];
    for (id, method) in methods.iter().enumerate() {
        steps.push(json!({"send": {"jsonrpc": "2.0", "id": id, "method": method, "params": {"sessionId": "$SESSION"}}}));
    }
    for id in 0..methods.len() {
        steps.push(json!({"expect_answer": id}));
    }
    steps.extend([chunk("denied"), end_turn()]);
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    for method in methods {
        client.expect(method);
    }
    client.close_input();
    assert_eq!(
        client.answer(turn).unwrap()["_meta"]["acpbox"]["text"],
        "denied"
    );
    client.take("session/update");
    let answered = answers(&setup, 3);
    assert_eq!(
        answered[0]["result"],
        json!({"outcome": {"outcome": "cancelled"}})
    );
    assert_eq!(answered[1]["result"], json!({"action": "cancel"}));
    assert_eq!(answered[2]["error"]["code"], -32603);
    let reason = "the client closed its side of the connection";
    assert_eq!(
        answered[2]["error"]["message"],
        format!("`_v/ask` cannot be answered: {reason}")
    );
    drop(client);
    let mut client = setup.connect();
    let events = client.events(&session);
    let denied: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "_acpbox/permission/denied")
        .map(|event| &event["message"]["params"])
        .collect();
    let expected =
        methods.map(|method| json!({"sessionId": session, "method": method, "reason": reason}));
    assert_eq!(denied, expected.iter().collect::<Vec<_>>());
}

#[test]
fn an_answer_after_the_agent_is_gone_goes_nowhere() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let options =
        ["late", "new"].map(|id| json!({"optionId": id, "name": id, "kind": "allow_once"}));
    let ask = json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "options": options}}});
    setup.script(&[
        expect_prompt(),
        ask.clone(),
        json!({"sleep_ms": 100}),
        json!({"exit": 1}),
    ]);
    let session = client.new_session();
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let asked = client.expect("session/request_permission");
    client.answer(turn).unwrap_err();
    // It is told that nobody waits any more.
    let cancel = value(&client.expect("$/cancel_request"));
    assert_eq!(cancel["params"]["requestId"], value(&asked)["id"]);
    // The approval comes late, while the next agent asks the same of its own.
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask,
        json!({"expect_answer": 0}),
        end_turn(),
    ]);
    let turn = client.request("session/prompt", prompt(&session, "again"));
    let asked_again = client.expect("session/request_permission");
    client.respond(
        &asked,
        r#"{"outcome":{"outcome":"selected","optionId":"late"}}"#,
    );
    client.respond(
        &asked_again,
        r#"{"outcome":{"outcome":"selected","optionId":"new"}}"#,
    );
    client.answer(turn).unwrap();
    assert_eq!(
        answers(&setup, 1)[0]["result"]["outcome"]["optionId"],
        "new"
    );
    assert!(!setup.received().join("\n").contains("late"));
}

#[test]
fn forms_and_links_reach_the_client_and_their_answers_the_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let requests = [
        (
            "elicitation/create",
            json!({"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}),
        ),
        (
            "elicitation/create",
            json!({"mode": "url", "message": "Log in", "elicitationId": "e", "url": "https://example.org"}),
        ),
    ];
    client.answers.insert(
        "elicitation/create",
        r#"{"action":"accept","content":{"n":1.0}}"#.into(),
    );
    let answered = ask(&setup, &mut client, &requests);
    for answer in answered {
        assert_eq!(
            answer["result"].to_string(),
            r#"{"action":"accept","content":{"n":1.0}}"#
        );
    }
}

#[test]
fn a_swapped_folder_is_not_followed_out() {
    let setup = Setup::new();
    let workspace = setup.workspace();
    let outside = setup.path().join("outside");
    for folder in [&workspace.join("a"), &outside] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("f"), "x").unwrap();
    }
    let mut client = setup.connect();
    let path = workspace.join("a/f");
    let mut steps = vec![setup.record()];
    steps.extend(asking(&[("fs/read_text_file", json!({"path": path}))]));
    let session = client.new_session_of(&steps);
    std::fs::rename(workspace.join("a"), workspace.join("b")).unwrap();
    symlink(&outside, workspace.join("a")).unwrap();
    client.prompt(&session, "go").unwrap();
    let error = &answers(&setup, 1)[0]["error"];
    assert_eq!(
        error["message"],
        format!(
            "Invalid params: {}: a symlink leads out of the session's folders",
            shown(&path)
        )
    );
    assert!(wait_until(
        || client.is_quiet(std::time::Duration::from_millis(20))
    ));
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
