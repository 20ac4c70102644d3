//! Configuration files in, plans and errors out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::vm::{Mount, Network, Root};

use super::*;

/// A home folder with a repository in it.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let host = Host { folder };
        host.make("home/src/repo/.git/hooks");
        host.make("home/src/repo/deep/er");
        host.make("home/src/plain");
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    fn make(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn environment(&self) -> Environment {
        Environment::from_variables([("HOME", self.path("home"))])
    }

    fn config(&self, text: &str) -> Result<Config, ConfigError> {
        let environment = self.environment();
        let overrides = Overrides::default();
        let paths = Paths::new(&environment, &overrides)?;
        Config::parse(text, paths, &environment, &overrides)
    }

    fn plan(&self, text: &str, vm: Option<&str>, cwd: &str) -> Result<VmPlan, ConfigError> {
        self.config(text)?
            .vm_for(vm, &self.path(cwd), &[], &self.environment())
    }

    fn refusal(&self, text: &str, vm: Option<&str>, cwd: &str) -> String {
        self.plan(text, vm, cwd).unwrap_err().to_string()
    }
}

/// The error that a file gives, without the file's name.
fn complaint(text: &str) -> String {
    let message = Host::new().config(text).unwrap_err().to_string();
    message
        .split_once("config.toml")
        .expect("the file is named")
        .1
        .trim()
        .to_owned()
}

#[test]
fn an_empty_file_gives_the_built_in_values() {
    let config = Host::new().config("").unwrap();
    assert_eq!(config.default_agent, "claude");
    assert_eq!(config.default_vm, None);
    assert_eq!(config.limits.line_bytes, 64 << 20);
    assert_eq!(config.limits.cancel_grace, Duration::from_secs(10));
    assert_eq!(*config.vm_settings("any"), VmSettings::default());
}

#[test]
fn the_example_of_the_design_is_read() {
    let host = Host::new();
    let config = host
        .config(
            r#"
            [defaults]
            agent = "codex"
            [agents.claude]
            command = "claude-agent-acp"
            args = []
            env = { CLAUDE_CODE_USE_BEDROCK = "1" }
            pass_env = ["ANTHROPIC_API_KEY"]
            [vms.default]
            driver = "namespace"
            root = "host"
            network = "none"
            mounts = [{ path = "~/.cache/uv", mode = "rw" }, { path = "/data", guest = "~/d" }]
            memory = "2GiB"
            processes = 1024
            sleep_after = "5m"
            [vms.research]
            root = "~/rootfs"
            network = "full"
            workspaces = ["~/src/paper", "~/src/data"]
            [limits]
            line_bytes = "1MiB"
            depth = 64
            initialize_timeout = "5s"
            "#,
        )
        .unwrap();
    assert_eq!(config.default_agent, "codex");
    assert_eq!(config.agents["claude"].env["CLAUDE_CODE_USE_BEDROCK"], "1");
    let default = config.vm_settings("default");
    assert_eq!(default.network, Network::None);
    let uv = Mount {
        host: host.path("home/.cache/uv"),
        guest: "/home/agent/.cache/uv".into(),
        writable: true,
    };
    let data = Mount {
        host: "/data".into(),
        guest: "/home/agent/d".into(),
        writable: false,
    };
    assert_eq!(default.mounts, [uv, data]);
    assert_eq!(default.limits.memory, Some(2 << 30));
    assert_eq!(
        default.limits.open_files,
        VmSettings::default().limits.open_files
    );
    assert_eq!(default.sleep_after, Duration::from_secs(300));
    let research = config.vm_settings("research");
    assert_eq!(research.network, Network::Full);
    assert_eq!(research.root, Root::Folder(host.path("home/rootfs")));
    assert_eq!(
        research.limits.memory,
        Some(2 << 30),
        "the rest is as in the defaults"
    );
    assert_eq!(research.workspaces.len(), 2);
    assert_eq!(config.limits.line_bytes, 1 << 20);
    assert_eq!(config.limits.initialize_timeout, Duration::from_secs(5));
}

#[test]
fn flags_win_over_the_file() {
    let host = Host::new();
    let environment = host.environment();
    let file = host.make("conf").join("mine.toml");
    std::fs::write(&file, "[defaults]\nagent = 'pi'\nvm = 'a'\n").unwrap();
    let overrides = Overrides {
        config: Some(file),
        agent: Some("codex".into()),
        ..Overrides::default()
    };
    let config = Config::load(&environment, &overrides).unwrap();
    assert_eq!(config.default_agent, "codex");
    assert_eq!(config.default_vm.as_deref(), Some("a"));
}

