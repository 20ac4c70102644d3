//! Agents that nobody here wrote, through `acpbox stdio`, each in a VM, with
//! the fake model: whole turns, what reaches them, and what is kept.
//! `tests/peers/install` installs them.

mod endings;
mod permissions;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bare::{Bare, prompt};
use crate::support::model::Model;
use crate::support::peers::{self, AgentLaunch, Launcher};
use crate::support::site::{GUEST_HOME, Site, agent_table};

#[test]
fn pi_works_in_a_vm() {
    check("pi", peers::pi, 0, "load");
}

#[test]
fn opencode_works_in_a_vm() {
    check("opencode", peers::opencode, 1, "resume");
}

#[test]
fn claude_works_in_a_vm() {
    check("claude", peers::claude, 1, "resume");
}

#[test]
fn codex_works_in_a_vm() {
    check("codex", peers::codex, 1, "resume");
}

/// A turn with at least so many permission requests; what is kept of it; and
/// the next turn in a new process, which restores the session in that way.
fn check(name: &str, launcher: Launcher, permissions: usize, tier: &str) {
    let model = Model::start();
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let launch = launcher(model.port(), Path::new(GUEST_HOME));
    site.configure(&agent_table(name, &launch));

    let mut acpbox = site.connect(&["--agent", name]);
    site.furnish(&mut acpbox, &workspace, &[&launch]);
    let meta = json!({"acpbox": {
        "env": {"FROM_THE_CLIENT": "a value with spaces"},
        "additionalInstructions": "Answer in the language of the lighthouse keepers.",
    }});
    let created = acpbox.request(
        "session/new",
        json!({"cwd": workspace, "mcpServers": [], "_meta": meta}),
    );
    let session = created["sessionId"].as_str().unwrap().to_owned();
    assert_eq!(created["_meta"]["acpbox"]["agent"], name);
    let warnings = &created["_meta"]["acpbox"]["warnings"];
    println!("{name}: {warnings}");

    let written = workspace.join("written.txt");
    let path = written.display();
    let text = format!(
        "[[write:{path}|by {name}]] [[edit:{path}|by {name}|from {name}]] \
         [[shell:echo \"$FROM_THE_CLIENT, $(hostname), $HOME\" > told.txt]]"
    );
    let answer = acpbox.prompt(&session, &text);
    assert_eq!(answer["stopReason"], "end_turn", "{answer}");
    let reply = answer["_meta"]["acpbox"]["text"].as_str().unwrap();
    assert!(reply.contains("DONE with 3 tool results"), "{reply}");
    assert!(acpbox.text().contains("DONE with 3 tool results"));
    let last_seq = answer["_meta"]["acpbox"]["lastSeq"].as_i64().unwrap();
    let file = std::fs::read_to_string(&written).unwrap();
    assert_eq!(file.trim(), format!("from {name}"));
    let vm = created["_meta"]["acpbox"]["vm"].as_str().unwrap();
    assert_eq!(
        std::fs::read_to_string(workspace.join("told.txt")).unwrap(),
        format!("a value with spaces, {vm}, {GUEST_HOME}\n")
    );
    assert!(
        acpbox.count("session/request_permission") >= permissions,
        "{:#?}",
        acpbox.received
    );
    assert!(acpbox.updates("tool_call").count() >= 3);
    let told = told(&model);
    assert!(
        told.contains("a virtual machine that acpbox made"),
        "{told}"
    );
    assert!(
        told.contains("the language of the lighthouse keepers"),
        "{told}"
    );
    let shown: Vec<i64> = (acpbox.received.iter())
        .filter(|it| it["params"]["sessionId"] == session.as_str())
        .filter_map(|it| it["params"]["_meta"]["acpbox"]["seq"].as_i64())
        .collect();
    assert!(shown.is_sorted_by(|one, next| one < next), "{shown:?}");

    let watch = site.watch();
    assert!(!watch.alive().is_empty(), "the guest runs");
    let status = acpbox.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    watch.expect_none(Duration::ZERO);

    // Everything has stopped; nothing is started to read it.
    let mut later = site.connect(&[]);
    let list = later.request("session/list", json!({"cwd": workspace}));
    let listed = list["sessions"].as_array().unwrap();
    let listed = listed.iter().find(|it| it["sessionId"] == session.as_str());
    assert_eq!(
        listed.expect("it is listed")["_meta"]["acpbox"]["agent"],
        name
    );
    let events = events(&mut later, &session);
    let numbers: Vec<i64> = events.iter().filter_map(|it| it["seq"].as_i64()).collect();
    assert!(shown.iter().all(|seq| numbers.contains(seq)));
    let result = events.iter().find(|it| it["seq"] == last_seq).unwrap();
    assert_eq!(result["kind"], "session/prompt:result");
    let kinds: Vec<&str> = events.iter().filter_map(|it| it["kind"].as_str()).collect();
    for kind in [
        "session/new",
        "session/prompt",
        "tool_call",
        "agent_message_chunk",
    ] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    watch.expect_none(Duration::ZERO);

    // The conversation goes on in a new process and a new VM.
    let loaded = later.request(
        "session/resume",
        json!({"sessionId": session, "cwd": workspace, "mcpServers": []}),
    );
    let restored = &loaded["_meta"]["acpbox"]["restored"];
    assert_eq!(restored["tier"], tier, "{restored}");
    let answer = later.prompt(&session, "[[say:and a second turn]]");
    assert_eq!(answer["stopReason"], "end_turn", "{answer}");
    assert_eq!(answer["_meta"]["acpbox"]["text"], "and a second turn");
    let remembers = model.requests().iter().any(|request| {
        let body = request.body.to_string();
        body.contains("and a second turn") && body.contains("written.txt")
    });
    assert!(remembers, "{name} has forgotten the first turn");
    let status = later.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    watch.expect_none(Duration::ZERO);
}

