//! Rules and requests in, verdicts out.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Environment, Overrides};

fn settings(toml: &str) -> Permissions {
    let environment = Environment::from_variables([("HOME", "/home/u")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let overrides = Overrides {
        config: Some(file.path().to_owned()),
        ..Overrides::default()
    };
    let config = Config::load(&environment, &overrides).unwrap();
    Permissions::clone(&config.permissions)
}

/// A request of the agent `a` for this tool call, in a session that works in `/w`.
fn request(call: &Value) -> Request {
    read(
        &json!({ "toolCall": call }).to_string(),
        &ToolCalls::default(),
    )
}

fn read(params: &str, known: &ToolCalls) -> Request {
    let locate = |path: &Path| {
        let below = path.strip_prefix("/w").ok()?;
        Some(Place {
            absolute: path.to_owned(),
            below: below.to_owned(),
        })
    };
    Request::read(Some(params), known, "a", "/w".into(), locate)
}

fn offered() -> Offered {
    Offered::read(Some(
        r#"[{"optionId":"aa","kind":"allow_always"},{"optionId":"a","kind":"allow_once"},
            {"optionId":"r","kind":"reject_once"}]"#,
    ))
}

/// `allow`, `deny` or `ask`, by the rules alone.
fn verdict(settings: &Permissions, request: &Request) -> &'static str {
    match decide(settings, request, &offered(), |_| None) {
        Verdict::Ask { .. } => "ask",
        Verdict::Decided { option, .. } if option.as_deref() == Some("a") => "allow",
        Verdict::Decided { option, .. } if option.as_deref() == Some("r") => "deny",
        other => panic!("{other:?}"),
    }
}

/// What rules say to tool calls.
#[track_caller]
fn check(toml: &str, expected: &[(Value, &str)]) {
    let settings = settings(toml);
    for (call, wanted) in expected {
        assert_eq!(verdict(&settings, &request(call)), *wanted, "{call}");
    }
}

fn run(command: &str) -> Value {
    json!({ "kind": "execute", "title": "run", "rawInput": { "command": command } })
}

fn edit(paths: &[&str]) -> Value {
    let locations: Vec<Value> = paths.iter().map(|path| json!({ "path": path })).collect();
    json!({ "kind": "edit", "title": "Edit", "locations": locations })
}

#[test]
fn the_first_rule_that_fits_decides_and_else_the_default() {
    let rules = r#"
        [permissions]
        default = "deny"
        [[permissions.rules]]
        agent = "other"
        decide = "allow"
        [[permissions.rules]]
        workspace = "/w/below"
        decide = "allow"
        [[permissions.rules]]
        kind = ["read", "search"]
        decide = "allow"
        [[permissions.rules]]
        agent = "a"
        workspace = "/w"
        kind = ["edit"]
        title = "Edit *.md"
        decide = "ask"
        [[permissions.rules]]
        kind = ["edit"]
        decide = "allow"
    "#;
    let call = |kind: &str, title: &str| json!({ "kind": kind, "title": title });
    check(
        rules,
        &[
            (call("read", "x"), "allow"),
            (call("edit", "Edit a.md"), "ask"),
            (call("edit", "Edit a.rs"), "allow"),
            (call("execute", "x"), "deny"),
        ],
    );
    check("", &[(call("read", "x"), "ask")]);
}

#[test]
fn a_command_is_allowed_only_without_what_a_shell_obeys() {
    let rules = r#"
        [[permissions.rules]]
        command = "git push*"
        decide = "deny"
        [[permissions.rules]]
        command = "cargo *"
        decide = "allow"
        [[permissions.rules]]
        command = "ls * | head *"
        decide = "allow"
        [[permissions.rules]]
        kind = ["execute"]
        title = "git status*"
        decide = "allow"
    "#;
    let words = |words: Value| json!({ "kind": "execute", "rawInput": { "command": words } });
    check(
        rules,
        &[
            (run("cargo test --all 'a b'"), "allow"),
            (run("cargo test; rm -rf /"), "ask"),
            (run("cargo test && curl x"), "ask"),
            (run("cargo test | sh"), "ask"),
            (run("cargo test $(reboot)"), "ask"),
            (run("cargo test `reboot`"), "ask"),
            (run("cargo test > /etc/passwd"), "ask"),
            (run("cargo test\nreboot"), "ask"),
            (run("xcargo test"), "ask"),
            (run("ls -l | head -3"), "allow"),
            (run("ls -l | head -3 | sh"), "ask"),
            (run("git push --force && true"), "deny"),
            (words(json!(["cargo", "test"])), "allow"),
            (words(json!(["bash", "-lc", "cargo test"])), "allow"),
            (words(json!(["bash", "-lc", "cargo test; reboot"])), "ask"),
            (words(json!(["cargo", "a;b"])), "ask"),
            (words(json!(["/tmp/bash", "-lc", "cargo test"])), "ask"),
            (words(json!(["cargo", 1])), "ask"),
            (
                json!({"kind": "execute", "rawInput": {"command": "cargo", "args": ["test"]}}),
                "allow",
            ),
            (
                json!({"kind": "execute", "rawInput": {"command": "cargo", "args": "test"}}),
                "ask",
            ),
            // Not a command, though it is called so.
            (
                json!({"kind": "edit", "rawInput": {"command": "cargo x"}}),
                "ask",
            ),
        ],
    );
    // By its title alone, in quotes or not.
    let by_title = r#"
        [[permissions.rules]]
        title = "git status*"
        decide = "allow"
    "#;
    let titled = |title: &str| json!({ "kind": "execute", "title": title });
    check(
        by_title,
        &[
            (titled("git status -s"), "allow"),
            (titled("`git status`"), "allow"),
            (titled("git status; reboot"), "ask"),
            (titled("`git status` `reboot`"), "ask"),
        ],
    );
}