#[test]
fn a_missing_file_matters_only_when_a_flag_named_it() {
    let host = Host::new();
    assert!(Config::load(&host.environment(), &Overrides::default()).is_ok());
    let overrides = Overrides {
        config: Some(host.path("no.toml")),
        ..Overrides::default()
    };
    let message = Config::load(&host.environment(), &overrides)
        .unwrap_err()
        .to_string();
    assert!(message.contains("no.toml"), "{message}");
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line_and_key() {
    let cases = [
        (
            "[agents.x]\ncomand = 'a'",
            "line 2: unknown key `comand` in [agents.x]; did you mean `command`?",
        ),
        (
            "[vms.default]\nmemory = '1GiB'\nnetwrk = 'none'",
            "line 3: unknown key `netwrk` in [vms.default]; did you mean `network`?",
        ),
        (
            "[vm.default]",
            "line 1: unknown key `vm` in [vm.default]; did you mean `vms`?",
        ),
        (
            "[limits]\nzzz = 1",
            "line 2: unknown key `zzz` in [limits]; the keys here are line_bytes, depth",
        ),
        (
            "[agents.x]\nargs = 'a'",
            "line 2: `args`: invalid type: string \"a\", expected a list",
        ),
        (
            "[agents.x]\nenv = { A = 1 }",
            "line 2: `A`: invalid type: integer `1`, expected a string",
        ),
        (
            "[vms.default]\nmemory = 'lots'",
            "line 2: `memory`: invalid value: string \"lots\", expected a size such as \"8GiB\"",
        ),
        (
            "[limits]\ncancel_grace = 10",
            "line 2: `cancel_grace`: invalid type: integer `10`, expected a duration such as \"15m\"",
        ),
        (
            "[vms.default]\nnetwork = 'half'",
            "line 2: `network`: unknown variant `half`, expected `full` or `none`",
        ),
        (
            "[vms.default]\nmounts = [{ path = '/x', mod = 'rw' }]",
            "line 2: unknown key `mod` in [vms.default]; did you mean `mode`?",
        ),
        ("a = ", "line 1: "),
        (
            "[vms.default]\nmounts = [{ path = 'x' }]",
            ": `vms.default.mounts` has `x`; write an absolute path",
        ),
        (
            "[vms.w]\nworkspaces = ['~/../other']",
            ": `vms.w.workspaces` has `~/../other`; write an absolute path",
        ),
        (
            "[vms.default]\nworkspaces = ['/x']",
            ": `vms.default.workspaces` cannot be set",
        ),
        (
            "[vms.default]\nprotected = ['../x']",
            ": `vms.default.protected` has `../x`; write a path inside",
        ),
        (
            "[vms.default]\nwritable = ['.git/hook']",
            ": `vms.default.writable` names .git/hook, which is not protected",
        ),
        ("[vms.'../../x']", ": `vms.../../x` is no name for a VM"),
        (
            "[agents.x]\ncommand = './x'",
            ": `agents.x.command` has `./x`; write an absolute path",
        ),
    ];
    for (text, expected) in cases {
        let complaint = complaint(text);
        assert!(
            complaint.starts_with(expected),
            "{text}\n got: {complaint}\nwant: {expected}"
        );
    }
}

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
    for cwd in [
        "home",
        "",
        "home/.ssh/x",
        "home/.config",
        "/",
        "/usr/bin",
        "/etc",
        "/proc/1",
    ] {
        let message = host.refusal("", None, cwd);
        assert!(message.starts_with("`cwd` "), "{cwd}: {message}");
        assert!(
            message.contains("[vms.NAME]\nworkspaces = ["),
            "{cwd}: {message}"
        );
        assert!(message.contains("--vm NAME"), "{cwd}: {message}");
    }
    let message = host.refusal("", None, "home/.local/state/acpbox/vms");
    assert!(message.contains("acpbox's own"), "{message}");
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
    let environment = host.environment();
    let config = host.config("").unwrap();
    let plan = |folders: &[PathBuf]| {
        config.vm_for(None, &host.path("home/src/repo"), folders, &environment)
    };
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
    let relative = config.vm_for(None, Path::new("src"), &[], &host.environment());
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

#[test]
fn values_of_agents_variables_do_not_show_when_logged() {
    let config = Host::new()
        .config("[agents.x]\nenv = { TOKEN = 'sk-secret' }")
        .unwrap();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("TOKEN") && !shown.contains("sk-secret"),
        "{shown}"
    );
}

#[test]
fn the_schema_names_every_section() {
    let schema = schema();
    for section in ["defaults", "agents", "vms", "limits"] {
        assert!(
            schema["properties"][section].is_object(),
            "{section}: {schema}"
        );
    }
}
