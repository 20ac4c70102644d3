//! Nothing of a guest outlives acpbox, however acpbox ends.

use rustix::process::Signal;

use super::*;

/// The promise of the documentation.
const AT_MOST: Duration = Duration::from_secs(2);

/// Leaves a daemon behind that was forked twice, has a session of its own, and
/// ignores every signal that can be ignored; says when all of it runs.
const DAEMON: &str = "\
cat > /tmp/daemon-$$ <<'END'
trap '' TERM HUP INT QUIT PIPE
echo $$ >> \"$1\"
while :; do sleep 0.2; done
END
file=\"$PWD/pids\"
(setsid bash -c \"setsid bash /tmp/daemon-$$ '$file' & bash /tmp/daemon-$$ '$file'\" \
    < /dev/null > /dev/null 2>&1 &)
until [ \"$(wc -l < pids 2> /dev/null)\" = 2 ]; do sleep 0.02; done";

/// A site with a guest in which daemons run.
fn haunted(driver: &str) -> (Site, Bare, Inside) {
    let site = Site::new();
    site.configure(&format!("[vms.default]\ndriver = '{driver}'\n"));
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    inside.succeed(&mut acpbox, DAEMON);
    (site, acpbox, inside)
}

fn check_killed(driver: &str) {
    let (site, mut acpbox, inside) = haunted(driver);
    // And in the middle of a turn.
    inside.begin(&mut acpbox, "[[slow:600]]");
    acpbox.wait_for(|message| message["params"]["update"]["content"]["text"] == "chunk1 ");
    let watch = site.watch();
    assert!(watch.alive().len() >= 3, "the agent and its daemons run");
    acpbox.signal(Signal::KILL);
    watch.expect_none(AT_MOST);
}

#[test]
fn a_killed_acpbox_leaves_no_process_of_a_namespace_guest() {
    check_killed("namespace");
}

#[test]
fn a_killed_acpbox_leaves_no_process_on_the_host() {
    check_killed("host");
}

fn check_ended(driver: &str, end: impl Fn(&mut Bare)) {
    let (site, mut acpbox, _) = haunted(driver);
    let watch = site.watch();
    assert!(watch.alive().len() >= 3, "the agent and its daemons run");
    end(&mut acpbox);
    let status = acpbox.wait(Duration::from_secs(10));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    watch.expect_none(Duration::ZERO);
}

#[test]
fn a_client_that_leaves_takes_every_process_with_it() {
    for driver in ["namespace", "host"] {
        check_ended(driver, |acpbox| {
            acpbox.close(Duration::from_secs(10));
        });
    }
}

#[test]
fn a_terminated_acpbox_leaves_no_process() {
    for driver in ["namespace", "host"] {
        check_ended(driver, |acpbox| acpbox.signal(Signal::TERM));
    }
}

#[test]
fn a_closed_session_in_a_running_vm_keeps_the_others() {
    let (site, mut acpbox, first) = haunted("namespace");
    let second = Inside::open(&mut acpbox, &first.workspace, json!({}));
    acpbox.request("session/close", json!({"sessionId": first.session}));
    assert_eq!(second.succeed(&mut acpbox, "echo alive"), "alive");
    drop(site);
}

#[test]
fn placeholders_are_gone_after_the_boot_that_follows_a_kill() {
    let site = Site::new();
    let workspace = site.repository("project");
    std::fs::remove_dir_all(workspace.join(".git/hooks")).unwrap();
    let made = [
        ".vscode",
        ".claude",
        ".mcp.json",
        ".git/hooks",
        ".opencode/.gitignore",
    ];
    let present = || made.map(|name| workspace.join(name).exists());
    let mut acpbox = site.connect(&[]);
    Inside::open(&mut acpbox, &workspace, json!({}));
    assert_eq!(present(), [true; 5]);
    let watch = site.watch();
    acpbox.signal(Signal::KILL);
    watch.expect_none(AT_MOST);
    assert_eq!(present(), [true; 5], "nobody was left to remove them");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
    let mut acpbox = site.connect(&[]);
    Inside::open(&mut acpbox, &workspace, json!({}));
    let status = acpbox.close(Duration::from_secs(10));
    assert!(status.unwrap().success());
    assert_eq!(present(), [false; 5]);
    assert!(!workspace.join(".opencode").exists());
}
