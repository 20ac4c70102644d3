//! The example agent, without acpbox in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bare::{Bare, prompt};

/// An agent with a home and a workspace of its own.
struct Example {
    agent: Bare,
    folder: TempDir,
}

impl Example {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("workspace")).unwrap();
        let agent = spawn(folder.path());
        Self { agent, folder }
    }

    /// The same home and workspace with a new process.
    fn restart(&mut self) {
        self.agent = spawn(self.folder.path());
        self.initialize();
    }

    fn initialize(&mut self) -> Value {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {}});
        self.agent.request("initialize", params)
    }

    fn open(&mut self, capabilities: Value) -> String {
        let workspace = self.workspace();
        self.agent.open_session(capabilities, &workspace)
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.workspace().join(name)).ok()
    }
}

fn spawn(folder: &Path) -> Bare {
    let env = BTreeMap::from([
        ("HOME".to_owned(), folder.to_string_lossy().into_owned()),
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        (
            "ACPBOX_INSTRUCTIONS".to_owned(),
            "Be kind.\nAnd short.".to_owned(),
        ),
    ]);
    let args = ["example-agent".to_owned()];
    Bare::start(Path::new(env!("CARGO_BIN_EXE_acpbox")), &args, &env)
}

fn statuses(agent: &Bare) -> impl Iterator<Item = &str> {
    let updates = agent.updates("tool_call_update");
    updates.filter_map(|update| update["status"].as_str())
}

#[test]
fn a_plain_prompt_gets_a_tour() {
    let mut example = Example::start();
    std::fs::write(example.workspace().join("notes.txt"), "first line\nsecond").unwrap();
    let session = example.open(json!({}));
    let answer = example
        .agent
        .prompt(&session, "Hello, please read notes.txt!");

    assert_eq!(answer["stopReason"], "end_turn");
    let text = example.agent.text();
    assert!(
        text.contains("`notes.txt` has 2 lines and begins: first line"),
        "{text}"
    );
    assert!(
        text.contains(example.workspace().to_str().unwrap()),
        "{text}"
    );
    let written = example.read("acpbox-example.md").unwrap();
    assert!(
        written.contains("> Hello, please read notes.txt!"),
        "{written}"
    );
    let kinds: Vec<&Value> = example
        .agent
        .updates("tool_call")
        .map(|it| &it["kind"])
        .collect();
    assert_eq!(kinds, ["search", "read", "edit", "execute"]);
    assert_eq!(example.agent.count("session/request_permission"), 1);
    let plan = example.agent.updates("plan").last().unwrap();
    let done = plan["entries"].as_array().unwrap();
    assert_eq!(done.len(), 3);
    assert!(
        done.iter().all(|entry| entry["status"] == "completed"),
        "{plan}"
    );
    assert_eq!(example.agent.updates("usage_update").count(), 1);
}

#[test]
fn directives_are_followed_in_order_and_nothing_else_happens() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    let directives = "[[think:hm]][[write:a/b.txt|one two]][[edit:a/b.txt|two|three]]\
        [[read:a/b.txt]][[shell:cat a/b.txt; echo oops >&2; exit 3]][[slow:1]]\
        [[ask:May I?]][[instructions:]][[env:ACPBOX_NOT_SET]][[mcp:]][[say: said ]]";
    let answer = example.agent.prompt(&session, directives);
    assert_eq!(answer["stopReason"], "end_turn");
    assert_eq!(
        example.agent.text(),
        "chunk0 ASK allow_onceBe kind.ACPBOX_NOT_SET is not setnone said DONE 4 tool results"
    );
    assert_eq!(example.read("a/b.txt").unwrap(), "one three");
    let shell = example
        .agent
        .updates("tool_call_update")
        .find(|it| it["rawOutput"].is_object());
    let shell = &shell.unwrap()["rawOutput"];
    assert_eq!(shell["output"], "one threeoops\n");
    assert_eq!(shell["status"], "exit code 3");
    let ended: Vec<&str> = statuses(&example.agent)
        .filter(|it| *it != "in_progress")
        .collect();
    assert_eq!(
        ended,
        ["completed", "completed", "completed", "failed", "completed"]
    );
    assert_eq!(example.agent.updates("agent_thought_chunk").count(), 1);
}

