//! The real clients and the example agent, without acpbox in between. When one
//! of these fails, look here before looking at acpbox.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::clients;

const EXAMPLE: &str = env!("CARGO_BIN_EXE_acpbox");

fn environment(folder: &tempfile::TempDir) -> BTreeMap<String, String> {
    let home = folder.path().to_string_lossy().into_owned();
    BTreeMap::from([("HOME".to_owned(), home)])
}

#[test]
fn acpx_drives_the_example_agent() {
    let (home, workspace) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let messages = clients::acpx(
        &format!("{EXAMPLE} example-agent"),
        &environment(&home),
        workspace.path(),
        "[[write:a.txt|by acpx]][[shell:echo more >> a.txt]]",
    );
    let last = messages.last().unwrap();
    assert_eq!(last["result"]["stopReason"], "end_turn", "{last}");
    let written = std::fs::read_to_string(workspace.path().join("a.txt")).unwrap();
    assert_eq!(written, "by acpxmore\n");
    let called = |method| messages.iter().any(|message| message["method"] == method);
    for method in [
        "session/request_permission",
        "fs/write_text_file",
        "terminal/create",
        "terminal/release",
    ] {
        assert!(called(method), "{method} was not called");
    }
}

#[test]
fn the_typescript_sdk_drives_the_example_agent() {
    let (home, workspace) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seen = clients::sdk(
        &[EXAMPLE, "example-agent"],
        &environment(&home),
        workspace.path(),
        &["[[write:a.txt|by the SDK]]", "[[say:and again]]"],
    );
    let turn = json!({"stopReason": "end_turn"});
    assert_eq!(seen["turns"], json!([turn, turn]));
    assert_eq!(seen["permissions"], json!(["Write a.txt"]));
    assert_eq!(seen["files"].as_array().unwrap().len(), 2);
    assert_eq!(seen["exit"], 0);
    let written = std::fs::read_to_string(workspace.path().join("a.txt")).unwrap();
    assert_eq!(written, "by the SDK");
}