#[test]
fn every_file_must_fit_to_allow_and_any_is_enough_to_deny() {
    let rules = r#"
        [[permissions.rules]]
        path = "**/.env*"
        decide = "deny"
        [[permissions.rules]]
        path = "/w/top/*"
        decide = "allow"
        [[permissions.rules]]
        kind = ["edit"]
        path = "src/**"
        decide = "allow"
    "#;
    // Some agents guess at the files of a command.
    let running = |path: &str| {
        let mut call = run("curl x");
        call["locations"] = json!([{ "path": path }]);
        call
    };
    let with_change = |path: &str| {
        let mut call = edit(&["/w/src/a.rs"]);
        call["content"] =
            json!([{"type": "content"}, {"type": "diff", "path": path, "newText": ""}]);
        call
    };
    check(
        rules,
        &[
            (edit(&["/w/src/a.rs"]), "allow"),
            (edit(&["src/a.rs"]), "allow"),
            (edit(&["/w/src/a.rs", "/w/src/b/c.rs"]), "allow"),
            (edit(&["/w/src/a.rs", "/w/b.rs"]), "ask"),
            (edit(&["/w/src/a.rs", "/elsewhere/b.rs"]), "ask"),
            (edit(&["/w/src/a.rs", "/w/src/.env"]), "deny"),
            (edit(&["/w/top/a"]), "allow"),
            (edit(&["/w/top/a/b"]), "ask"),
            (with_change("/w/src/b.rs"), "allow"),
            (with_change("/w/b.rs"), "ask"),
            (with_change("/w/.env"), "deny"),
            (running("/w/top/a"), "ask"),
            (running("/w/.env"), "deny"),
            (edit(&[]), "ask"),
        ],
    );
}

#[test]
fn what_cannot_be_told_to_be_denied_is_asked() {
    let rules = r#"
        [permissions]
        default = "allow"
        [[permissions.rules]]
        command = "rm *"
        decide = "deny"
        [[permissions.rules]]
        kind = ["edit", "delete"]
        path = "secret/**"
        decide = "deny"
    "#;
    check(
        rules,
        &[
            (json!({"kind": "read", "title": "Read"}), "allow"),
            (run("ls"), "allow"),
            (run("rm x"), "deny"),
            (json!({"kind": "execute", "title": "List"}), "ask"),
            (json!({"title": "What is it?"}), "ask"),
            (json!({"kind": "brew_coffee", "title": "x"}), "ask"),
            (edit(&["/w/secret/a"]), "deny"),
            (edit(&["/w/a"]), "allow"),
            (edit(&["/elsewhere"]), "ask"),
            (json!({"kind": "edit", "title": "Edit"}), "ask"),
        ],
    );
}

#[test]
fn what_is_there_to_deceive_is_never_allowed() {
    let allow = settings("[permissions]\ndefault = \"allow\"");
    let titled = |title: &str| request(&json!({ "kind": "read", "title": title }));
    assert_eq!(verdict(&allow, &titled("Read a.txt")), "allow");
    for deceiving in [
        "\u{202e}txt.a daeR",
        "Read\u{1b}[2K",
        "Read\u{9b}2K",
        "Read\na.txt",
        "Read\u{200b}",
        "Read\u{e0041}",
        "Read\u{2028}x",
        &"x".repeat(10_000),
    ] {
        assert_eq!(verdict(&allow, &titled(deceiving)), "ask", "{deceiving:?}");
    }
    assert_eq!(verdict(&allow, &request(&run("ls \u{202e}x"))), "ask");
    for params in [
        "null",
        "[]",
        r#"{"toolCall":7}"#,
        r#"{"toolCall":{"title":"a","title":"b"}}"#,
        r#"{"toolCall":{"title":"a"},"toolCall":{"title":"b"}}"#,
        r#"{"toolCall":{"rawInput":{"command":"a","command":"b"}}}"#,
        r#"{"toolCall":{"title":7}}"#,
    ] {
        let request = read(params, &ToolCalls::default());
        assert_eq!(verdict(&allow, &request), "ask", "{params}");
        assert_eq!(request.subject(), None, "{params}");
    }
    let deny = settings("[permissions]\ndefault = \"deny\"");
    assert_eq!(verdict(&deny, &titled("\u{202e}x")), "deny");
}

