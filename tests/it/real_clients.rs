//! Clients that nobody here wrote, driving `acpbox stdio`.
//! `tests/peers/install` installs them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clients;
use crate::support::model::Model;
use crate::support::peers::{self, Launcher};
use crate::support::site::{GUEST_HOME, Site, agent_table};

const ACPBOX: &str = env!("CARGO_BIN_EXE_acpbox");

/// More than any client takes to end what it started.
const LEAVE: Duration = Duration::from_secs(15);

#[test]
fn acpx_executes_prompts_through_acpbox() {
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let agent = format!("{ACPBOX} stdio --agent example");
    for round in ["one", "two"] {
        let text = format!("[[write:{round}.txt|by acpx]][[shell:cat {round}.txt]]");
        let messages = clients::acpx(&agent, &site.environment(), &workspace, &text);
        assert_eq!(stop_reasons(&messages), ["end_turn"]);
        let written = std::fs::read_to_string(workspace.join(format!("{round}.txt"))).unwrap();
        assert_eq!(written, "by acpx");
        assert!(called(&messages, "session/request_permission"));
        // acpbox serves terminals itself, inside the VM.
        assert!(!called(&messages, "terminal/create"));
    }
    site.watch().expect_none(LEAVE);
    assert_eq!(list(&site).len(), 2);
}

#[test]
fn acpx_revives_a_session_in_a_new_process() {
    revive("example", None, ["resume", "resume"]);
}

#[test]
fn acpx_revives_a_session_of_claude() {
    // Claude keeps nothing of a session before its first prompt.
    revive("claude", Some(peers::claude), ["new", "resume"]);
}

/// Two prompts in one session of acpx, each with an acpbox process of its own.
fn revive(name: &str, launcher: Option<Launcher>, tiers: [&str; 2]) {
    let (site, _model) = with_agent(name, launcher);
    let workspace = site.repository("project");
    let agent = format!("{ACPBOX} stdio --agent {name}");
    let acpx =
        |arguments: &[&str]| clients::acpx_with(&agent, &site.environment(), &workspace, arguments);
    acpx(&["sessions", "new"]);
    for (round, tier) in ["one", "two"].into_iter().zip(tiers) {
        let path = workspace.join(round);
        let text = format!("[[write:{}|by acpx]]", path.display());
        let messages = acpx(&["--ttl", "1", "prompt", &text]);
        assert_eq!(stop_reasons(&messages), ["end_turn"]);
        assert_eq!(std::fs::read_to_string(path).unwrap().trim(), "by acpx");
        assert!(called(&messages, "session/resume"));
        let restored = messages.iter().find_map(|message| {
            let restored = &message["result"]["_meta"]["acpbox"]["restored"];
            restored.is_object().then_some(restored)
        });
        assert_eq!(restored.unwrap()["tier"], tier);
        // The owner of acpx's session has gone, and everything of acpbox with it.
        site.watch().expect_none(LEAVE);
    }
    assert_eq!(list(&site).len(), 1);
}

#[test]
fn the_typescript_sdk_drives_the_example_agent_through_acpbox() {
    sdk("example", None, 1);
}

#[test]
fn the_typescript_sdk_drives_claude_through_acpbox() {
    sdk("claude", Some(peers::claude), 1);
}

#[test]
fn the_typescript_sdk_drives_opencode_through_acpbox() {
    sdk("opencode", Some(peers::opencode), 1);
}

fn sdk(name: &str, launcher: Option<Launcher>, permissions: usize) {
    let (site, model) = with_agent(name, launcher);
    let workspace = site.repository("project");
    if let Some(launcher) = launcher {
        let launch = launcher(model.port(), Path::new(GUEST_HOME));
        let mut acpbox = site.connect(&[]);
        site.furnish(&mut acpbox, &workspace, &[&launch]);
        acpbox.close(LEAVE);
    }
    let path = workspace.join("a.txt");
    let seen = clients::sdk(
        &[ACPBOX, "stdio", "--agent", name],
        &site.environment(),
        &workspace,
        &[
            &format!("[[write:{}|by the SDK]]", path.display()),
            "[[say:and again]]",
        ],
    );
    assert_eq!(seen["initialize"]["agentInfo"]["name"], "acpbox");
    let reasons: Vec<&Value> = (seen["turns"].as_array().unwrap().iter())
        .map(|turn| &turn["stopReason"])
        .collect();
    assert_eq!(reasons, ["end_turn", "end_turn"]);
    let reply = &seen["turns"][1]["_meta"]["acpbox"]["text"];
    assert!(reply.as_str().unwrap().starts_with("and again"), "{reply}");
    assert!(seen["permissions"].as_array().unwrap().len() >= permissions);
    assert_eq!(std::fs::read_to_string(path).unwrap().trim(), "by the SDK");
    assert_eq!(seen["exit"], 0);
    site.watch().expect_none(LEAVE);
}

/// A site where this agent is configured, and the model that it talks to.
fn with_agent(name: &str, launcher: Option<Launcher>) -> (Site, Model) {
    let model = Model::start();
    let site = Site::with_peers();
    if let Some(launcher) = launcher {
        let launch = launcher(model.port(), Path::new(GUEST_HOME));
        site.configure(&agent_table(name, &launch));
    }
    (site, model)
}

fn stop_reasons(messages: &[Value]) -> Vec<&str> {
    let results = messages
        .iter()
        .map(|message| &message["result"]["stopReason"]);
    results.filter_map(Value::as_str).collect()
}

fn called(messages: &[Value], method: &str) -> bool {
    messages.iter().any(|message| message["method"] == method)
}

/// The sessions that a new process lists.
fn list(site: &Site) -> Vec<Value> {
    let mut acpbox = site.connect(&[]);
    let list = acpbox.request("session/list", json!({}));
    list["sessions"].as_array().unwrap().clone()
}
