//! Which VM a session gets, and which folders none gets.

use super::*;

#[test]
fn a_session_shares_the_repository_above_it() {
    let host = Host::new();
    let plan = host.plan("", None, "home/src/repo/deep/er").unwrap();
    assert_eq!(plan.spec.workspaces, [host.path("home/src/repo")]);
    assert_eq!(plan.cwd, host.path("home/src/repo/deep/er"));
    assert_eq!(plan.driver, "namespace");
    assert!(plan.spec.name.starts_with("repo-"), "{}", plan.spec.name);
    assert_eq!(
        plan.spec.state_dir,
        host.path("home/.local/state/acpbox/vms")
            .join(&plan.spec.name)
    );
    assert!(plan.spec.protected.contains(&PathBuf::from(".git/hooks")));

    let other = host.plan("", None, "home/src/repo").unwrap();
    assert_eq!(other.spec.name, plan.spec.name, "one workspace, one VM");
    let plain = host.plan("", None, "home/src/plain").unwrap();
    assert_eq!(plain.spec.workspaces, [host.path("home/src/plain")]);
    assert_ne!(plain.spec.name, plan.spec.name);
}

#[test]
fn names_of_vms_stay_what_they_were() {
    assert_eq!(
        plan::automatic_name(Path::new("/home/me/src/My Repo!")),
        "my-repo-c1a62902"
    );
    assert_eq!(plan::automatic_name(Path::new("/")), "workspace-29622bb2");
}

#[test]
fn a_symlinked_folder_is_the_folder_it_points_to() {
    let host = Host::new();
    std::os::unix::fs::symlink(host.path("home/src/repo"), host.path("home/link")).unwrap();
    let plan = host.plan("", None, "home/link").unwrap();
    assert_eq!(plan.cwd, host.path("home/src/repo"));
    assert_eq!(
        plan.spec.name,
        host.plan("", None, "home/src/repo").unwrap().spec.name
    );
}

#[test]
fn a_home_kept_in_git_is_not_shared() {
    let host = Host::new();
    host.make("home/.git");
    let plan = host.plan("", None, "home/src/plain").unwrap();
    assert_eq!(plan.spec.workspaces, [host.path("home/src/plain")]);
}

#[test]
fn folders_that_hold_too_much_are_refused_with_the_line_that_would_allow_them() {
    let host = Host::new();
    host.make("home/.ssh/x");
    host.make("home/.config/acpbox");
    host.make("home/.local/state/acpbox/vms");
    for cwd in ["home/.ssh/x", "/usr/bin", "/etc", "/proc/1"] {
        let message = host.refusal("", None, cwd);
        assert!(message.starts_with("`cwd` "), "{cwd}: {message}");
        assert!(
            message.contains("[vms.NAME]\nworkspaces = ["),
            "{cwd}: {message}"
        );
        assert!(message.contains("--vm NAME"), "{cwd}: {message}");
    }
    // With acpbox's own files in them, nothing would allow it.
    for cwd in [
        "home",
        "",
        "home/.config",
        "/",
        "home/.local/state/acpbox/vms",
    ] {
        let message = host.refusal("", None, cwd);
        assert!(message.starts_with("`cwd` "), "{cwd}: {message}");
        assert!(message.contains("no VM may share it"), "{cwd}: {message}");
        assert!(message.contains("acpbox's own"), "{cwd}: {message}");
        assert!(!message.contains("[vms.NAME]"), "{cwd}: {message}");
    }
}

#[test]
fn no_configuration_hands_acpbox_itself_to_a_guest() {
    let host = Host::new();
    host.make("home/.local/state/acpbox");
    let message = host.refusal("[vms.all]\nworkspaces = ['~']", Some("all"), "home");
    assert!(message.contains("acpbox's own"), "{message}");
    let mounts = "[vms.default]\nmounts = [{ path = '~/.local', mode = 'rw' }]";
    let message = host.refusal(mounts, None, "home/src/repo");
    assert!(
        message.contains("vms.default.mounts") || message.contains(".mounts"),
        "{message}"
    );
    assert!(message.contains("acpbox's own"), "{message}");
}

#[test]
fn a_named_vm_shares_what_it_declares_and_says_how_to_add_to_it() {
    let host = Host::new();
    let text = "[vms.work]\nworkspaces = ['~/src/repo']\nmemory = '1GiB'\n";
    let plan = host.plan(text, Some("work"), "home/src/repo/deep").unwrap();
    assert_eq!(plan.spec.name, "work");
    assert_eq!(plan.spec.workspaces, [host.path("home/src/repo")]);
    assert_eq!(plan.spec.limits.memory, Some(1 << 30));

    let message = host.refusal(text, Some("work"), "home/src/plain");
    let line = format!(
        "workspaces = [{:?}, {:?}]",
        host.path("home/src/repo"),
        host.path("home/src/plain")
    );
    assert!(
        message.contains("[vms.work]") && message.contains(&line),
        "{message}"
    );

    let by_default = format!("{text}[defaults]\nvm = 'work'\n");
    assert_eq!(
        host.plan(&by_default, None, "home/src/repo")
            .unwrap()
            .spec
            .name,
        "work"
    );
    let missing = "[vms.work]\nworkspaces = ['~/gone']";
    let message = host.refusal(missing, Some("work"), "home/src/repo");
    assert!(
        message.contains("vms.work.workspaces") && message.contains("gone"),
        "{message}"
    );
}

