//! Rules and answers for always, with the requests that real agents make.

use serde_json::{Value, json};

use super::{events, open_all};
use crate::support::bare::Bare;
use crate::support::peers;

#[test]
fn rules_and_answers_for_always_fit_what_real_agents_ask() {
    // pi asks nothing.
    let asking = [peers::ALL[1], peers::ALL[2], peers::ALL[3]];
    let rules = "[[permissions.rules]]\nkind = [\"execute\"]\ncommand = \"rm *\"\ndecide = \"deny\"\n\
                 [[permissions.rules]]\ncommand = \"touch ruled-*\"\ndecide = \"allow\"\n";
    let (mut acpbox, sessions, site, _model) = open_all(&asking, rules);
    let workspace = site.folder().join("work/project");
    // Who is asked for leave to run a command, by how many questions.
    let run = |acpbox: &mut Bare, session: &str, command: &str| {
        acpbox.received.clear();
        acpbox.prompt(session, &format!("[[shell:{command}]]"));
        acpbox.count("session/request_permission")
    };
    for ((name, _), session) in asking.iter().zip(&sessions) {
        let file = format!("ruled-{name}");
        let asked = run(&mut acpbox, session, &format!("touch {file}"));
        assert_eq!(asked, 0, "{name}");
        assert!(workspace.join(&file).exists(), "{name}");
        let asked = run(&mut acpbox, session, &format!("rm {file}"));
        assert_eq!(asked, 0, "{name}");
        assert!(workspace.join(&file).exists(), "{name} was not refused");
        let decided = decisions(&mut acpbox, session);
        assert_eq!(decided, [json!(2), json!(1)], "{name}");
        // claude offers no answer for always here.
        if *name == "claude" {
            continue;
        }
        acpbox.choice = "allow_always";
        let made = format!("made-{name}");
        let asked = run(&mut acpbox, session, &format!("mkdir -p {made}"));
        assert_eq!(asked, 1, "{name}");
        // Another session, whose agent was never told.
        let params =
            json!({"cwd": workspace, "mcpServers": [], "_meta": {"acpbox": {"agent": name}}});
        let created = acpbox.request("session/new", params);
        let other = created["sessionId"].as_str().unwrap();
        std::fs::remove_dir(workspace.join(&made)).unwrap();
        let asked = run(&mut acpbox, other, &format!("mkdir -p {made}"));
        assert_eq!(asked, 0, "{name}");
        assert!(workspace.join(&made).exists(), "{name}");
    }
}

/// The numbers of the rules that decided.
fn decisions(acpbox: &mut Bare, session: &str) -> Vec<Value> {
    let events = events(acpbox, session);
    let decided = events
        .iter()
        .filter(|event| event["kind"] == "_acpbox/permission/decided");
    decided
        .map(|event| event["message"]["params"]["rule"].clone())
        .collect()
}