#[test]
fn a_rejected_write_is_not_made_and_mode_auto_asks_nothing() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    example.agent.choice = "reject_once";
    example.agent.prompt(&session, "[[write:no.txt|x]]");
    assert_eq!(example.read("no.txt"), None);
    assert_eq!(statuses(&example.agent).collect::<Vec<_>>(), ["failed"]);
    assert!(example.agent.text().ends_with("DONE 1 tool results"));

    let params = json!({"sessionId": session, "modeId": "auto"});
    example.agent.request("session/set_mode", params);
    example.agent.prompt(&session, "[[write:yes.txt|x]]");
    assert_eq!(example.read("yes.txt").unwrap(), "x");
    assert_eq!(example.agent.count("session/request_permission"), 1);
}

#[test]
fn an_always_allowed_write_is_asked_for_once() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    example.agent.choice = "allow_always";
    example
        .agent
        .prompt(&session, "[[write:one.txt|x]][[write:two.txt|x]]");
    assert_eq!(example.agent.count("session/request_permission"), 1);
    assert_eq!(example.read("two.txt").unwrap(), "x");
}

#[test]
fn files_and_commands_go_through_a_client_that_offers_them() {
    let mut example = Example::start();
    let answers = &mut example.agent.answers;
    answers.insert("fs/read_text_file", json!({"content": "the editor's text"}));
    answers.insert("fs/write_text_file", json!({}));
    answers.insert("terminal/create", json!({"terminalId": "t1"}));
    answers.insert(
        "terminal/wait_for_exit",
        json!({"exitCode": 0, "signal": null}),
    );
    answers.insert(
        "terminal/output",
        json!({"output": "hi\n", "truncated": false}),
    );
    answers.insert("terminal/release", json!({}));
    let fs = json!({"readTextFile": true, "writeTextFile": true});
    let session = example.open(json!({"fs": fs, "terminal": true}));
    example
        .agent
        .prompt(&session, "[[edit:a.txt|text|words]][[shell:echo hi]]");

    let call = |method: &str| {
        let call = example
            .agent
            .received
            .iter()
            .find(|it| it["method"] == method);
        call.unwrap_or_else(|| panic!("no {method}"))["params"].clone()
    };
    assert_eq!(call("fs/write_text_file")["content"], "the editor's words");
    assert_eq!(call("terminal/create")["args"], json!(["-c", "echo hi"]));
    assert_eq!(call("terminal/release")["terminalId"], "t1");
    assert_eq!(example.read("a.txt"), None);
    assert!(example.agent.text().ends_with("DONE 2 tool results"));
}

#[test]
fn a_cancelled_turn_ends_at_once_whatever_it_waits_for() {
    let marker = format!("sleep 60.{}", std::process::id());
    for waiting in [
        "[[slow:600]]".to_owned(),
        format!("[[shell:{marker}]]"),
        "[[flood:999999999]]".to_owned(),
    ] {
        let mut example = Example::start();
        let session = example.open(json!({}));
        let id = example
            .agent
            .send_request("session/prompt", prompt(&session, &waiting));
        example.agent.wait_for(|it| {
            let kind = &it["params"]["update"]["sessionUpdate"];
            kind == "agent_message_chunk" || kind == "tool_call"
        });
        let start = Instant::now();
        example
            .agent
            .notify("session/cancel", json!({"sessionId": session}));
        let answer = example.agent.answer(id).unwrap();
        assert_eq!(answer["stopReason"], "cancelled", "{waiting}");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{waiting}: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(processes(&marker), "", "the command was left behind");
}

#[test]
fn a_cancelled_request_ends_its_turn_too() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    let id = example
        .agent
        .send_request("session/prompt", prompt(&session, "[[slow:600]]"));
    example
        .agent
        .notify("$/cancel_request", json!({"requestId": id}));
    assert_eq!(example.agent.answer(id).unwrap()["stopReason"], "cancelled");
}