#[test]
fn two_agents_in_one_vm_see_each_others_files() {
    let agents = [peers::ALL[0], peers::ALL[2]];
    let (mut acpbox, sessions, site, _model) = open_all(&agents, "");
    let [first, second] = &sessions[..] else {
        unreachable!("two were opened")
    };
    let workspace = site.folder().join("work/project");
    // Both at once: the first waits in the shell for the second.
    let text = "[[shell:echo first > ~/one; until test -e /tmp/two; do sleep 0.05; done; \
                cp /tmp/two seen-by-the-first]]";
    let waiting = acpbox.send_request("session/prompt", prompt(first, text));
    let text = "[[shell:until test -e ~/one; do sleep 0.05; done; cp ~/one seen-by-the-second; \
                echo second > /tmp/two]]";
    let answer = acpbox.prompt(second, text);
    assert_eq!(answer["stopReason"], "end_turn");
    let answer = acpbox.answer_of(waiting);
    assert_eq!(answer["stopReason"], "end_turn");
    let read = |name: &str| std::fs::read_to_string(workspace.join(name)).unwrap();
    assert_eq!(read("seen-by-the-first"), "second\n");
    assert_eq!(read("seen-by-the-second"), "first\n");
}

#[test]
fn a_cancelled_turn_ends_and_the_agent_goes_on() {
    let all = peers::ALL;
    let (mut acpbox, sessions, _site, _model) = open_all(&all, "");
    for ((name, _), session) in all.iter().zip(&sessions) {
        acpbox.received.clear();
        let turn = acpbox.send_request("session/prompt", prompt(session, "[[slow:300]]"));
        acpbox.wait_for(|it| it["params"]["update"]["sessionUpdate"] == "agent_message_chunk");
        let asked = Instant::now();
        acpbox.notify("session/cancel", json!({"sessionId": session}));
        let answer = acpbox.answer_of(turn);
        assert_eq!(answer["stopReason"], "cancelled", "{name}: {answer}");
        // The grace period of acpbox's is the most that it may take.
        assert!(
            asked.elapsed() < Duration::from_secs(15),
            "{name}: {:?}",
            asked.elapsed()
        );
        let text = answer["_meta"]["acpbox"]["text"].as_str().unwrap();
        assert!(
            text.contains("chunk"),
            "{name} lost its partial output: {answer}"
        );
        let answer = acpbox.prompt(session, "[[say:and on]]");
        assert_eq!(answer["stopReason"], "end_turn", "{name}: {answer}");
        assert_eq!(answer["_meta"]["acpbox"]["text"], "and on", "{name}");
    }
}

