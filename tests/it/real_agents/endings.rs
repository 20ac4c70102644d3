//! Real agents whose acpbox ended, in three ways, and who are asked to go on;
//! and who are forked.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bare::Bare;
use crate::support::model::Model;
use crate::support::peers::{self, Launcher};
use crate::support::site::{GUEST_HOME, Site, agent_table};

#[test]
fn pi_goes_on_however_acpbox_ended() {
    check("pi", peers::pi, "load");
}

#[test]
fn opencode_goes_on_however_acpbox_ended() {
    check("opencode", peers::opencode, "resume");
}

#[test]
fn claude_goes_on_however_acpbox_ended() {
    check("claude", peers::claude, "resume");
}

#[test]
fn pi_without_its_own_memory_goes_on_with_the_history() {
    let (site, model, workspace) = begin("pi", peers::pi);
    let mut acpbox = site.connect(&["--agent", "pi"]);
    let (session, vm) = open(&mut acpbox, &workspace);
    acpbox.prompt(&session, "the word is heron [[say:noted]]");
    acpbox.close(Duration::from_secs(20));
    // What it kept of its sessions is lost, and with it that there were any.
    for kept in [".pi/agent/sessions", ".pi/pi-acp"] {
        std::fs::remove_dir_all(site.vm_home(&vm).join(kept)).unwrap();
    }
    let mut acpbox = site.connect(&[]);
    let restored = resume(&mut acpbox, &session, &workspace);
    assert_eq!(restored["tier"], "new", "{restored}");
    assert!(restored["preamble"].is_object(), "{restored}");
    acpbox.prompt(&session, "[[say:after the loss]]");
    expect_memory(&model, "after the loss", "the word is heron");
    acpbox.close(Duration::from_secs(20));
}

#[test]
fn opencode_and_claude_fork_their_own_sessions() {
    let agents: [(&str, Launcher); 2] = [("opencode", peers::opencode), ("claude", peers::claude)];
    for (name, launcher) in agents {
        let (site, model, workspace) = begin(name, launcher);
        let mut acpbox = site.connect(&["--agent", name]);
        let (session, _) = open(&mut acpbox, &workspace);
        acpbox.prompt(&session, "the word is heron [[say:noted]]");
        let params = json!({"sessionId": session, "cwd": workspace, "mcpServers": []});
        let forked = acpbox.request("session/fork", params);
        let restored = &forked["_meta"]["acpbox"]["restored"];
        assert_eq!(restored["tier"], "fork", "{name}: {restored}");
        let fork = forked["sessionId"].as_str().unwrap().to_owned();
        acpbox.prompt(&fork, "[[say:in the fork]]");
        expect_memory(&model, "in the fork", "the word is heron");
        acpbox.prompt(&session, "[[say:in the source]]");
        let mixed = model.requests().iter().any(|request| {
            let body = request.body.to_string();
            body.contains("in the fork") && body.contains("in the source")
        });
        assert!(!mixed, "{name}: the two are one");
        acpbox.close(Duration::from_secs(20));
        let mut acpbox = site.connect(&[]);
        resume(&mut acpbox, &fork, &workspace);
        acpbox.prompt(&fork, "[[say:later]]");
        expect_memory(&model, "later", "in the fork");
        acpbox.close(Duration::from_secs(20));
    }
}

