//! What the host later runs from a repository, and what must still work in it.

use super::*;

/// A program that leaves a mark when the host runs it.
fn trap(site: &Site) -> (std::path::PathBuf, String) {
    let mark = site.folder().join("work/the-host-ran-this");
    (mark.clone(), format!("touch '{}'", mark.display()))
}

/// A script that has git take its configuration from a folder of the script's.
fn redirection(command: &str) -> String {
    format!(
        "cp -r .git evil; cp evil/config evil/new; \
         printf '[core]\\n\\tfsmonitor = \"%s\"\\n' \"{command}\" >> evil/new; \
         mv -f evil/new evil/config; echo ../evil > .git/commondir; sleep 0.2"
    )
}

/// What a person does in a repository without thinking.
fn use_on_the_host(workspace: &Path) {
    let folder = workspace.display().to_string();
    for arguments in [
        ["status"].as_slice(),
        &["log", "-1"],
        &["diff"],
        &["branch", "-a"],
        &["add", "-A"],
        &["commit", "--allow-empty", "-m", "by the host"],
    ] {
        let output = Command::new("git")
            .args(["-C", &folder, "-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .unwrap();
        // Whether git is content does not matter here; what it ran does.
        drop(output);
    }
}

/// The other tests here show something only while this one succeeds.
#[test]
fn the_host_runs_what_an_unprotected_repository_says() {
    let site = Site::new();
    let (mark, command) = trap(&site);
    for script in [
        format!("git config core.fsmonitor \"{command}\""),
        redirection(&command),
    ] {
        let workspace = site.repository("project");
        let status = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&workspace)
            .status();
        assert!(status.unwrap().success());
        use_on_the_host(&workspace);
        assert!(mark.exists(), "{script}");
        std::fs::remove_file(&mark).unwrap();
        std::fs::remove_dir_all(workspace).unwrap();
    }
}

#[test]
fn git_works_inside_and_hooks_and_configuration_cannot_be_written() {
    let site = Site::new();
    let workspace = site.repository("project");
    std::fs::remove_dir_all(workspace.join(".git/hooks")).unwrap();
    let (mark, command) = trap(&site);
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    // Of limits it may warn, where the host gives no control groups.
    let of_the_workspace = |warning: &&str| warning.contains(workspace.to_str().unwrap());
    let warnings = warnings(&inside.warnings);
    assert_eq!(warnings.into_iter().find(of_the_workspace), None);
    for attempt in [
        format!("mkdir -p .git/hooks; echo \"{command}\" > .git/hooks/pre-commit"),
        format!("git config core.fsmonitor \"{command}\""),
        "echo '[core]' >> .git/config".to_owned(),
        "mv .git/config .git/other".to_owned(),
        "rmdir .git/hooks".to_owned(),
        "mkdir .vscode; echo {} > .vscode/tasks.json".to_owned(),
        "mkdir .claude; echo {} > .claude/settings.json".to_owned(),
        "echo {} > .mcp.json".to_owned(),
    ] {
        inside.fail(&mut acpbox, &attempt);
    }
    let script = "echo x > file; git add file; git commit -qm second; git log --format=%s; \
                  git status --porcelain | grep -v .inside || true";
    assert_eq!(inside.succeed(&mut acpbox, script), "second\nfirst");
    use_on_the_host(&workspace);
    assert!(!mark.exists());
    let status = acpbox.close(Duration::from_secs(10));
    assert!(status.unwrap().success());
    assert!(
        !workspace.join(".git/hooks").exists(),
        "it is a placeholder"
    );
    assert!(!workspace.join(".vscode").exists());
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
}

#[test]
fn git_works_inside_a_linked_worktree() {
    let site = Site::new();
    let main = site.repository("main");
    let workspace = main.with_file_name("linked");
    let path = workspace.display().to_string();
    git(&main, &["worktree", "add", "-q", "-b", "side", &path]);
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let script = "echo x > file; git add file; git commit -qm second; git branch --show-current";
    assert_eq!(inside.succeed(&mut acpbox, script), "side");
    assert!(git(&main, &["log", "--format=%s", "side"]).starts_with("second\n"));
    let common = main.join(".git").display().to_string();
    for attempt in [
        format!("echo x > '{common}/hooks/pre-commit'"),
        format!("echo x >> '{common}/config'"),
        "echo 'gitdir: /tmp' > .git".to_owned(),
        format!("cat '{}'", main.join("README").display()),
    ] {
        inside.fail(&mut acpbox, &attempt);
    }
}

#[test]
fn a_repository_cannot_be_moved_aside_for_another() {
    let site = Site::new();
    let workspace = site.repository("project");
    let (mark, command) = trap(&site);
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    for attempt in [
        "mv .git .git-old",
        "rm -rf .git",
        "perl -e 'rename(\".git\", \"old\") or exit 1'",
        "mkdir evil && mv -T evil .git",
    ] {
        inside.run(&mut acpbox, attempt);
    }
    let script = format!(
        "mkdir -p new && cd new && git init -q . && git config core.fsmonitor \"{command}\" && \
         cd .. && cp -rT new/.git .git; rm -rf new; true"
    );
    inside.run(&mut acpbox, &script);
    use_on_the_host(&workspace);
    assert!(!mark.exists(), "the host ran what the guest has written");
}

#[test]
fn git_cannot_be_redirected_to_another_folder() {
    let site = Site::new();
    let workspace = site.repository("project");
    let (mark, command) = trap(&site);
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let script = redirection(&command);
    // The guest may be ended for it.
    let id = inside.begin(
        &mut acpbox,
        &format!("[[shell:{}]]", script.replace("]]", "] ]")),
    );
    let _ = acpbox.answer(id);
    assert!(
        workspace.join("evil/config").is_file(),
        "the guest got that far"
    );
    use_on_the_host(&workspace);
    assert!(!mark.exists(), "the host ran what the guest has written");
    assert!(!workspace.join(".git/commondir").exists());
}