#[test]
fn what_the_client_refuses_is_not_done() {
    let asking = [peers::ALL[1], peers::ALL[2], peers::ALL[3]];
    let (mut acpbox, sessions, site, _model) = open_all(&asking, "");
    acpbox.choice = "reject_once";
    for ((name, _), session) in asking.iter().zip(&sessions) {
        acpbox.received.clear();
        let file = site.folder().join("work/project").join(name);
        // Some agents end the turn when they are refused, some tell the model.
        let answer = acpbox.prompt(session, &format!("[[shell:touch {}]]", file.display()));
        let reason = answer["stopReason"].as_str().unwrap();
        assert!(
            ["end_turn", "cancelled"].contains(&reason),
            "{name}: {answer}"
        );
        assert_eq!(acpbox.count("session/request_permission"), 1, "{name}");
        assert!(!file.exists(), "{name} did it all the same");
    }
}

#[test]
fn a_history_that_the_agent_replays_itself_is_shown_once() {
    let pi = [peers::ALL[0]];
    let (mut acpbox, sessions, site, _model) = open_all(&pi, "");
    let session = &sessions[0];
    for text in ["[[say:the first answer]]", "[[say:the second answer]]"] {
        acpbox.prompt(session, text);
    }
    let expected = acpbox.text();
    assert!(acpbox.close(Duration::from_secs(20)).is_some());

    let mut later = site.connect(&[]);
    let cwd = site.folder().join("work/project");
    let params = json!({"sessionId": session, "cwd": cwd, "mcpServers": []});
    let loaded = later.request("session/load", params);
    assert_eq!(loaded["_meta"]["acpbox"]["restored"]["tier"], "load");
    assert_eq!(later.text(), expected);
    let prompts: Vec<&str> = (later.updates("user_message_chunk"))
        .filter_map(|update| update["content"]["text"].as_str())
        .collect();
    assert_eq!(
        prompts,
        ["[[say:the first answer]]", "[[say:the second answer]]"]
    );
    let numbers: Vec<Option<i64>> = (later.received.iter())
        .filter(|it| it["method"] == "session/update")
        .map(|it| it["params"]["_meta"]["acpbox"]["seq"].as_i64())
        .collect();
    assert!(numbers.iter().all(Option::is_some), "{numbers:?}");
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

/// One acpbox with a session of each agent, all in the VM of `work/project`, and
/// further lines of its configuration.
fn open_all(agents: &[(&str, Launcher)], further: &str) -> (Bare, Vec<String>, Site, Model) {
    let model = Model::start();
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let launches = agents
        .iter()
        .map(|(_, it)| it(model.port(), Path::new(GUEST_HOME)));
    let launches: Vec<AgentLaunch> = launches.collect();
    let tables = agents.iter().zip(&launches);
    let tables: String = tables
        .map(|((name, _), it)| agent_table(name, it))
        .collect();
    site.configure(&format!("{tables}{further}"));
    let mut acpbox = site.connect(&[]);
    let all: Vec<&AgentLaunch> = launches.iter().collect();
    site.furnish(&mut acpbox, &workspace, &all);
    let sessions = agents.iter().map(|(name, _)| {
        let meta = json!({"acpbox": {"agent": name}});
        let params = json!({"cwd": workspace, "mcpServers": [], "_meta": meta});
        let created = acpbox.request("session/new", params);
        created["sessionId"].as_str().unwrap().to_owned()
    });
    let sessions = sessions.collect();
    (acpbox, sessions, site, model)
}

/// All that the model was told besides the tools.
fn told(model: &Model) -> String {
    let bodies = model.requests().into_iter().map(|request| {
        let mut body = request.body;
        if let Some(body) = body.as_object_mut() {
            body.remove("tools");
        }
        body.to_string()
    });
    bodies.collect::<Vec<_>>().join("\n")
}

/// The whole transcript, page by page.
fn events(acpbox: &mut Bare, session: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let after = all
            .last()
            .map_or(json!(0), |last: &Value| last["seq"].clone());
        let params = json!({"sessionId": session, "after": after, "limit": 50});
        let mut page = acpbox.request("_acpbox/session/events", params);
        let page = page["events"].as_array_mut().map(std::mem::take).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}