/// Three rounds: the end of its input, SIGTERM, SIGKILL.
fn check(name: &str, launcher: Launcher, tier: &str) {
    let (site, model, workspace) = begin(name, launcher);
    let mut acpbox = site.connect(&["--agent", name]);
    let params = json!({"cwd": workspace, "mcpServers": []});
    let created = acpbox.request("session/new", params);
    let session = created["sessionId"].as_str().unwrap().to_owned();
    let has_plan = mode(&created).is_some_and(|mode| mode != "plan");
    if has_plan {
        set_plan(&mut acpbox, &session, &created);
    }
    acpbox.prompt(&session, "the word is heron [[say:noted]]");
    for (round, signal) in [None, Some(Signal::TERM), Some(Signal::KILL)]
        .into_iter()
        .enumerate()
    {
        let status = match signal {
            None => acpbox.close(Duration::from_secs(20)),
            Some(signal) => {
                acpbox.signal(signal);
                acpbox.wait(Duration::from_secs(20))
            }
        };
        assert!(status.is_some(), "{name} outlives {signal:?}");
        acpbox = site.connect(&[]);
        let params = json!({"sessionId": session, "cwd": workspace, "mcpServers": []});
        let loaded = acpbox.request("session/resume", params);
        let restored = &loaded["_meta"]["acpbox"]["restored"];
        println!("{name}, {signal:?}: {restored}");
        assert_eq!(restored["tier"], tier, "{name}, {signal:?}: {restored}");
        if has_plan {
            assert_eq!(mode(&loaded).as_deref(), Some("plan"), "{name}: {restored}");
        }
        let text = format!("round {round}");
        let answer = acpbox.prompt(&session, &format!("[[say:{text}]]"));
        // Some agents add a word about themselves.
        let reply = answer["_meta"]["acpbox"]["text"].as_str().unwrap();
        assert!(reply.starts_with(&text), "{name}: {answer}");
        expect_memory(&model, &text, "the word is heron");
    }
    acpbox.close(Duration::from_secs(20));
}

/// The mode, where there is one that is called `plan`.
fn mode(result: &Value) -> Option<String> {
    let modes = &result["modes"];
    if modes["availableModes"]
        .to_string()
        .contains("\"id\":\"plan\"")
    {
        return modes["currentModeId"].as_str().map(str::to_owned);
    }
    let option = mode_option(result)?;
    let current = option["currentValue"].as_str().map(str::to_owned);
    current.filter(|_| option["options"].to_string().contains("\"value\":\"plan\""))
}

fn mode_option(result: &Value) -> Option<&Value> {
    let options = result["configOptions"].as_array()?;
    options.iter().find(|option| option["category"] == "mode")
}

fn set_plan(acpbox: &mut Bare, session: &str, created: &Value) {
    match mode_option(created) {
        Some(option) => {
            let params = json!({"sessionId": session, "configId": option["id"], "value": "plan"});
            acpbox.request("session/set_config_option", params);
        }
        None => {
            let params = json!({"sessionId": session, "modeId": "plan"});
            acpbox.request("session/set_mode", params);
        }
    }
}

fn begin(name: &str, launcher: Launcher) -> (Site, Model, std::path::PathBuf) {
    let model = Model::start();
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let launch = launcher(model.port(), Path::new(GUEST_HOME));
    site.configure(&agent_table(name, &launch));
    let mut acpbox = site.connect(&[]);
    site.furnish(&mut acpbox, &workspace, &[&launch]);
    acpbox.close(Duration::from_secs(20));
    (site, model, workspace)
}

/// A session and its VM.
fn open(acpbox: &mut Bare, workspace: &Path) -> (String, String) {
    let created = acpbox.request("session/new", json!({"cwd": workspace, "mcpServers": []}));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&created["sessionId"]),
        text(&created["_meta"]["acpbox"]["vm"]),
    )
}

fn resume(acpbox: &mut Bare, session: &str, workspace: &Path) -> Value {
    let params = json!({"sessionId": session, "cwd": workspace, "mcpServers": []});
    let mut loaded = acpbox.request("session/resume", params);
    loaded["_meta"]["acpbox"]["restored"].take()
}

/// The model was told the earlier words with the later ones.
fn expect_memory(model: &Model, later: &str, earlier: &str) {
    let remembers = model.requests().iter().any(|request| {
        let body = request.body.to_string();
        body.contains(later) && body.contains(earlier)
    });
    assert!(remembers, "{later} was said without {earlier}");
}
