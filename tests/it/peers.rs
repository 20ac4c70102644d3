//! The real agents, without acpbox in between: what the fake model says makes
//! them write a file by a tool call. When one of these fails, look here before
//! looking at acpbox.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bare::Bare;
use crate::support::model::Model;
use crate::support::peers::{self, Launcher};

#[test]
fn pi_writes_a_file_with_the_fake_model() {
    check("pi", peers::pi, 0);
}

#[test]
fn opencode_writes_a_file_with_the_fake_model() {
    check("opencode", peers::opencode, 1);
}

#[test]
fn claude_writes_a_file_with_the_fake_model() {
    check("claude", peers::claude, 1);
}

#[test]
fn codex_writes_a_file_with_the_fake_model() {
    check("codex", peers::codex, 1);
}

/// A turn of three tool calls, asking at least so many permissions, and another.
fn check(name: &str, launcher: Launcher, permissions: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (home, workspace) = (folder.path().join("home"), folder.path().join("workspace"));
    std::fs::create_dir_all(&home).unwrap();
    std::fs::create_dir_all(&workspace).unwrap();
    let model = Model::start();
    let launch = launcher(model.port(), &home);
    launch.write_home(&home);

    let start = Instant::now();
    let mut agent = Bare::start(&launch.command, &launch.args, &launch.env);
    let session = agent.open_session(json!({}), &workspace);
    let opened = start.elapsed();
    let file = workspace.join("written.txt");
    let path = file.display();
    let text = format!("[[write:{path}|by {name}]] [[read:{path}]] [[shell:echo more >> {path}]]");
    let answer = agent.prompt(&session, &text);
    println!(
        "{name}: session after {opened:?}, turn ended after {:?}",
        start.elapsed()
    );

    assert_eq!(answer["stopReason"], "end_turn");
    // An agent may go on while its command still runs.
    let expected = format!("by{name}more");
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    let is_written = || written().split_whitespace().collect::<String>() == expected;
    assert!(
        crate::support::setup::wait_until(is_written),
        "{name} wrote {:?}\n{:#?}\n{}",
        written(),
        agent.received,
        agent.stderr()
    );
    assert!(
        agent.text().contains("DONE with 3 tool results"),
        "{}",
        agent.text()
    );
    assert!(agent.count("session/request_permission") >= permissions);

    let answer = agent.prompt(&session, "[[say:and a second turn]]");
    assert_eq!(answer["stopReason"], "end_turn");
    assert!(
        agent.text().ends_with("and a second turn"),
        "{}",
        agent.text()
    );
    let remembers = model.requests().iter().any(|request| {
        let body = request.body.to_string();
        body.contains("and a second turn") && body.contains("written.txt")
    });
    assert!(remembers, "{name} has forgotten the first turn");

    let closing = Instant::now();
    let before = agent.group().len();
    let status = agent.close(Duration::from_secs(2));
    println!(
        "{name}: {before} processes; after its input ended: {status:?} in {:?}, {} left",
        closing.elapsed(),
        agent.group().len()
    );
}
