//! `terminal/*`: commands run inside the session's VM, never on the host.

use serde_json::{Value, json};

use super::ask;
use crate::support::setup::Setup;

fn create(command: &str, args: &[&str]) -> (&'static str, Value) {
    ("terminal/create", json!({"command": command, "args": args}))
}

fn of(method: &'static str, id: &str) -> (&'static str, Value) {
    (method, json!({"terminalId": id}))
}

/// What a command prints, and how it ends.
#[track_caller]
fn check(params: Value, output: &str, status: Value) {
    let setup = Setup::new();
    std::fs::create_dir(setup.workspace().join("sub")).unwrap();
    let mut params = params;
    if params["cwd"] == "sub" {
        params["cwd"] = json!(setup.workspace().join("sub"));
    }
    let mut client = setup.connect();
    let requests = [
        ("terminal/create", params),
        of("terminal/wait_for_exit", "term_1"),
        of("terminal/output", "term_1"),
        of("terminal/release", "term_1"),
    ];
    let answered = ask(&setup, &mut client, &requests);
    assert_eq!(answered[0]["result"], json!({"terminalId": "term_1"}));
    assert_eq!(answered[1]["result"], status);
    let output = output.replace("$CWD", &setup.workspace().display().to_string());
    assert_eq!(answered[2]["result"]["output"], output);
    assert_eq!(answered[2]["result"]["exitStatus"], status);
    assert_eq!(answered[3]["result"], json!({}));
}

#[test]
fn a_command_has_its_arguments_variables_and_folder() {
    let code = |code: u32| json!({"exitCode": code});
    check(
        json!({"command": "/bin/echo", "args": ["a b", "$HOME", "*"]}),
        "a b $HOME *\n",
        code(0),
    );
    check(
        json!({"command": "echo one; echo two >&2; exit 3"}),
        "one\ntwo\n",
        code(3),
    );
    check(json!({"command": "pwd"}), "$CWD\n", code(0));
    check(
        json!({"command": "pwd", "args": [], "cwd": "sub"}),
        "$CWD/sub\n",
        code(0),
    );
    let env = json!([{"name": "NAME", "value": "va lue"}, {"name": "EMPTY", "value": ""}]);
    check(
        json!({"command": "echo \"[${NAME}][${EMPTY-unset}][$HOME]\"", "env": env}),
        "[va lue][][/home/agent]\n",
        code(0),
    );
}

#[test]
fn output_is_kept_up_to_its_limit_and_whole_characters() {
    let setup = Setup::new().limits("terminal_bytes = 1000");
    let mut client = setup.connect();
    let print = |limit: u64| {
        (
            "terminal/create",
            json!({"command": "printf 0123456789é", "outputByteLimit": limit}),
        )
    };
    let requests = [
        print(3),
        of("terminal/wait_for_exit", "term_1"),
        of("terminal/output", "term_1"),
        print(1),
        of("terminal/wait_for_exit", "term_2"),
        of("terminal/output", "term_2"),
        (
            "terminal/create",
            json!({"command": "yes | head -c 3000000", "outputByteLimit": u64::MAX}),
        ),
        of("terminal/wait_for_exit", "term_3"),
        of("terminal/output", "term_3"),
    ];
    let answered = ask(&setup, &mut client, &requests);
    assert_eq!(answered[2]["result"]["output"], "9é");
    assert_eq!(answered[2]["result"]["truncated"], true);
    assert_eq!(answered[5]["result"]["output"], "");
    assert_eq!(
        answered[8]["result"]["output"].as_str().unwrap().len(),
        1000
    );
    assert_eq!(answered[8]["result"]["truncated"], true);
}

#[test]
fn a_command_can_be_killed_and_released() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let requests = [
        create("echo started; sleep 1000", &[]),
        of("terminal/output", "term_1"),
        of("terminal/kill", "term_1"),
        of("terminal/wait_for_exit", "term_1"),
        of("terminal/kill", "term_1"),
        of("terminal/output", "term_1"),
        of("terminal/release", "term_1"),
        of("terminal/output", "term_1"),
        of("terminal/release", "term_1"),
        of("terminal/wait_for_exit", "term_7"),
        ("terminal/output", json!({})),
    ];
    let answered = ask(&setup, &mut client, &requests);
    assert_eq!(answered[1]["result"]["exitStatus"], Value::Null);
    assert_eq!(answered[3]["result"], json!({"signal": "SIGKILL"}));
    assert_eq!(answered[4]["result"], json!({}));
    assert_eq!(
        answered[5]["result"]["exitStatus"],
        json!({"signal": "SIGKILL"})
    );
    assert_eq!(answered[6]["result"], json!({}));
    for (index, id) in [(7, "term_1"), (8, "term_1"), (9, "term_7")] {
        let error = &answered[index]["error"];
        assert_eq!(error["code"], -32002);
        assert_eq!(
            error["message"],
            format!("Resource not found: there is no terminal `{id}` in this session")
        );
    }
    assert_eq!(
        answered[10]["error"]["message"],
        "Invalid params: `terminalId` is missing, a string"
    );
}

