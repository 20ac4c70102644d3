//! acpbox as a person has it: a home, its own folders, a configuration and
//! repositories, all in one temporary folder, and the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bare::Bare;
use super::peers::{self, AgentLaunch};

/// What system programs need.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where an isolated guest has its home.
pub const GUEST_HOME: &str = "/home/agent";

pub struct Site {
    folder: tempfile::TempDir,
    path: String,
    variables: BTreeMap<String, String>,
}

impl Site {
    /// An empty one, where only the system's programs are found.
    pub fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        for name in ["home", "config/acpbox", "state", "run", "work"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Site {
            folder,
            path: PATH.to_owned(),
            variables: BTreeMap::new(),
        }
    }

    /// One where the real agents and clients are found on PATH, as installed
    /// by `tests/peers/install`.
    pub fn with_peers() -> Site {
        Site {
            path: peers::path(),
            ..Site::new()
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The person's `HOME`.
    pub fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    /// acpbox's state folder.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state/acpbox")
    }

    pub fn database(&self) -> PathBuf {
        self.state().join("acpbox.db")
    }

    /// On the host, the home of the agents in a VM.
    pub fn vm_home(&self, vm: &str) -> PathBuf {
        self.state().join("vms").join(vm).join("home")
    }

    /// Writes `config.toml`.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder().join("config/acpbox/config.toml"), text).unwrap();
    }

    /// Sets a variable of acpbox's own environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Makes a git repository with one commit of a file `README`.
    pub fn repository(&self, name: &str) -> PathBuf {
        let folder = self.folder().join("work").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        git(&folder, &["init", "-q", "-b", "main"]);
        git(&folder, &["config", "user.name", "A Person"]);
        git(&folder, &["config", "user.email", "person@example.org"]);
        std::fs::write(folder.join("README"), "one\ntwo\n").unwrap();
        git(&folder, &["add", "README"]);
        git(&folder, &["commit", "-q", "-m", "first"]);
        folder
    }

    /// The whole environment of acpbox.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let below = |name: &str| self.folder().join(name).display().to_string();
        let mut all = BTreeMap::from([
            ("PATH".to_owned(), self.path.clone()),
            ("HOME".to_owned(), below("home")),
            ("XDG_CONFIG_HOME".to_owned(), below("config")),
            ("XDG_STATE_HOME".to_owned(), below("state")),
            ("XDG_RUNTIME_DIR".to_owned(), below("run")),
        ]);
        all.extend(self.variables.clone());
        all
    }

    /// The binary with that environment and these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acpbox"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .current_dir(self.home());
        command
    }

    /// Starts `acpbox stdio` with these further arguments; not yet initialized.
    pub fn start(&self, arguments: &[&str]) -> Bare {
        let mut all = vec!["stdio".to_owned()];
        all.extend(arguments.iter().map(|&it| it.to_owned()));
        let program = Path::new(env!("CARGO_BIN_EXE_acpbox"));
        Bare::start(program, &all, &self.environment())
    }

    /// Starts it and initializes.
    pub fn connect(&self, arguments: &[&str]) -> Bare {
        let mut acpbox = self.start(arguments);
        acpbox.request("initialize", initialize(json!({})));
        acpbox
    }

    /// Boots the workspace's VM by a session of the example agent, and puts the
    /// agents' files into its home.
    pub fn furnish(&self, acpbox: &mut Bare, workspace: &Path, launches: &[&AgentLaunch]) {
        let meta = json!({"acpbox": {"agent": "example"}});
        let params = json!({"cwd": workspace, "mcpServers": [], "_meta": meta});
        let created = acpbox.request("session/new", params);
        let vm = created["_meta"]["acpbox"]["vm"].as_str().unwrap();
        let list = acpbox.request("_acpbox/vm/list", json!({}));
        let vms = list["vms"].as_array().unwrap();
        assert!(
            vms.iter().any(|it| it["name"] == vm),
            "{vm} is not in {list}"
        );
        for launch in launches {
            launch.write_home(&self.vm_home(vm));
        }
    }

    /// What of this site's guests is alive, now and later.
    pub fn watch(&self) -> Watch {
        Watch::of(self.folder())
    }
}

/// The processes of a site's guests: those that work in its folder or were
/// told its paths, and everything in their process namespaces.
pub struct Watch {
    folder: String,
    spaces: BTreeSet<PathBuf>,
}

impl Watch {
    /// Takes note of the guests whose acpbox keeps all its files in this folder.
    pub fn of(folder: &Path) -> Watch {
        let mut watch = Watch {
            folder: folder.display().to_string(),
            spaces: BTreeSet::new(),
        };
        let own = space("self");
        let spaces = watch
            .alive()
            .into_iter()
            .filter_map(|pid| space(&pid.to_string()));
        watch.spaces = spaces.filter(|space| Some(space) != own.as_ref()).collect();
        watch
    }

    /// Ids on the host, without acpbox itself.
    pub fn alive(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|pid| self.is_guest(*pid)).collect()
    }

    /// Waits until none is left.
    ///
    /// # Panics
    /// When some are left after `patience`, with what they are.
    pub fn expect_none(&self, patience: Duration) {
        let start = Instant::now();
        while !self.alive().is_empty() {
            assert!(
                start.elapsed() < patience,
                "alive after {patience:?}: {:#?}",
                self.alive().into_iter().map(describe).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_guest(&self, pid: u32) -> bool {
        let read = |name: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        // An orphan that is dead stays listed until the machine's first process
        // has taken note of it.
        let stat = read("stat");
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return false;
        }
        if space(&pid.to_string()).is_some_and(|space| self.spaces.contains(&space)) {
            return true;
        }
        let arguments = read("cmdline");
        let is_acpbox = ["\0stdio\0", "\0run\0"]
            .iter()
            .any(|it| arguments.contains(it));
        if is_acpbox || pid == std::process::id() {
            return false;
        }
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        arguments.contains(&self.folder)
            || cwd.starts_with(&self.folder)
            || read("environ").contains(&self.folder)
    }
}

/// `[agents.NAME]` with a launch's environment. The program is found on PATH.
pub fn agent_table(name: &str, launch: &AgentLaunch) -> String {
    let own = ["HOME", "PATH", "PI_ACP_PI_COMMAND"];
    let env = (launch.env.iter()).filter(|(name, _)| !own.contains(&name.as_str()));
    let env: Vec<String> = env
        .map(|(name, value)| format!("{name} = {value:?}"))
        .collect();
    format!("[agents.{name}]\nenv = {{ {} }}\n", env.join(", "))
}

/// `initialize`'s params.
pub fn initialize(capabilities: Value) -> Value {
    json!({
        "protocolVersion": 1, "clientCapabilities": capabilities,
        "clientInfo": {"name": "acpbox-tests", "version": "0"},
    })
}

/// Runs git, which must succeed; returns what it said.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until this is true; `false` when it is not within `patience`.
pub fn eventually(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn space(pid: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn describe(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!(
        "{pid} {}",
        String::from_utf8_lossy(&line).replace('\0', " ")
    )
}