#[test]
fn an_unknown_vm_is_refused_unless_it_is_the_workspaces_own() {
    let host = Host::new();
    let own = host.plan("", None, "home/src/repo").unwrap().spec.name;
    assert_eq!(
        host.plan("", Some(&own), "home/src/repo")
            .unwrap()
            .spec
            .name,
        own
    );
    assert_eq!(
        host.plan("", Some("default"), "home/src/repo")
            .unwrap()
            .spec
            .name,
        own
    );
    let message = host.refusal("", Some("other"), "home/src/repo");
    assert!(message.contains("[vms.other]\nworkspaces = ["), "{message}");
}

#[test]
fn additional_directories_become_workspaces_when_they_may() {
    let host = Host::new();
    let config = host.config("").unwrap();
    let plan = |folders: &[PathBuf]| config.vm_for(None, &host.path("home/src/repo"), folders);
    let folders = [host.path("home/src/repo/deep"), host.path("home/src/plain")];
    let found = plan(&folders).unwrap();
    assert_eq!(
        found.spec.workspaces,
        [host.path("home/src/repo"), host.path("home/src/plain")]
    );
    assert_eq!(found.additional_directories, folders);

    for refused in [
        host.path("home"),
        host.path("home/none"),
        PathBuf::from("relative"),
    ] {
        let message = plan(&[refused]).unwrap_err().to_string();
        assert!(message.starts_with("`additionalDirectories` "), "{message}");
    }
}

#[test]
fn a_working_folder_must_be_an_absolute_folder_that_exists() {
    let host = Host::new();
    std::fs::write(host.path("home/src/file"), "").unwrap();
    let cases = [
        ("home/src/none", "which cannot be opened"),
        ("home/src/file", "is a file"),
    ];
    for (cwd, expected) in cases {
        let message = host.refusal("", None, cwd);
        assert!(
            message.starts_with("`cwd` ") && message.contains(expected),
            "{message}"
        );
    }
    let config = host.config("").unwrap();
    let relative = config.vm_for(None, Path::new("src"), &[]);
    let message = relative.unwrap_err().to_string();
    assert_eq!(message, "`cwd` must be an absolute path, not `src`");
}

#[test]
fn protected_names_can_be_replaced_taken_off_and_found_in_git() {
    let host = Host::new();
    let protected = |text: &str| {
        host.plan(text, None, "home/src/repo")
            .unwrap()
            .spec
            .protected
    };
    let names = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let replaced = "[vms.default]\nprotected = ['.git/hooks', 'ci/']";
    assert_eq!(protected(replaced), names(&[".git/hooks", "ci"]));
    let opened = protected("[vms.default]\nwritable = ['.vscode']");
    assert_eq!(opened.len(), DEFAULT_PROTECTED.len() - 1);
    let opened = protected("[vms.default]\nwritable = ['.opencode']");
    assert!(!opened.iter().any(|name| name.starts_with(".opencode")));
    std::fs::write(
        host.path("home/src/repo/.git/config"),
        "[core]\nhooksPath = tools/hooks\n",
    )
    .unwrap();
    assert!(protected("").contains(&PathBuf::from("tools/hooks")));
}

#[test]
fn a_submodule_belongs_to_the_repository_around_it_and_a_worktree_to_itself() {
    let host = Host::new();
    host.make("home/src/repo/.git/modules/sub");
    let sub = host.make("home/src/repo/sub");
    std::fs::write(sub.join(".git"), "gitdir: ../.git/modules/sub\n").unwrap();
    let plan = host.plan("", None, "home/src/repo/sub").unwrap();
    assert_eq!(plan.spec.workspaces, [host.path("home/src/repo")]);

    host.make("home/src/repo/.git/worktrees/tree");
    let tree = host.make("home/src/repo/trees/tree");
    let target = host.path("home/src/repo/.git/worktrees/tree");
    std::fs::write(tree.join(".git"), format!("gitdir: {}\n", target.display())).unwrap();
    let plan = host.plan("", None, "home/src/repo/trees/tree").unwrap();
    assert_eq!(
        plan.spec.workspaces,
        [host.path("home/src/repo/trees/tree")]
    );
}

#[test]
fn the_driver_host_runs_agents_as_the_person() {
    let host = Host::new();
    let plan = host
        .plan("[vms.default]\ndriver = 'host'", None, "home/src/repo")
        .unwrap();
    assert_eq!(plan.guest.home, host.path("home"));
    let plan = host.plan("", None, "home/src/repo").unwrap();
    assert_eq!(plan.guest, Guest::isolated());
}
