//! `acpbox vms`.

use super::{Place, eventually};

fn vm(place: &Place) -> serde_json::Value {
    let all = place.acpbox(&["vms", "list", "--json"]).expect(0).json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    all[0].clone()
}

#[test]
fn a_vm_is_listed_stopped_and_deleted() {
    let place = Place::new();
    place
        .acpbox(&["vms", "list"])
        .expect_words(0, &["no VMs yet"]);
    let turn = place.long_turn(&[]);
    let running = vm(&place);
    let name = running["name"].as_str().unwrap().to_owned();
    assert_eq!(running["state"], "running");
    assert_eq!(running["holders"], serde_json::json!([turn.child.id()]));
    assert_eq!(
        running["workspaces"][0],
        place.workspace().to_str().unwrap()
    );
    let holder = turn.child.id().to_string();
    place
        .acpbox(&["vms", "delete", "--yes", &name])
        .expect_words(1, &[&holder, "vms stop"]);

    place
        .acpbox(&["vms", "stop", &name])
        .expect_words(1, &["a turn runs", "--force"]);
    place
        .acpbox(&["vms", "stop", "--force", &name])
        .expect_words(0, &["was stopped"]);
    turn.end().expect(5);
    assert_eq!(vm(&place)["state"], "stopped");
    place
        .acpbox(&["vms", "stop", &name])
        .expect_words(0, &["does not run"]);

    let disk = running["stateDir"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&disk).exists());
    place
        .acpbox(&["vms", "delete", &name])
        .expect_words(2, &["--yes"]);
    place.acpbox(&["vms", "delete", "--yes", &name]).expect(0);
    assert!(!std::path::Path::new(&disk).exists());
    place.acpbox(&["vms", "delete", "--yes", &name]).expect(2);
    // Its transcripts stay, and their sessions can go on in a new one.
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    place
        .acpbox(&["run", "--session", &id, "[[say:on]]"])
        .expect_words(0, &["on"]);
    let begun = |text: &str| text.matches("chunk0 ").count();
    let shown = place.acpbox(&["sessions", "show", &id]).expect(0);
    assert_eq!(
        begun(&shown.stdout),
        1,
        "the new agent did an old prompt again"
    );
}

#[test]
fn a_vm_whose_process_was_killed_counts_as_stopped() {
    let place = Place::new();
    let mut turn = place.long_turn(&[]);
    turn.child.kill().unwrap();
    turn.child.wait().unwrap();
    eventually("the VM is seen as stopped", || {
        vm(&place)["state"] == "stopped"
    });
}

#[test]
fn a_command_runs_in_the_vm_with_pipes() {
    let place = Place::new();
    let shell = |args: &[&str]| place.acpbox(&[&["vms", "shell", "--"], args].concat());
    let ended = shell(&["sh", "-c", "pwd; id -un; echo oops >&2; exit 3"]).expect(3);
    let expected = format!("{}\nagent\n", place.workspace().display());
    assert_eq!(ended.stdout, expected);
    assert_eq!(ended.stderr, "oops\n");
    shell(&["sh", "-c", "kill -9 $$"]).expect(137);
    shell(&["no-such-command"]).expect_words(127, &["no-such-command"]);
    let args = ["vms", "shell", "--", "tr", "a-z", "A-Z"];
    let ended = place.acpbox_with_input(&args, b"hello").expect(0);
    assert_eq!(ended.stdout, "HELLO");
}

#[test]
fn a_shell_sees_the_disk_of_the_vm_that_runs_elsewhere() {
    let place = Place::new();
    place.session("[[shell:echo kept > ~/note]]");
    let turn = place.long_turn(&[]);
    let name = vm(&place)["name"].as_str().unwrap().to_owned();
    let ended = place
        .acpbox(&["vms", "shell", &name, "--", "cat", "/home/agent/note"])
        .expect_words(0, &["second guest on the same disk"]);
    assert_eq!(ended.stdout, "kept\n");
    turn.signal(rustix::process::Signal::TERM);
    turn.end().expect(4);
}

#[test]
fn a_named_vm_has_what_its_configuration_says() {
    let place = Place::new();
    place.configure(&format!(
        "[vms.work]\nworkspaces = [{:?}]\nnetwork = \"none\"\n",
        place.workspace()
    ));
    place
        .acpbox(&["vms", "list"])
        .expect_words(0, &["not used yet: work"]);
    let ended = place
        .acpbox(&["vms", "shell", "work", "--", "cat", "/proc/net/dev"])
        .expect(0);
    assert_eq!(ended.stdout.lines().count(), 3, "only loopback: {ended:?}");
    assert_eq!(vm(&place)["name"], "work");
    place
        .acpbox(&["vms", "shell", "wrok"])
        .expect_words(2, &["did you mean `work`"]);
}