#[test]
fn what_was_said_of_a_tool_call_before_counts_too() {
    let mut known = ToolCalls::default();
    let asked =
        |known: &ToolCalls, call: Value| read(&json!({ "toolCall": call }).to_string(), known);
    let note = |known: &mut ToolCalls, update: Value| {
        let is_new = update["sessionUpdate"] == "tool_call";
        let update = update.to_string();
        known.note(&crate::rpc::splice::members(&update).unwrap(), is_new);
    };
    note(
        &mut known,
        json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "t", "kind": "edit",
        "locations": [{"path": "/w/a"}]}),
    );
    note(
        &mut known,
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "title": null,
        "locations": [{"path": "/w/b"}]}),
    );
    note(
        &mut known,
        json!({"sessionUpdate": "tool_call", "toolCallId": "d", "title": "u"}),
    );
    let request = asked(&known, json!({"toolCallId": "c"}));
    assert_eq!(request.call.kind.known().unwrap().name(), "edit");
    assert_eq!(request.call.title.known().unwrap(), "t");
    assert_eq!(request.places.known().unwrap()[0].below, Path::new("b"));
    let request = asked(&known, json!({"toolCallId": "c", "kind": "delete"}));
    assert_eq!(request.call.kind.known().unwrap().name(), "delete");
    let request = asked(&known, json!({"toolCallId": "d"}));
    assert_eq!(request.call.kind.known().unwrap().name(), "other");
    assert_eq!(
        asked(&known, json!({"toolCallId": "e"})).call.kind,
        Said::Nothing
    );
    // As many as may be, and the newest of them.
    for number in 0..100 {
        note(
            &mut known,
            json!({"sessionUpdate": "tool_call", "toolCallId": format!("n{number}"), "kind": "read"}),
        );
    }
    let kind = |id: &str| {
        read(&json!({"toolCall": {"toolCallId": id}}).to_string(), &known)
            .call
            .kind
    };
    assert_eq!(kind("c"), Said::Nothing);
    assert_eq!(kind("n99").known().unwrap().name(), "read");
}

#[test]
fn an_answer_for_always_is_about_the_narrowest_that_is_of_use() {
    let check = |call: Value, expected: Option<(&str, &str, &str)>| {
        let subject = request(&call).subject();
        let found = (subject.as_ref()).map(|it| (it.kind, it.scope, it.text.as_str()));
        assert_eq!(found, expected, "{call}");
    };
    let command = |line| Some(("execute", "command", line));
    check(run("cargo test"), command("cargo test"));
    check(run("a; b"), command("a; b"));
    let mut elsewhere = run("cargo test");
    elsewhere["rawInput"]["cwd"] = "/w".into();
    check(elsewhere.clone(), command("cargo test"));
    elsewhere["rawInput"]["cwd"] = "/tmp".into();
    check(elsewhere, None);
    check(edit(&["/w/src/a"]), Some(("edit", "folder", "/w/src")));
    let both = "[\"/w/docs\",\"/w/src\"]";
    check(
        edit(&["/w/src/a", "/w/docs/b", "/w/src/c"]),
        Some(("edit", "folder", both)),
    );
    check(edit(&["/w/src/a", "/etc/b"]), None);
    let titled = |kind: &str| json!({ "kind": kind, "title": "A title" });
    check(titled("fetch"), Some(("fetch", "title", "A title")));
    check(titled("other"), Some(("other", "title", "A title")));
    // Here the title says too little of what is done.
    for kind in [
        "execute",
        "edit",
        "delete",
        "move",
        "read",
        "switch_mode",
        "new",
    ] {
        check(titled(kind), None);
    }
    check(json!({ "title": "A title" }), None);
}

#[test]
fn a_remembered_answer_holds_where_no_rule_does() {
    let call = request(&run("cargo test"));
    let decided = |toml: &str, decision| {
        let found = decide(&settings(toml), &call, &offered(), |_| Some((7, decision)));
        match found {
            Verdict::Decided { by, option, .. } => Some((by, option.unwrap())),
            Verdict::Ask { .. } => None,
        }
    };
    let by_seven = |option: &str| Some((Authority::Remembered(7), option.to_owned()));
    assert_eq!(decided("", Decision::Allow), by_seven("a"));
    assert_eq!(decided("", Decision::Deny), by_seven("r"));
    assert_eq!(
        decided("[permissions]\ndefault = \"deny\"", Decision::Allow),
        by_seven("a")
    );
    assert_eq!(
        decided("[permissions]\nremember = false", Decision::Allow),
        None
    );
    let ask = "[[permissions.rules]]\nkind = [\"execute\"]\ndecide = \"ask\"";
    assert_eq!(decided(ask, Decision::Allow), None);
    let deny = "[[permissions.rules]]\ndecide = \"deny\"";
    assert_eq!(
        decided(deny, Decision::Allow),
        Some((Authority::Rule(1), "r".to_owned()))
    );
}
