//! `acpbox agents`.

use super::Place;

#[test]
fn agents_are_listed_with_where_they_are() {
    let place = Place::new();
    let table = place.acpbox(&["agents", "list"]).expect(0).stdout;
    assert!(table.contains("claude (default)"), "{table}");
    let example = table
        .lines()
        .find(|line| line.starts_with("example"))
        .unwrap();
    assert!(example.contains("part of acpbox"), "{table}");
    let all = place.acpbox(&["agents", "list", "--json"]).expect(0).json();
    let names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    for name in [
        "claude", "codex", "example", "gemini", "goose", "opencode", "pi", "qwen",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn an_agent_is_shown_with_what_it_is_told_here() {
    let place = Place::new();
    place.configure(
        "[defaults]\nagent = \"mine\"\n[agents.mine]\ncommand = \"sh\"\nenv = { MODE = \"canary\" }\npass_env = [\"HOME\", \"NOT_THERE\"]\n",
    );
    let shown = place.acpbox(&["agents", "show", "mine"]).expect(0).stdout;
    let workspace = place.workspace();
    for words in [
        "from the configuration",
        "HOME (set)",
        "NOT_THERE (not set)",
        "MODE",
        "unknown until it has run",
        workspace.to_str().unwrap(),
        "Read-only in the workspace",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    assert!(!shown.contains("canary"), "values are not shown: {shown}");
    let json = place
        .acpbox(&["agents", "show", "mine", "--json"])
        .expect(0);
    assert!(!json.stdout.contains("canary"));
    let told = json.json()["baseInstructions"].as_str().unwrap().to_owned();
    assert!(shown.contains(&told), "{told}");
    assert!(
        !place.file("state/acpbox").exists(),
        "looking makes no database"
    );
}

#[test]
fn capabilities_are_the_agents_own_once_it_has_run() {
    let place = Place::new();
    place.session("[[say:hi]]");
    let shown = place
        .acpbox(&["agents", "show", "example"])
        .expect(0)
        .stdout;
    assert!(shown.contains("as it said itself"), "{shown}");
}

#[test]
fn where_no_vm_may_be_the_reason_is_told() {
    let place = Place::new();
    let output = place
        .command(&["agents", "show", "example"])
        .current_dir(place.file("home"))
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        shown.contains("gets no VM") && shown.contains("home folder"),
        "{shown}"
    );
}