#[test]
fn a_session_is_replayed_resumed_listed_and_deleted_by_a_later_process() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    let cwd = example.workspace();
    let options = json!({"sessionId": session, "configId": "model", "value": "example-large"});
    example.agent.request("session/set_config_option", options);
    example
        .agent
        .prompt(&session, "[[say:remember ]][[say:me]][[write:a.txt|x]]");
    example.restart();

    let params = json!({"sessionId": session, "cwd": cwd, "mcpServers": []});
    let loaded = example.agent.request("session/load", params.clone());
    assert_eq!(loaded["configOptions"][0]["currentValue"], "example-large");
    assert_eq!(example.agent.text(), "remember meDONE 1 tool results");
    let calls: Vec<&Value> = example.agent.updates("tool_call").collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["status"], "completed");
    assert_eq!(example.agent.updates("user_message_chunk").count(), 1);

    example.restart();
    example.agent.request("session/resume", params.clone());
    assert_eq!(example.agent.text(), "");
    example.agent.prompt(&session, "[[say:again]]");

    let listed = |example: &mut Example, cwd: &Path| {
        let answer = example.agent.request("session/list", json!({"cwd": cwd}));
        answer["sessions"].as_array().unwrap().len()
    };
    assert_eq!(listed(&mut example, &cwd), 1);
    assert_eq!(listed(&mut example, Path::new("/elsewhere")), 0);
    example
        .agent
        .request("session/close", json!({"sessionId": session}));
    example
        .agent
        .request("session/delete", json!({"sessionId": session}));
    assert_eq!(listed(&mut example, &cwd), 0);
    let id = example.agent.send_request("session/load", params);
    assert_eq!(example.agent.answer(id).unwrap_err()["code"], -32002);
}

#[test]
fn a_flood_is_numbered_without_gaps() {
    let mut example = Example::start();
    let session = example.open(json!({}));
    example.agent.prompt(&session, "[[flood:1000]]");
    let expected: String = (0..1000).map(|number| format!("{number:010} ")).collect();
    assert_eq!(
        example.agent.text(),
        format!("{expected}DONE 0 tool results")
    );
}

#[test]
fn refusing_exiting_and_wrong_requests_show_as_such() {
    let mut example = Example::start();
    assert_eq!(example.initialize()["agentInfo"]["name"], "acpbox-example");
    let session = example.open(json!({}));
    assert_eq!(
        example.agent.prompt(&session, "[[refuse:]]")["stopReason"],
        "refusal"
    );

    let mut fails = |method: &str, params: Value| {
        let id = example.agent.send_request(method, params);
        example.agent.answer(id).unwrap_err()
    };
    let error = fails("session/prompt", prompt(&session, "[[slow:soon]]"));
    assert_eq!(error["data"], "[[slow:N]] needs a number, not `soon`");
    assert_eq!(
        fails("session/prompt", prompt("nobody", "hi"))["code"],
        -32002
    );
    assert_eq!(
        fails("session/new", json!({"cwd": "here", "mcpServers": []}))["code"],
        -32602
    );
    assert_eq!(fails("session/new", json!({}))["code"], -32602);
    assert_eq!(fails("_nobody/knows", json!({}))["code"], -32601);

    example
        .agent
        .send_request("session/prompt", prompt(&session, "[[exit:7]]"));
    let status = example.agent.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn the_end_of_its_input_ends_it_and_its_command_during_a_turn() {
    let marker = format!("sleep 61.{}", std::process::id());
    let mut example = Example::start();
    let session = example.open(json!({}));
    let shell = format!("[[shell:{marker}]]");
    example
        .agent
        .send_request("session/prompt", prompt(&session, &shell));
    let start = Instant::now();
    while processes(&marker).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "no command");
    }
    let status = example.agent.close(Duration::from_secs(2)).unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(processes(&marker), "");
}

/// Ids of the processes whose command line holds the marker.
fn processes(marker: &str) -> String {
    let mut pgrep = std::process::Command::new("pgrep");
    let found = pgrep.args(["-f", marker]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}
