//! Texts and channels in, variables, arguments, files and fields out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::vm::{Network, ProcessSpec};

use super::*;

fn instructions() -> Instructions {
    Instructions {
        base: Some("BASE".into()),
        additional: Some("MORE".into()),
    }
}

fn deliver(channel: &str, env: &[(&str, &str)]) -> Delivery {
    deliver_by(&channel.parse().unwrap(), env)
}

fn deliver_by(channel: &Channel, env: &[(&str, &str)]) -> Delivery {
    let env: BTreeMap<_, _> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    instructions().deliver(
        channel,
        Path::new("/tmp/acpbox/s1"),
        Path::new("/home/agent"),
        &env,
    )
}

fn variable<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    delivery
        .env
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

const FILE: &str = "/tmp/acpbox/s1/instructions.md";

#[test]
fn the_base_text_says_where_the_agent_is_what_lasts_and_what_is_closed() {
    let facts = Facts {
        vm: "repo-1a2b",
        driver: "namespace",
        workspaces: &["/home/me/repo".into(), "/data".into()],
        home: Path::new("/home/agent"),
        network: Network::None,
        protected: &[".git/hooks".into(), ".git/config".into()],
    };
    insta::assert_snapshot!(base_text(&facts), @r"
    You run inside `repo-1a2b`, a virtual machine that acpbox made for this workspace.
    - Workspace: `/home/me/repo`, `/data`. It is shared with the user's computer under the same path; everything else there is out of reach.
    - Kept between sessions: the workspace and your home folder `/home/agent`. The system is read-only; `/tmp` is private.
    - Network: none, apart from loopback.
    - Other sessions may work in this VM at the same time.
    - Read-only in the workspace, because the user's computer would run or trust them: `.git/hooks`, `.git/config`. When a task needs a change there, tell the user what to change.
    ");
    let open = Facts {
        network: Network::Full,
        protected: &[],
        ..facts.clone()
    };
    assert!(base_text(&open).contains("Network: available"));
    assert!(!base_text(&open).contains("Read-only in the workspace"));
    let host = Facts {
        driver: "host",
        ..facts
    };
    assert!(base_text(&host).contains("without isolation"));
}

#[test]
fn skipping_the_base_leaves_what_the_client_added() {
    let only = Instructions::new(None, Some("MORE"));
    assert_eq!(only.text(), "MORE");
    let none = Instructions::new(None, Some("  "));
    let channel = Channel::FirstPrompt;
    let delivery = none.deliver(&channel, Path::new("/t"), Path::new("/h"), &BTreeMap::new());
    assert_eq!(delivery, Delivery::default());
    assert_eq!(deliver("none", &[]), Delivery::default());
}

#[test]
fn each_channel_of_the_configuration_carries_the_whole_text() {
    let text = "BASE\n\nMORE";
    assert_eq!(variable(&deliver("env:X", &[]), "X"), Some(text));
    assert_eq!(deliver("argument:--sys", &[]).args, ["--sys", text]);
    let delivery = deliver("argument-file:--sys", &[]);
    assert_eq!(delivery.args, ["--sys", FILE]);
    assert_eq!(delivery.files, [(PathBuf::from(FILE), text.to_owned())]);
    let delivery = deliver("env-file:X", &[]);
    assert_eq!(variable(&delivery, "X"), Some(FILE));
    assert_eq!(delivery.files, [(PathBuf::from(FILE), text.to_owned())]);
    let delivery = deliver("file:~/.x/AGENTS.md", &[]);
    assert_eq!(
        delivery.files,
        [("/home/agent/.x/AGENTS.md".into(), text.to_owned())]
    );
    assert_eq!(
        deliver("first-prompt", &[]).first_prompt.as_deref(),
        Some(text)
    );
    let meta = deliver("meta:/a~1b/c", &[]).meta;
    assert_eq!(meta, Some(json!({ "a/b": { "c": text } })));
    assert_eq!(
        variable(&deliver("first-prompt", &[]), VARIABLE),
        Some(text)
    );
}

#[test]
fn a_channel_that_does_not_exist_is_named_with_those_that_do() {
    for wrong in [
        "", "env", "env:", "env:1X", "env:A B", "meta:x", "file:x", "prompt",
    ] {
        let message = wrong.parse::<Channel>().unwrap_err().to_string();
        assert!(
            message.contains("first-prompt, none, env:NAME"),
            "{wrong}: {message}"
        );
    }
}

#[test]
fn an_unknown_agent_gets_the_clients_part_in_its_first_prompt() {
    let delivery = deliver_by(&Channel::Unknown, &[]);
    assert_eq!(delivery.first_prompt.as_deref(), Some("MORE"));
    assert_eq!(variable(&delivery, VARIABLE), Some("BASE\n\nMORE"));
}

#[test]
fn a_text_too_long_for_a_variable_goes_into_the_first_prompt() {
    let long = Instructions {
        base: None,
        additional: Some("x".repeat(INLINE_BYTES + 1)),
    };
    let channels = [
        Channel::Environment("X".into()),
        Channel::Argument("--x".into()),
        Channel::Codex,
    ];
    for channel in channels {
        let delivery = long.deliver(&channel, Path::new("/t"), Path::new("/h"), &BTreeMap::new());
        assert_eq!(
            delivery.first_prompt.as_ref().map(String::len),
            Some(INLINE_BYTES + 1)
        );
        assert!(
            delivery.env.is_empty() && delivery.args.is_empty(),
            "{channel:?}"
        );
    }
}

#[test]
fn opencode_keeps_the_instructions_that_its_variable_had() {
    let channel = Channel::ConfigContent {
        variable: "C".into(),
        key: "instructions".into(),
    };
    let content = |env: &[(&str, &str)]| -> Value {
        serde_json::from_str(variable(&deliver_by(&channel, env), "C").unwrap()).unwrap()
    };
    assert_eq!(content(&[]), json!({ "instructions": [FILE] }));
    assert_eq!(
        content(&[("C", r#"{"model":"m","instructions":["a.md"]}"#)]),
        json!({ "model": "m", "instructions": ["a.md", FILE] })
    );
    let with_comments = deliver_by(&channel, &[("C", "{} // mine")]);
    assert_eq!(
        variable(&with_comments, "C"),
        None,
        "the user's own is left alone"
    );
    assert!(with_comments.first_prompt.is_some());
}

#[test]
fn codex_is_told_in_the_words_of_both_its_adapters() {
    let env = [(
        "CODEX_CONFIG",
        r#"{"model":"m","developer_instructions":"MINE"}"#,
    )];
    let mut tricky = instructions();
    tricky.additional = Some("a \"b\" \\ \u{7f} $x 'y'".into());
    let env = env
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    let delivery = tricky.deliver(&Channel::Codex, Path::new("/t"), Path::new("/h"), &env);
    let expected = format!("MINE\n\n{}", tricky.text());
    let [flag, setting] = delivery.args.as_slice() else {
        panic!("{:?}", delivery.args)
    };
    assert_eq!(flag, "-c");
    let table: toml::Table = setting.parse().unwrap();
    assert_eq!(
        table["developer_instructions"].as_str(),
        Some(expected.as_str())
    );
    let config: Value = serde_json::from_str(variable(&delivery, "CODEX_CONFIG").unwrap()).unwrap();
    assert_eq!(
        config,
        json!({ "model": "m", "developer_instructions": expected })
    );
}

#[test]
fn the_clients_own_system_prompt_is_joined_not_replaced() {
    let ours = json!({ "systemPrompt": { "append": "OURS" } });
    let merged = |params: Value| {
        let Value::Object(mut params) = params else {
            unreachable!()
        };
        add_to_session_params(&mut params, &ours);
        Value::Object(params)
    };
    assert_eq!(
        merged(json!({ "cwd": "/" })),
        json!({ "cwd": "/", "_meta": ours })
    );
    assert_eq!(merged(json!({ "_meta": null })), json!({ "_meta": ours }));
    assert_eq!(
        merged(json!({ "_meta": { "x": 1, "systemPrompt": { "append": "A", "y": 2 } } })),
        json!({ "_meta": { "x": 1, "systemPrompt": { "append": "A\n\nOURS", "y": 2 } } })
    );
    assert_eq!(
        merged(json!({ "_meta": { "systemPrompt": "WHOLE" } })),
        json!({ "_meta": { "systemPrompt": "WHOLE\n\nOURS" } })
    );
    let own = |blocks: Value| json!({ "systemPrompt": { "mode": "append", "content": blocks } });
    assert_eq!(
        merged(own(json!([{ "type": "text", "text": "A" }]))),
        own(json!([{ "type": "text", "text": "A" }, { "type": "text", "text": "OURS" }]))
    );
}

#[test]
fn a_session_id_cannot_lead_out_of_the_sessions_folder() {
    assert_eq!(session_folder("01a2-b"), Path::new("/tmp/acpbox/01a2-b"));
    assert_eq!(
        session_folder("../../etc"),
        Path::new("/tmp/acpbox/______etc")
    );
}

#[test]
fn a_wrapped_program_is_started_with_the_flag_and_the_users_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // A stand-in for pi that prints its arguments, in a folder with a hostile name.
    let program = at("it's $HOME `pi`");
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(&program, "#!/bin/sh\nprintf '%s|' \"$@\"\n");
    Command::new("chmod")
        .arg("+x")
        .arg(&program)
        .status()
        .unwrap();
    let own = at("own.md");
    let channel = Channel::Wrapper {
        variable: "PI".into(),
        command: "pi".into(),
        flag: "--sys".into(),
        also: Some(own.to_string_lossy().into_owned()),
    };
    let mut spec = ProcessSpec {
        command: "/bin/sh".into(),
        // A stand-in for the adapter, which starts what the variable names.
        args: ["-c", "\"$PI\" --mode \"$1\"", "adapter", "r p c"]
            .map(str::to_owned)
            .into(),
        env: [("PI".to_owned(), program.to_string_lossy().into_owned())].into(),
        ..ProcessSpec::default()
    };
    let delivery = instructions().deliver(&channel, &at("s"), Path::new("/h"), &spec.env);
    delivery.apply(&mut spec);
    for (path, content) in &spec.files {
        write(path, content);
    }
    let run = || {
        let output = Command::new(&spec.command)
            .args(&spec.args)
            .env_clear()
            .envs(&spec.env)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let ours = format!("--sys|{}|", at("s/instructions.md").display());
    assert_eq!(run(), format!("{ours}--mode|r p c|"));
    write(&own, "mine");
    assert_eq!(
        run(),
        format!("{ours}--sys|{}|--mode|r p c|", own.display())
    );
    assert_eq!(
        std::fs::read_to_string(at("s/instructions.md")).unwrap(),
        "BASE\n\nMORE"
    );
}
