//! Folders and configuration of one acpbox that a test starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::scripted::{script, testy};

/// Folders of one acpbox: its configuration, its state, a workspace.
pub struct Setup {
    folder: tempfile::TempDir,
    driver: &'static str,
    limits: String,
    vm: String,
    /// Further TOML, after the rest.
    config: String,
    agent: String,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl Setup {
    /// Sessions run in VMs.
    pub fn new() -> Setup {
        Setup::with_driver("namespace")
    }

    /// Sessions run on the host itself, which starts sooner.
    pub fn host() -> Setup {
        Setup::with_driver("host")
    }

    fn with_driver(driver: &'static str) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config/acpbox", "state", "run", "home", "workspace"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let setup = Setup {
            folder,
            driver,
            limits: String::new(),
            vm: String::new(),
            config: String::new(),
            agent: String::new(),
            variables: BTreeMap::new(),
            arguments: Vec::new(),
        };
        setup.script(&[]);
        setup
    }

    /// Lines of `[limits]`.
    pub fn limits(mut self, lines: &str) -> Setup {
        self.limits = lines.to_owned();
        self
    }

    /// Further lines of `[vms.default]`.
    pub fn vm(mut self, lines: &str) -> Setup {
        self.vm = lines.to_owned();
        self
    }

    /// Whole tables of configuration.
    pub fn config(mut self, toml: &str) -> Setup {
        self.config = toml.to_owned();
        self
    }

    /// Further lines of `[agents.testy]`.
    pub fn agent(mut self, lines: &str) -> Setup {
        self.agent = lines.to_owned();
        self
    }

    /// A variable of acpbox's own environment.
    pub fn variable(mut self, name: &str, value: &str) -> Setup {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// A further argument of `acpbox stdio`.
    pub fn argument(mut self, argument: &str) -> Setup {
        self.arguments.push(argument.into());
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn workspace(&self) -> PathBuf {
        self.path().join("workspace")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state/acpbox")
    }

    /// What the agent `testy` does from its next start on.
    pub fn script(&self, steps: &[Value]) {
        std::fs::write(self.workspace().join(".testy"), script(steps)).unwrap();
    }

    /// The lines that the agent received; its script must have said
    /// `{"record": "$CWD/received"}`, made by [`Setup::record`].
    pub fn received(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.workspace().join("received")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The step that lets the agent keep what it receives.
    pub fn record(&self) -> Value {
        json!({"record": self.workspace().join("received")})
    }

    fn write_config(&self) {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let program = quoted(&testy().display().to_string());
        let script = quoted(&self.workspace().join(".testy").display().to_string());
        let text = format!(
            "[defaults]\nagent = \"testy\"\n\
             [agents.testy]\ncommand = {program}\nargs = [{script}]\ninstructions = \"none\"\n{}\n\
             [agents.inline]\ncommand = {program}\ninstructions = \"none\"\n\
             [vms.default]\ndriver = \"{}\"\n{}\n[limits]\n{}\n{}\n",
            self.agent, self.driver, self.vm, self.limits, self.config
        );
        std::fs::write(self.path().join("config/acpbox/config.toml"), text).unwrap();
    }

    /// The command `acpbox stdio` with this set-up's environment and no other.
    pub fn command(&self) -> Command {
        self.write_config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acpbox"));
        command
            .arg("stdio")
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path().join("home"))
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .envs(&self.variables)
            .current_dir(self.workspace());
        command
    }

    /// Starts acpbox; nothing was said to it yet.
    pub fn start(&self) -> Client {
        Client::start(self, Framing::Lines)
    }

    /// Starts acpbox for a client that offers everything.
    pub fn connect(&self) -> Client {
        let mut client = self.start();
        client.initialize();
        client
    }

    /// The same in the framing of LSP's libraries.
    pub fn connect_with_headers(&self) -> Client {
        let mut client = Client::start(self, Framing::Headers);
        client.initialize();
        client
    }
}

impl Drop for Setup {
    /// Whatever the test was about, no turn is left without an end.
    fn drop(&mut self) {
        let database = self.state().join("acpbox.db");
        if !std::thread::panicking() && database.exists() {
            super::endings::check(&database, self.path().join("killed").exists());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Lines,
    Headers,
}

/// Waits at most a minute for something to become true.
pub fn wait_until(mut is_true: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if is_true() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    is_true()
}
