//! A deleted session leaves nothing behind, of the transcript and of its agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bare::Bare;
use crate::support::inside::Inside;
use crate::support::model::Model;
use crate::support::peers::{self, Launcher};
use crate::support::setup::{Setup, wait_until};
use crate::support::site::{GUEST_HOME, Site, agent_table};

const CANARY: &str = "canary-5b1f9";

/// The files below a folder with these bytes in them or in their names; links
/// are not followed.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    let finder = memchr::memmem::Finder::new(text);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let is_named = entry.file_name().to_string_lossy().contains(text);
            let holds = || {
                let bytes = std::fs::read(&path).unwrap_or_default();
                kind.is_file() && finder.find(&bytes).is_some()
            };
            if is_named || holds() {
                found.push(path.clone());
            }
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// Two sessions of an agent with a word of their own each.
struct Two {
    site: Site,
    acpbox: Bare,
    _model: Model,
    /// That to be deleted, and that to be kept.
    sessions: [String; 2],
    disk: PathBuf,
}

const OTHER: &str = "canary-kept";

fn two(name: &str, launcher: Launcher) -> Two {
    let model = Model::start();
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let launch = launcher(model.port(), Path::new(GUEST_HOME));
    site.configure(&agent_table(name, &launch));
    let mut acpbox = site.connect(&["--agent", name]);
    site.furnish(&mut acpbox, &workspace, &[&launch]);
    let mut disk = PathBuf::new();
    let sessions = [CANARY, OTHER].map(|word| {
        let meta = json!({"acpbox": {"additionalInstructions": word}});
        let params = json!({"cwd": workspace, "mcpServers": [], "_meta": meta});
        let created = acpbox.request("session/new", params);
        let vm = created["_meta"]["acpbox"]["vm"].as_str().unwrap();
        disk = site.vm_home(vm).parent().unwrap().to_path_buf();
        let session = created["sessionId"].as_str().unwrap().to_owned();
        let answer = acpbox.prompt(&session, &format!("{word} [[shell:echo {word}]]"));
        assert_eq!(answer["stopReason"], "end_turn", "{answer}");
        session
    });
    assert!(
        !holding(&disk, CANARY).is_empty(),
        "else this proves nothing"
    );
    Two {
        site,
        acpbox,
        _model: model,
        sessions,
        disk,
    }
}

impl Two {
    fn check(&self) {
        assert_eq!(holding(&self.disk, CANARY), [""; 0].map(PathBuf::from));
        assert_eq!(
            holding(&self.disk, &self.sessions[0]),
            [""; 0].map(PathBuf::from)
        );
        let database = self.site.state();
        assert_eq!(holding(&database, CANARY), [""; 0].map(PathBuf::from));
        assert!(
            !holding(&self.disk, OTHER).is_empty(),
            "the other's went too"
        );
    }

    /// The kept session still knows what was said.
    fn check_other(&mut self) {
        let session = self.sessions[1].clone();
        let answer = self.acpbox.prompt(&session, "[[say:still here]]");
        assert_eq!(answer["stopReason"], "end_turn", "{answer}");
    }
}

fn deleted_live(name: &str, launcher: Launcher, by_agent: bool) {
    let mut two = two(name, launcher);
    let params = json!({"sessionId": two.sessions[0]});
    let answer = two.acpbox.request("session/delete", params);
    let ours = &answer["_meta"]["acpbox"];
    assert_eq!(ours["removed"]["agentSession"], by_agent, "{answer}");
    assert!(ours["removed"]["events"].as_u64() > Some(5), "{answer}");
    assert_eq!(ours.get("kept"), None, "{answer}");
    two.check_other();
    two.check();
}

fn deleted_stopped(name: &str, launcher: Launcher) {
    let mut two = two(name, launcher);
    let status = two.acpbox.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()));
    let mut command = (two.site).command(&["sessions", "delete", "--yes", &two.sessions[0]]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("left:"), "{told}");
    assert!(!told.contains(" 0 of the agent's"), "{told}");
    two.check();
}

#[test]
fn claude_deletes_a_live_session_itself() {
    deleted_live("claude", peers::claude, true);
}

#[test]
fn pi_deletes_a_live_session_itself() {
    deleted_live("pi", peers::pi, true);
}

#[test]
fn the_files_of_a_stopped_claude_are_removed() {
    deleted_stopped("claude", peers::claude);
}

#[test]
fn the_files_of_a_stopped_pi_are_removed() {
    deleted_stopped("pi", peers::pi);
}

#[test]
fn what_codex_keeps_of_all_sessions_is_named() {
    what_is_left_is_named("codex", peers::codex);
}

#[test]
fn what_opencode_keeps_of_all_sessions_is_named() {
    what_is_left_is_named("opencode", peers::opencode);
}

