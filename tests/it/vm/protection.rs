//! Names that the host would run or trust are read-only in the guest.

use std::fs;
use std::process::Command;

use super::*;

const PROTECTED: [&str; 6] = [
    ".git/hooks",
    ".git/config",
    ".git/config.worktree",
    ".vscode",
    ".claude",
    ".mcp.json",
];

fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
}

fn protecting(lab: &Lab, name: &str) -> VmSpec {
    VmSpec {
        protected: PROTECTED.map(PathBuf::from).to_vec(),
        ..lab.spec(name)
    }
}

/// Everything in a folder, to show that it was left as it was found.
fn inventory(folder: &Path) -> Vec<String> {
    let output = Command::new("find")
        .args([".", "-printf", "%p %y %m\n"])
        .current_dir(folder)
        .output()
        .unwrap();
    let mut lines: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn protected_names_cannot_be_written_also_when_absent() {
    let lab = Lab::new();
    git(&lab.workspace(), &["init", "-q"]);
    fs::create_dir(lab.workspace().join(".vscode")).unwrap();
    fs::write(lab.workspace().join(".vscode/settings.json"), "{}").unwrap();
    let before = inventory(&lab.workspace());
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    assert_eq!(guest.vm.warnings(), [""; 0]);
    for attempt in [
        "echo x > .git/hooks/pre-commit",
        "echo x >> .git/config",
        "git config core.fsmonitor evil",
        "echo x > .git/config.worktree",
        "echo x > .vscode/settings.json",
        "rm .vscode/settings.json",
        "ln -s /etc/passwd .vscode/tasks.json",
        "echo x > .claude/settings.json",
        "mkdir -p .claude && touch .claude/x",
        "echo x > .mcp.json",
        "chmod 777 .vscode",
    ] {
        guest.fail(attempt).await;
    }
    // The rest of the repository works.
    guest
        .succeed("echo x > file; git add file; git -c user.name=a -c user.email=a@b commit -qm x; git status --porcelain")
        .await;
    guest.stop().await;
    let after: Vec<String> = inventory(&lab.workspace())
        .into_iter()
        .filter(|line| PROTECTED.iter().any(|name| line.contains(name)))
        .collect();
    let before: Vec<String> = before
        .into_iter()
        .filter(|line| PROTECTED.iter().any(|name| line.contains(name)))
        .collect();
    assert_eq!(after, before);
}

#[tokio::test]
async fn protected_names_cannot_be_moved_or_replaced() {
    let lab = Lab::new();
    git(&lab.workspace(), &["init", "-q"]);
    fs::create_dir(lab.workspace().join(".vscode")).unwrap();
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    for attempt in [
        "mv .git .git-old",
        "rm -rf .git",
        "mv .git/hooks .git/old",
        "rmdir .claude",
        "mv .claude elsewhere",
        "mv -T /tmp .vscode",
        "mkdir evil && mv -T evil .vscode",
        "ln -sfn /tmp .claude",
        "ln .git/config copy",
        "mv evil .git/config",
        "umount .git/hooks",
        "mount -o remount,bind,rw .git/hooks",
        "unshare -Urm sh -c 'umount .git/hooks'",
        "perl -e 'rename(\".git\", \"x\") or exit 1'",
        "perl -e 'syscall(316, -100, \".git\", -100, \"evil\", 2) == 0 or exit 1'",
    ] {
        guest.fail(attempt).await;
    }
    guest.stop().await;
    assert!(lab.workspace().join(".git/hooks").is_dir());
    assert!(lab.workspace().join(".git/HEAD").is_file() || lab.workspace().join(".git").is_dir());
    assert!(!lab.workspace().join(".claude").exists());
}

#[tokio::test]
async fn a_placeholder_is_invisible_to_git_and_gone_afterwards() {
    let lab = Lab::new();
    git(&lab.workspace(), &["init", "-q"]);
    fs::remove_dir_all(lab.workspace().join(".git/hooks")).unwrap();
    let before = inventory(&lab.workspace());
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    assert!(lab.workspace().join(".claude").is_dir());
    assert!(lab.workspace().join(".git/hooks").is_dir());
    assert_eq!(guest.succeed("git status --porcelain").await, "");
    let status = Command::new("git")
        .args(["status", "--porcelain"])
        .current_dir(lab.workspace())
        .output()
        .unwrap();
    assert!(
        status.status.success() && status.stdout.is_empty(),
        "{status:?}"
    );
    guest.stop().await;
    assert_eq!(inventory(&lab.workspace()), before);
}

#[tokio::test]
async fn what_the_host_puts_into_a_placeholder_stays() {
    let lab = Lab::new();
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    let file = lab.workspace().join(".vscode/settings.json");
    fs::write(&file, "{}").unwrap();
    assert_eq!(guest.succeed("cat .vscode/settings.json").await, "{}");
    guest.stop().await;
    assert_eq!(fs::read_to_string(file).unwrap(), "{}");
    assert!(!lab.workspace().join(".claude").exists());
}

#[tokio::test]
async fn an_empty_folder_of_the_user_stays() {
    let lab = Lab::new();
    fs::create_dir(lab.workspace().join(".claude")).unwrap();
    let first = lab.boot_with(protecting(&lab, "one")).await;
    let second = lab.boot_with(protecting(&lab, "two")).await;
    first.stop().await;
    second.stop().await;
    assert!(lab.workspace().join(".claude").is_dir());
}

#[tokio::test]
async fn guests_that_share_a_workspace_keep_each_others_protection() {
    let lab = Lab::new();
    let first = lab.boot_with(protecting(&lab, "one")).await;
    let second = lab.boot_with(protecting(&lab, "two")).await;
    first.stop().await;
    // Removing the folder would have taken the second's mount away.
    second
        .fail("mkdir -p .claude && echo x > .claude/settings.json")
        .await;
    second.stop().await;
    assert!(!lab.workspace().join(".claude").exists());
}

#[tokio::test]
async fn a_symbolic_link_is_never_followed_out_of_the_workspace() {
    let lab = Lab::new();
    let outside = lab.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "canary").unwrap();
    std::os::unix::fs::symlink(&outside, lab.workspace().join(".vscode")).unwrap();
    std::os::unix::fs::symlink(&outside, lab.workspace().join(".git")).unwrap();
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    guest.fail("cat .vscode/secret").await;
    guest.fail("cat .git/secret").await;
    guest
        .fail(&format!("cat {}/secret", outside.display()))
        .await;
    let warnings = guest.vm.warnings().join("\n");
    assert!(
        warnings.contains(".vscode is a symbolic link"),
        "{warnings}"
    );
    assert!(warnings.contains(".git is a symbolic link"), "{warnings}");
    guest.stop().await;
}

