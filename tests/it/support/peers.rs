//! Real agents, installed by `tests/peers/install`, and how each is launched so
//! that it talks to the fake model and to nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Everything that it takes to start an agent.
#[derive(Debug, Clone)]
pub struct AgentLaunch {
    /// Absolute, below `target/peers`.
    pub command: PathBuf,
    pub args: Vec<String>,
    /// Besides the system's `PATH`, all that the agent needs; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Files to write first: a path relative to the agent's home, and a content.
    pub home_files: Vec<(PathBuf, String)>,
}

/// A function such as [`pi`]: from the model's port and the agent's home, as the
/// agent sees it, to a launch.
pub type Launcher = fn(u16, &Path) -> AgentLaunch;

/// Every agent by its name.
pub const ALL: [(&str, Launcher); 4] = [
    ("pi", pi),
    ("opencode", opencode),
    ("claude", claude),
    ("codex", codex),
];

/// The folder into which `tests/peers/install` installs.
///
/// # Panics
/// When it has not run, with the sentence that says so.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    assert!(
        folder.join("node.stamp").exists() && folder.join("python.stamp").exists(),
        "the test peers are not installed: run tests/peers/install"
    );
    folder
}

/// A program that one of the npm packages brings, such as `acpx` or `node`.
pub fn program(name: &str) -> PathBuf {
    folder().join("node_modules/.bin").join(name)
}

/// The Python that has the official SDK.
pub fn python() -> PathBuf {
    folder().join("python/bin/python")
}

/// A `PATH` on which the peers' own Node 24 comes before the system's Node, which
/// may be older.
pub fn path() -> String {
    let bin = folder().join("node_modules/.bin");
    format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())
}

/// pi through pi-acp: asks no permission; 0.2 s to initialize, 0.5 s to a session.
pub fn pi(port: u16, home: &Path) -> AgentLaunch {
    let model = json!({
        "id": "fake-model", "name": "Fake", "reasoning": false, "input": ["text"],
        "contextWindow": 128_000, "maxTokens": 4096,
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
    });
    let provider = json!({
        "baseUrl": format!("http://127.0.0.1:{port}/v1"), "api": "openai-completions",
        "apiKey": "sk-fake", "models": [model],
    });
    let models = json!({"providers": {"fake": provider}});
    let settings = json!({"defaultProvider": "fake", "defaultModel": "fake-model"});
    let mut launch = launch("pi-acp", &[], home);
    launch.set("PI_ACP_PI_COMMAND", &program("pi").to_string_lossy());
    launch.set("PI_OFFLINE", "1");
    launch.set("PI_SKIP_VERSION_CHECK", "1");
    launch.set("FAKE_KEY", "x");
    launch.file(".pi/agent/models.json", models.to_string());
    launch.file(".pi/agent/settings.json", settings.to_string());
    launch
}

/// opencode: asks permission for each edit and command; some seconds to start.
pub fn opencode(port: u16, home: &Path) -> AgentLaunch {
    let options = json!({"baseURL": format!("http://127.0.0.1:{port}/v1"), "apiKey": "sk-fake"});
    let provider = json!({
        "npm": "@ai-sdk/openai-compatible", "name": "Fake", "options": options,
        "models": {"fake-model": {"name": "Fake model"}},
    });
    let config = json!({
        "autoupdate": false, "share": "disabled",
        "model": "fake/fake-model", "small_model": "fake/fake-model",
        "provider": {"fake": provider},
        "permission": {"edit": "ask", "bash": "ask"},
    });
    let mut launch = launch("opencode", &["acp"], home);
    let file = "opencode.json";
    launch.set("OPENCODE_CONFIG", &home.join(file).to_string_lossy());
    launch.set("OPENCODE_DISABLE_MODELS_FETCH", "1");
    launch.set("OPENCODE_DISABLE_AUTOUPDATE", "1");
    launch.set("OPENCODE_DISABLE_LSP_DOWNLOAD", "1");
    launch.file(file, config.to_string());
    launch
}

/// Claude Code through claude-agent-acp: asks permission; 0.5 s to initialize.
pub fn claude(port: u16, home: &Path) -> AgentLaunch {
    let mut launch = launch("claude-agent-acp", &[], home);
    launch.set("ANTHROPIC_BASE_URL", &format!("http://127.0.0.1:{port}"));
    launch.set("ANTHROPIC_API_KEY", "sk-ant-fake-0000");
    launch.set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    launch.set("DISABLE_AUTOUPDATER", "1");
    // Claude Code refuses to run as root outside a sandbox.
    launch.set("IS_SANDBOX", "1");
    launch
}

/// Codex through codex-acp: asks permission; never exits at the end of its input.
pub fn codex(port: u16, home: &Path) -> AgentLaunch {
    let config = format!(
        r#"model = "gpt-5.4"
model_provider = "fake"
approval_policy = "untrusted"
sandbox_mode = "workspace-write"

[model_providers.fake]
name = "fake"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
supports_websockets = false
requires_openai_auth = false
"#
    );
    let mut launch = launch("codex-acp", &[], home);
    // Not below a temporary folder, where Codex refuses to keep its helpers.
    launch.set("CODEX_HOME", &home.join(".codex").to_string_lossy());
    launch.set("FAKE_KEY", "x");
    launch.set("OPENAI_API_KEY", "x");
    launch.file(".codex/config.toml", config);
    launch
}

impl AgentLaunch {
    /// Writes the agent's files into the folder that is, or will be, its home.
    pub fn write_home(&self, home: &Path) {
        for (path, content) in &self.home_files {
            let path = home.join(path);
            let parent = path.parent().expect("a file has a folder");
            std::fs::create_dir_all(parent).expect("the home can be written");
            std::fs::write(path, content).expect("the home can be written");
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    fn file(&mut self, path: &str, content: String) {
        self.home_files.push((path.into(), content));
    }
}

fn launch(name: &str, args: &[&str], home: &Path) -> AgentLaunch {
    let bin = folder().join("node_modules/.bin");
    let mut launch = AgentLaunch {
        command: bin.join(name),
        args: args.iter().map(|it| (*it).to_owned()).collect(),
        env: BTreeMap::new(),
        home_files: Vec::new(),
    };
    launch.set("HOME", &home.to_string_lossy());
    launch.set("PATH", &path());
    launch
}
