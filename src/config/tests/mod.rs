//! Configuration files in, plans and errors out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::vm::{Mount, Network, Root};

use super::*;

mod plans;

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
        self.config(text)?.vm_for(vm, &self.path(cwd), &[])
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
            sleep_after = "never"
            agent_sleep_after = "90s"
            [vms.research]
            root = "~/rootfs"
            network = "full"
            workspaces = ["~/src/paper", "~/src/data"]
            sleep_after = "2h"
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
    let research = config.vm_settings("research");
    assert_eq!(research.network, Network::Full);
    assert_eq!(research.root, Root::Folder(host.path("home/rootfs")));
    assert_eq!(
        research.limits.memory,
        Some(2 << 30),
        "the rest is as in the defaults"
    );
    assert_eq!(research.workspaces.len(), 2);
    let hours = |hours: u64| Some(Duration::from_secs(hours * 60 * 60));
    let patience = |vm: &VmSettings| (vm.sleep_after, vm.agent_sleep_after);
    let seconds = Some(Duration::from_secs(90));
    assert_eq!(patience(default), (None, seconds));
    assert_eq!(patience(research), (hours(2), seconds));
    assert_eq!(config.shortest_patience(), seconds);
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
            "line 1: unknown key `vm`; did you mean `vms`?",
        ),
        (
            "[limits]\nzzz = 1",
            "line 2: unknown key `zzz` in [limits]; the keys here are line_bytes, depth",
        ),
        (
            "[default]\nagent = 'x'",
            "line 1: unknown key `default`; did you mean `defaults`?",
        ),
        (
            "[limits]\ndepth = -1",
            "line 2: `depth`: invalid value: integer `-1`, expected a whole number",
        ),
        (
            "[retention]\nmax_sessions = 'x'",
            "line 2: `max_sessions`: invalid type: string \"x\", expected a whole number",
        ),
        (
            "[retention]\nmax_sessions = 0",
            ": `retention.max_sessions` is 0, which would delete every session; leave it out for no limit",
        ),
        (
            "[retention]\nmax_bytes = 0",
            ": `retention.max_bytes` is 0, which would delete",
        ),
        (
            "[retention]\nmax_age = '0s'",
            ": `retention.max_age` is 0, which would delete",
        ),
        (
            "[limits]\npending_requests = 0",
            ": `limits.pending_requests` is 0, with which nothing would work; write at least 1",
        ),
        (
            "[server]\nconnections = 0",
            ": `server.connections` is 0, with which nothing would work; write at least 1",
        ),
        (
            "[server]\nhandshakes = 0",
            ": `server.handshakes` is 0, with which nothing would work; write at least 1",
        ),
        (
            "[server]\norigins = ['https://a.example.org', 'b.example.org:8080']",
            ": `server.origins` has \"b.example.org:8080\", which is no origin that a browser sends; write \"https://b.example.org:8080\", or http:// if it is that",
        ),
        (
            "[server]\norigins = ['https://a.example.org/page']",
            "as it goes on behind the host; write \"https://a.example.org\"",
        ),
        (
            "[server]\norigins = ['https://a.example.org:443']",
            "as they leave the usual port out; write \"https://a.example.org\"",
        ),
        (
            "[server]\norigins = ['null']",
            "which any page can make its browser send",
        ),
        (
            "[server]\norigins = ['https://*.example.org']",
            "`*` stands for nothing here",
        ),
        (
            "[server]\norigins = ['https://bücher.example']",
            "begins with xn--",
        ),
        ("[server]\norigins = ['https://']", "its host is empty"),
        (
            "[server]\nhosts = ['box.example.org:4712']",
            ": `server.hosts` has \"box.example.org:4712\", which is no host as clients name it, as the port is left out; write \"box.example.org\"",
        ),
        (
            "[server]\nhosts = ['https://box.example.org/']",
            "write \"box.example.org\" alone",
        ),
        (
            "[server]\nhosts = ['[::1]:80']",
            "write \"::1\" without brackets",
        ),
        (
            "[server]\nhosts = ['box.']",
            "write \"box\" without the last dot",
        ),
        (
            "[vms.x]\nmemory = '1MiB'",
            ": `vms.x.memory` is 1048576, with which nothing would work; write at least 16777216",
        ),
        (
            "[vms.default]\nprocesses = 1",
            ": `vms.default.processes` is 1, with which nothing would work; write at least 16",
        ),
        (
            "[vms.default]\nopen_files = 3",
            ": `vms.default.open_files` is 3, with which nothing would work; write at least 64",
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
            "[vms.default]\nsleep_after = 'soon'",
            "line 2: `sleep_after`: invalid value: string \"soon\", expected a duration such as \"15m\"",
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
        (
            "[agents.x]\npass_env = ['HOME', 'TOKEN=sk-secret']",
            ": `agents.x.pass_env` has `TOKEN=…`, which is no name; write the name alone, and a value",
        ),
        (
            "[agents.x]\npass_env = ['']",
            ": `agents.x.pass_env` has an empty name; write",
        ),
        (
            "[agents.x]\nenv = { '=x' = 'sk-secret' }",
            ": `agents.x.env` has a name that begins with `=`; write",
        ),
    ];
    for (text, expected) in cases {
        let complaint = complaint(text);
        assert!(
            complaint.starts_with(expected),
            "{text}\n got: {complaint}\nwant: {expected}"
        );
        assert!(!complaint.contains("sk-secret"), "{complaint}");
    }
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