#[tokio::test]
async fn a_link_inside_the_workspace_has_its_target_protected() {
    let lab = Lab::new();
    fs::create_dir(lab.workspace().join("settings")).unwrap();
    std::os::unix::fs::symlink("settings", lab.workspace().join(".vscode")).unwrap();
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    guest.fail("echo x > .vscode/settings.json").await;
    guest.fail("echo x > settings/settings.json").await;
    guest.succeed("ln -sfn elsewhere .vscode").await;
    let link = lab.workspace().join(".vscode");
    eventually("the link is put back", PATIENCE, || {
        fs::read_link(&link).is_ok_and(|target| target == Path::new("settings"))
    });
    guest.stop().await;
}

#[tokio::test]
async fn a_worktree_works_and_its_repository_is_protected() {
    let lab = Lab::new();
    let main = lab.path().join("main");
    fs::create_dir(&main).unwrap();
    git(&main, &["init", "-q"]);
    git(&main, &["commit", "-q", "--allow-empty", "-m", "first"]);
    fs::remove_dir(lab.workspace()).unwrap();
    let workspace = lab.workspace().display().to_string();
    git(&main, &["worktree", "add", "-q", &workspace]);
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    guest
        .succeed(
            "echo x > file; git add file; git -c user.name=a -c user.email=a@b commit -qm second",
        )
        .await;
    let common = main.join(".git");
    for attempt in [
        format!("echo x > {}/hooks/pre-commit", common.display()),
        format!("echo x >> {}/config", common.display()),
        format!(
            "echo /tmp > {}/worktrees/workspace/commondir",
            common.display()
        ),
        format!(
            "mv {0}/worktrees/workspace {0}/worktrees/x",
            common.display()
        ),
        format!("mv {0}/worktrees {0}/x", common.display()),
        "echo 'gitdir: /tmp/evil' > .git".to_owned(),
        "rm .git".to_owned(),
    ] {
        guest.fail(&attempt).await;
    }
    guest
        .fail(&format!("ls {}/..  | grep -v .git", common.display()))
        .await;
    guest.stop().await;
    git(&lab.workspace(), &["status"]);
}