#[test]
fn a_command_that_cannot_run_says_why() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let requests = [
        create("no-such-program", &["x"]),
        (
            "terminal/create",
            json!({"command": "pwd", "cwd": "/no/such/folder"}),
        ),
        ("terminal/create", json!({"args": []})),
        ("terminal/unknown", json!({})),
    ];
    client
        .answers
        .insert("terminal/unknown", "\"the client's\"".into());
    let answered = ask(&setup, &mut client, &requests);
    let message = |index: usize| answered[index]["error"]["message"].as_str().unwrap();
    assert!(
        message(0).starts_with("Invalid params: `command` could not be started: "),
        "{}",
        message(0)
    );
    assert!(message(0).contains("no-such-program"), "{}", message(0));
    assert!(message(1).contains("/no/such/folder"), "{}", message(1));
    assert!(
        message(2).starts_with("Invalid params: terminal/create: missing field `command`"),
        "{}",
        message(2)
    );
    // What acpbox does not serve is the client's business.
    assert_eq!(answered[3]["result"], "the client's");
}

#[test]
fn commands_run_in_the_vm_and_not_on_the_host() {
    let setup = Setup::new().variable("HOST_CANARY", "canary-of-the-host");
    let secret = setup.path().join("home/secret");
    std::fs::write(&secret, "canary-in-home").unwrap();
    let mut client = setup.connect();
    let script = format!(
        "readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/uts; cat {}; env; \
         cat /proc/*/environ; echo; ls -d /proc/[0-9]* | wc -l",
        secret.display()
    );
    let requests = [
        create("/bin/sh", &["-c", &script]),
        of("terminal/wait_for_exit", "term_1"),
        of("terminal/output", "term_1"),
    ];
    let answered = ask(&setup, &mut client, &requests);
    let output = answered[2]["result"]["output"].as_str().unwrap();
    for name in ["pid", "mnt", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(
            !output.contains(&host.display().to_string()),
            "{name}: {output}"
        );
        assert!(output.contains(&format!("{name}:[")), "{output}");
    }
    assert!(!output.contains("canary"), "{output}");
    let processes: usize = output.lines().last().unwrap().parse().unwrap();
    assert!(processes < 12, "{processes} processes");
}

#[test]
fn commands_do_not_see_the_agents_secrets() {
    let setup = Setup::new()
        .agent("pass_env = [\"TOKEN\"]\nenv = { PLAIN = \"agent-plain-canary\" }")
        .variable("TOKEN", "agent-token-canary");
    let mut client = setup.connect();
    let mut steps = vec![
        setup.record(),
        json!({"environment": setup.workspace().join("env")}),
    ];
    let requests = [
        create("env", &[]),
        of("terminal/wait_for_exit", "term_1"),
        of("terminal/output", "term_1"),
    ];
    steps.extend(super::asking(&requests));
    setup.script(&steps);
    let session = client.new_session();
    client.prompt(&session, "go").unwrap();
    let agent = std::fs::read_to_string(setup.workspace().join("env")).unwrap();
    assert!(agent.contains("TOKEN=agent-token-canary\n"), "{agent}");
    let output = super::answers(&setup, 3)[2]["result"]["output"].clone();
    assert!(!output.as_str().unwrap().contains("canary"), "{output}");
    assert!(
        output.as_str().unwrap().contains("HOME=/home/agent"),
        "{output}"
    );
}

#[test]
fn commands_end_with_their_agent() {
    let setup = Setup::new();
    let mut client = setup.connect();
    let beat = setup.workspace().join("beat");
    let command = format!("while :; do echo >> {}; sleep 0.05; done", beat.display());
    setup.script(&[
        crate::support::steps::expect_prompt(),
        json!({"send": {"jsonrpc": "2.0", "id": 0, "method": "terminal/create", "params": {"sessionId": "$SESSION", "command": command}}}),
        json!({"expect_answer": 0}),
        json!({"sleep_ms": 300}),
        json!({"exit": 1}),
    ]);
    // Another session keeps the VM alive.
    client.new_session_of(&[]);
    let session = client.new_session();
    client.prompt(&session, "go").unwrap_err();
    let beats = || std::fs::metadata(&beat).unwrap().len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let before = beats();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(beats(), before);
}
