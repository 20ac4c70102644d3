//! Made-up installations in, commands, paths and mounts out.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Overrides, Paths};

use super::*;

mod layouts;

const NODE_SCRIPT: &str = "#!/usr/bin/env node\n";

/// A host whose programs are all made up; nothing of it is under /usr.
struct Host {
    folder: tempfile::TempDir,
    /// Folders on PATH, in order.
    path: Vec<&'static str>,
}

impl Host {
    fn new(path: &[&'static str]) -> Host {
        Host {
            folder: tempfile::tempdir().unwrap(),
            path: path.to_vec(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    fn file(&self, path: &str, content: &str) -> &Host {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Host {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, self.at(path)).unwrap();
        self
    }

    fn environment(&self) -> Environment {
        let path = std::env::join_paths(self.path.iter().map(|path| self.at(path))).unwrap();
        Environment::from_variables([
            ("HOME", self.at("home").into_os_string()),
            ("PATH", path),
            ("ANTHROPIC_API_KEY", "sk-secret".into()),
            ("UNRELATED", "x".into()),
        ])
    }

    fn config(&self, text: &str) -> Config {
        let paths = Paths {
            config_file: "/etc/acpbox.toml".into(),
            state_dir: "/s".into(),
            database: "/s/db".into(),
            vms_dir: "/s/vms".into(),
            runtime_dir: "/s/run".into(),
            server: Vec::new(),
        };
        Config::parse(text, paths, &self.environment(), &Overrides::default()).unwrap()
    }

    fn agent(&self, text: &str, name: &str) -> Agent {
        let config = self.config(text);
        Catalog::new(&config).unwrap().get(name).unwrap().clone()
    }

    fn locate(&self, text: &str, name: &str) -> Result<Located, LocateError> {
        let executable = Path::new("/run/acpbox/acpbox");
        self.agent(text, name)
            .locate(&self.environment(), &Root::Host, executable)
    }

    /// Checks the command and the mounts, which are the same on both sides.
    fn check(&self, text: &str, name: &str, command: &str, mounts: &[&str]) -> Located {
        let located = self.locate(text, name).unwrap();
        assert_eq!(located.command, self.at(command));
        let mut expected: Vec<_> = mounts.iter().map(|path| self.at(path)).collect();
        expected.sort();
        let shown: Vec<_> = located
            .mounts
            .iter()
            .map(|mount| mount.guest.clone())
            .collect();
        assert_eq!(shown, expected);
        assert!(
            located
                .mounts
                .iter()
                .all(|mount| mount.host == mount.guest && !mount.writable)
        );
        assert!(
            located.path.ends_with("/usr/local/bin:/usr/bin:/bin"),
            "{}",
            located.path
        );
        located
    }

    fn path_of(&self, located: &Located) -> Vec<PathBuf> {
        let inside = std::env::split_paths(&located.path);
        inside
            .filter(|folder| folder.starts_with(self.at("")))
            .collect()
    }
}

/// An agent of the configuration that starts `x`.
const X: &str = "[agents.x]\ncommand = 'x'";

#[test]
fn a_missing_program_says_how_to_install_it() {
    let host = Host::new(&["bin"]);
    let message = host.locate("", "claude").unwrap_err().to_string();
    let install = "install it with `npm install -g @agentclientprotocol/claude-agent-acp`";
    assert!(
        message.contains("`claude-agent-acp` was not found on PATH"),
        "{message}"
    );
    assert!(message.contains(install), "{message}");
    assert!(
        message.contains("`command` under [agents.claude] in /etc/acpbox.toml"),
        "{message}"
    );
}

#[test]
fn npx_fetches_what_is_not_installed() {
    let host = Host::new(&["node/bin"]);
    host.file("node/bin/node", "ELF")
        .file("node/lib/node_modules/npm/bin/npx-cli.js", NODE_SCRIPT)
        .link("node/bin/npx", "../lib/node_modules/npm/bin/npx-cli.js");
    let mounts = ["node/bin", "node/lib/node_modules"];
    let gemini = host.check("", "gemini", "node/bin/npx", &mounts);
    assert_eq!(gemini.args, ["-y", "@google/gemini-cli", "--acp"]);
    assert_eq!(gemini.found, Found::Npx);
    let pi = host.check("", "pi", "node/bin/npx", &mounts);
    let packages = [
        "-p",
        "pi-acp",
        "-p",
        "@earendil-works/pi-coding-agent",
        "pi-acp",
    ];
    assert_eq!(pi.args[1..], packages);

    let info = host
        .agent("", "gemini")
        .info(&host.environment(), &Root::Host, Path::new("/x"));
    assert_eq!(info.npx.as_deref(), Some("npx -y @google/gemini-cli --acp"));
    assert_eq!(info.found_at, None);
}

#[test]
fn a_companion_is_shown_and_named_in_its_variable() {
    let host = Host::new(&["node/bin", "home/.bun/bin"]);
    host.file("node/bin/node", "ELF")
        .file("node/lib/node_modules/pi-acp/index.js", NODE_SCRIPT)
        .link("node/bin/pi-acp", "../lib/node_modules/pi-acp/index.js")
        .file(
            "home/.bun/install/global/node_modules/pi/cli.js",
            NODE_SCRIPT,
        )
        .link(
            "home/.bun/bin/pi",
            "../install/global/node_modules/pi/cli.js",
        );
    let located = host.check(
        "",
        "pi",
        "node/bin/pi-acp",
        &[
            "node/bin",
            "node/lib/node_modules",
            "home/.bun/install/global/node_modules",
        ],
    );
    let pi = host.at("home/.bun/install/global/node_modules/pi/cli.js");
    assert_eq!(located.env["PI_ACP_PI_COMMAND"], pi.to_str().unwrap());

    host.file("mine/pi", "ELF");
    let text = format!(
        "[agents.pi.env]\nPI_ACP_PI_COMMAND = {:?}",
        host.at("mine/pi")
    );
    let located = host.locate(&text, "pi").unwrap();
    assert!(
        located
            .mounts
            .iter()
            .any(|mount| mount.host == host.at("mine/pi"))
    );
    let guest = Guest::isolated();
    let env = host
        .agent(&text, "pi")
        .environment(&host.environment(), &located, &guest);
    assert_eq!(
        env["PI_ACP_PI_COMMAND"],
        host.at("mine/pi").to_str().unwrap()
    );
}

#[test]
fn the_example_is_acpbox_itself() {
    let located = Host::new(&[]).locate("", EXAMPLE).unwrap();
    assert_eq!(located.command, Path::new("/run/acpbox/acpbox"));
    assert_eq!(located.args, ["example-agent"]);
    assert_eq!(located.found, Found::Own);
}

#[test]
fn the_environment_is_a_list_and_not_the_hosts() {
    let host = Host::new(&["bin"]);
    host.file("bin/claude-agent-acp", "ELF");
    let text = "[agents.claude.env]\nDISABLE_AUTOUPDATER = '0'\nMINE = 'm'";
    let located = host.locate(text, "claude").unwrap();
    let agent = host.agent(text, "claude");
    let env = agent.environment(&host.environment(), &located, &Guest::isolated());
    assert_eq!(env["HOME"], "/home/agent");
    assert_eq!(env["USER"], "agent");
    assert_eq!(env["ANTHROPIC_API_KEY"], "sk-secret");
    assert_eq!(env["DISABLE_AUTOUPDATER"], "0", "the configuration wins");
    assert_eq!(env["MINE"], "m");
    assert!(!env.contains_key("UNRELATED") && !env.contains_key("ANTHROPIC_BASE_URL"));

    let none = "[agents.claude]\npass_env = []";
    let env =
        host.agent(none, "claude")
            .environment(&host.environment(), &located, &Guest::isolated());
    assert!(
        !env.contains_key("ANTHROPIC_API_KEY"),
        "pass_env replaces the built-in names"
    );
}

#[test]
fn what_is_shown_of_an_agent_holds_no_value() {
    let host = Host::new(&["bin"]);
    host.file("bin/claude-agent-acp", "ELF");
    let agent = host.agent("[agents.claude.env]\nTOKEN = 'sk-other'", "claude");
    let info = agent.info(&host.environment(), &Root::Host, Path::new("/a"));
    assert_eq!(info.source, Source::Changed);
    assert_eq!(info.found_at, Some(host.at("bin/claude-agent-acp")));
    let key = PassedVariable {
        name: "ANTHROPIC_API_KEY".into(),
        set: true,
    };
    assert!(info.pass_env.contains(&key), "{:?}", info.pass_env);
    let json = serde_json::to_string(&info).unwrap();
    assert!(json.contains("TOKEN") && !json.contains("sk-"), "{json}");
}

#[test]
fn an_unknown_agent_is_answered_with_the_nearest() {
    let config = Host::new(&[]).config("");
    let catalog = Catalog::new(&config).unwrap();
    let message = catalog.get("claud").unwrap_err().to_string();
    assert!(message.contains("did you mean `claude`?"), "{message}");
    assert!(message.contains("claude, codex, example, gemini, goose, opencode, pi, qwen"));
    assert_eq!(catalog.list().count(), 8);
}

#[test]
fn mistakes_in_the_configuration_of_agents_are_named() {
    let host = Host::new(&[]);
    let wrong = |text: &str| Catalog::new(&host.config(text)).unwrap_err().to_string();
    let message = wrong("[agents.mine]\nargs = ['a']");
    assert!(
        message.contains("`agents.mine.command` is missing"),
        "{message}"
    );
    let message = wrong("[agents.pi]\ninstructions = 'prompt'");
    assert!(message.contains("`agents.pi.instructions` is `prompt`; write first-prompt"));
}

#[test]
fn codex_uses_no_sandbox_of_its_own_inside_a_vm_and_keeps_it_outside() {
    let host = Host::new(&[]);
    let catalog = |text| Catalog::new(&host.config(text)).unwrap();
    let codex = catalog("").get("codex").unwrap().clone();
    assert!(codex.args.is_empty() && codex.env.is_empty());
    let caged = codex.caged();
    assert_eq!(caged.args, ["-c", "sandbox_mode=\"danger-full-access\""]);
    assert!(caged.env["CODEX_CONFIG"].contains("danger-full-access"));
    // The configuration's own come later, and so win.
    let text = "[agents.codex]\nargs = ['-c', 'x=1']\nenv = { CODEX_CONFIG = '{}' }";
    let caged = catalog(text).get("codex").unwrap().clone().caged();
    assert_eq!(caged.args[2..], ["-c", "x=1"]);
    assert_eq!(caged.env["CODEX_CONFIG"], "{}");
}