#[tokio::test]
async fn a_git_file_that_names_a_foreign_folder_shares_nothing() {
    let lab = Lab::new();
    let secret = lab.path().join("secret");
    fs::create_dir(&secret).unwrap();
    git(&secret, &["init", "-q", "--bare"]);
    let pointer = format!("gitdir: {}\n", secret.display());
    fs::write(lab.workspace().join(".git"), pointer).unwrap();
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    guest.fail(&format!("ls {}", secret.display())).await;
    let warnings = guest.vm.warnings().join("\n");
    assert!(
        warnings.contains("does not name this workspace back"),
        "{warnings}"
    );
    guest.stop().await;
}

#[tokio::test]
async fn submodules_are_protected_too() {
    let lab = Lab::new();
    let library = lab.path().join("library");
    fs::create_dir(&library).unwrap();
    git(&library, &["init", "-q"]);
    git(&library, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&lab.workspace(), &["init", "-q"]);
    let url = library.display().to_string();
    git(
        &lab.workspace(),
        &["submodule", "add", "-q", &url, "libs/it"],
    );
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    for attempt in [
        "echo x > .git/modules/libs/it/hooks/pre-commit",
        "echo x >> .git/modules/libs/it/config",
        "mv .git/modules/libs .git/modules/x",
    ] {
        guest.fail(attempt).await;
    }
    guest.stop().await;
}

#[tokio::test]
async fn a_repository_cannot_be_redirected() {
    let lab = Lab::new();
    git(&lab.workspace(), &["init", "-q"]);
    let guest = lab.boot_with(protecting(&lab, "one")).await;
    let redirection = lab.workspace().join(".git/commondir");
    guest
        .succeed("echo ../evil > .git/commondir; echo done")
        .await;
    eventually("it is set aside", PATIENCE, || !redirection.exists());
    git(&lab.workspace(), &["status"]);
    // A guest that insists is ended.
    let insist = "while :; do echo ../evil > .git/commondir; sleep 0.005; done";
    let process = guest.spawn(guest.shell(insist)).await.unwrap();
    assert!(matches!(ended(process.exit).await, Exit::Lost(_)));
    let reason = guest.vm.ended().borrow().clone().unwrap();
    assert!(reason.contains("replaced protected names"), "{reason}");
    assert!(!redirection.exists());
}

#[tokio::test]
async fn a_second_view_of_a_workspace_is_protected_too() {
    let lab = Lab::new();
    fs::create_dir(lab.workspace().join(".vscode")).unwrap();
    let spec = VmSpec {
        mounts: vec![acpbox::vm::Mount {
            host: lab.workspace(),
            guest: "/mnt/again".into(),
            writable: true,
        }],
        ..protecting(&lab, "one")
    };
    let guest = lab.boot_with(spec).await;
    guest.succeed("echo x > /mnt/again/file").await;
    guest
        .fail("echo x > /mnt/again/.vscode/settings.json")
        .await;
    guest
        .fail("echo x > /mnt/again/.claude/settings.json")
        .await;
    guest.stop().await;
}

#[tokio::test]
async fn an_absent_ignore_file_is_made_and_gone_afterwards() {
    // `.opencode` absent, and a folder of the user's without the file.
    for has_folder in [false, true] {
        let lab = Lab::new();
        git(&lab.workspace(), &["init", "-q"]);
        if has_folder {
            fs::create_dir(lab.workspace().join(".opencode")).unwrap();
            fs::write(lab.workspace().join(".opencode/command.md"), "x").unwrap();
        }
        let before = inventory(&lab.workspace());
        let spec = |name| VmSpec {
            protected: [".opencode", ".opencode/.gitignore"]
                .map(PathBuf::from)
                .to_vec(),
            ..lab.spec(name)
        };
        let first = lab.boot_with(spec("one")).await;
        let second = lab.boot_with(spec("two")).await;
        first.stop().await;
        let seen = second
            .succeed("cat .opencode/.gitignore; git status --porcelain")
            .await;
        let others = if has_folder { "\n?? .opencode/" } else { "" };
        assert_eq!(seen, format!(".gitignore{others}"));
        second.fail("echo x > .opencode/.gitignore").await;
        second.fail("rm .opencode/.gitignore").await;
        second.fail("echo x > .opencode/plugin.js").await;
        second.stop().await;
        assert_eq!(inventory(&lab.workspace()), before);
    }
}