fn what_is_left_is_named(name: &str, launcher: Launcher) {
    let mut two = two(name, launcher);
    let params = json!({"sessionId": two.sessions[0]});
    let answer = two.acpbox.request("session/delete", params);
    let ours = &answer["_meta"]["acpbox"];
    assert_eq!(ours["removed"]["agentSession"], false);
    assert!(
        ours["removed"]["agentFiles"].as_u64() >= Some(1),
        "{answer}"
    );
    let kept: Vec<PathBuf> = (ours["kept"].as_array().unwrap().iter())
        .filter_map(|kept| kept.as_str()?.strip_prefix("~/")?.split_once(": "))
        .map(|(path, _)| two.disk.join("home").join(path))
        .collect();
    let left = holding(&two.disk, CANARY);
    assert!(!left.is_empty(), "{name} leaves nothing; say so in README");
    for path in left {
        let text = path.to_string_lossy();
        let path = Path::new(text.trim_end_matches("-wal"));
        let is_named = kept.iter().any(|kept| path.starts_with(kept));
        assert!(is_named, "{} was not named: {answer}", path.display());
    }
    two.check_other();
}

#[test]
fn a_link_that_the_guest_planted_is_not_followed() {
    let site = Site::new();
    let workspace = site.repository("project");
    let outside = tempfile::tempdir().unwrap();
    let mut acpbox = site.connect(&[]);
    let guest = Inside::open(&mut acpbox, &workspace, json!({}));
    // The agent's own id is in the name of its file.
    let id = guest.succeed(
        &mut acpbox,
        "cd ~/.local/state/acpbox-example && ls *.json | head -1",
    );
    let aim = outside.path().join(&id);
    std::fs::write(&aim, CANARY).unwrap();
    std::fs::create_dir(outside.path().join(&guest.session)).unwrap();
    let planted = outside.path().display();
    guest.succeed(
        &mut acpbox,
        &format!(
            "mkdir -p ~/.claude/debug && ln -s {planted}/{id} ~/.claude/debug/{id} &&
             mkdir -p ~/.claude/todos/{id} && ln -s {planted} ~/.claude/todos/{id}/in &&
             rm -rf /tmp/acpbox && ln -s {planted} /tmp/acpbox"
        ),
    );
    assert!(acpbox.close(Duration::from_secs(20)).is_some());
    // As the guest could as well; its agent would have stumbled over this.
    let state = site.vm_home(&guest.vm).join(".local/state");
    std::fs::rename(state.join("acpbox-example"), state.join("moved")).unwrap();
    std::os::unix::fs::symlink(outside.path(), state.join("acpbox-example")).unwrap();
    let mut acpbox = site.connect(&[]);
    let answer = acpbox.request("session/delete", json!({"sessionId": guest.session}));
    let ours = &answer["_meta"]["acpbox"];
    assert_eq!(std::fs::read_to_string(&aim).unwrap(), CANARY);
    assert!(outside.path().join(&guest.session).exists());
    assert_eq!(
        ours["removed"]["agentFiles"], 2,
        "the links alone: {answer}"
    );
    let kept = ours["kept"].to_string();
    for words in [
        "~/.local/state/acpbox-example",
        "/tmp/acpbox",
        "links are not followed",
    ] {
        assert!(kept.contains(words), "{answer}");
    }
}

#[test]
fn an_agent_that_does_not_answer_its_deletion_holds_nobody_up() {
    let setup = Setup::new();
    let capabilities = json!({"sessionCapabilities": {"delete": {}}});
    let on = json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}});
    setup.script(&[
        on,
        setup.record(),
        json!({"expect": "session/delete"}),
        json!({"hang": true}),
    ]);
    let mut client = setup.connect();
    let session = client.new_session();
    let start = std::time::Instant::now();
    let answer = client.call("session/delete", json!({"sessionId": session}));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let ours = &answer.unwrap()["_meta"]["acpbox"];
    assert_eq!(ours["removed"]["agentSession"], false);
    let asked: Vec<Value> = (setup.received().iter())
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["method"] == "session/delete")
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0]["params"]["sessionId"], "testy-session",
        "its own id"
    );
    client.check_next_session();
}

#[test]
fn whoever_cancels_a_deletion_leaves_no_agent_behind() {
    let setup = Setup::new();
    let capabilities = json!({"sessionCapabilities": {"delete": {}}});
    let on = json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}});
    setup.script(&[
        on,
        setup.record(),
        json!({"expect": "session/delete"}),
        json!({"hang": true}),
    ]);
    let mut client = setup.connect();
    let session = client.new_session();
    let id = client.request("session/delete", json!({"sessionId": session}));
    assert!(wait_until(|| {
        let received = setup.received();
        received.iter().any(|line| line.contains("session/delete"))
    }));
    client.notify("$/cancel_request", json!({"requestId": id}));
    // It is done all the same, and not by halves.
    client.answer(id).unwrap();
    let list = client.call("session/list", json!({})).unwrap();
    assert_eq!(list["sessions"], json!([]));
    client.check_next_session();
}
