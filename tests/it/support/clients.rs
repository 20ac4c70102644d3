//! Real clients, installed by `tests/peers/install`, each driving an agent's
//! command for some prompts. They hand their own environment down to the agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::peers;

/// `acpx exec`: one prompt in a session of its own, everything allowed. `agent`
/// is a command line. Returns every message, of both directions, in order.
///
/// # Panics
/// When acpx fails, with what it said.
pub fn acpx(agent: &str, env: &BTreeMap<String, String>, cwd: &Path, prompt: &str) -> Vec<Value> {
    acpx_with(agent, env, cwd, &["exec", prompt])
}

/// acpx with any of its commands, such as `["sessions", "new"]`, then
/// `["--ttl", "1", "prompt", "hello"]`: its process for the session then ends
/// after one idle second, and the next prompt revives the session.
///
/// # Panics
/// When acpx fails, with what it said.
pub fn acpx_with(
    agent: &str,
    env: &BTreeMap<String, String>,
    cwd: &Path,
    arguments: &[&str],
) -> Vec<Value> {
    let mut command = Command::new(peers::program("acpx"));
    command.args(["--agent", agent, "--approve-all", "--format", "json"]);
    command.args(arguments).current_dir(cwd);
    let output = run(command, env);
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

/// A client of the official TypeScript SDK: the prompts in one session, each
/// permission allowed once, files offered. Returns one object: `initialize` and
/// `session` (results), `turns` (results of the prompts), `updates`,
/// `permissions` (titles), `files` (`write /path`), `exit` (code or signal).
///
/// # Panics
/// When the client fails, with what it said.
pub fn sdk(agent: &[&str], env: &BTreeMap<String, String>, cwd: &Path, prompts: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/sdk-client.mjs");
    let mut command = Command::new(peers::program("node"));
    command.arg(script).arg(cwd).args(prompts);
    command.arg("--").args(agent);
    serde_json::from_str(&run(command, env)).expect("the client prints one object")
}

/// The same SDK's client of a server: `transport` is `websocket` or `http`. Allows
/// everything once. Returns one object: `initialize`, `session`, `turns`, `updates`,
/// `permissions` as [`sdk`], and `replayed`, the updates that `session/load` brought.
///
/// # Panics
/// When the client fails, with what it said.
pub fn sdk_remote(transport: &str, url: &str, token: &str, cwd: &Path, prompts: &[&str]) -> Value {
    let seen = Remote::TypeScript.drive(transport, url, token, cwd, prompts);
    seen.unwrap_or_else(|said| panic!("{said}"))
}

/// The clients of a server, as [`sdk_remote`], that official SDKs are made into.
#[derive(Debug, Clone, Copy)]
pub enum Remote {
    TypeScript,
    /// Its `transport` may be `unix` too; `url` is then a path.
    Python,
}

impl Remote {
    /// What it saw, or what it said when it failed.
    pub fn drive(
        self,
        transport: &str,
        url: &str,
        token: &str,
        cwd: &Path,
        prompts: &[&str],
    ) -> Result<Value, String> {
        let (program, script) = match self {
            Remote::TypeScript => (peers::program("node"), "sdk-remote-client.mjs"),
            Remote::Python => (peers::python(), "sdk_remote_client.py"),
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let mut command = Command::new(program);
        command.arg(folder.join(script)).args([transport, url]);
        command.arg(cwd).args(prompts);
        let env = BTreeMap::from([("ACPBOX_TOKEN".to_owned(), token.to_owned())]);
        let printed = try_run(command, &env)?;
        Ok(serde_json::from_str(&printed).expect("the client prints one object"))
    }
}

fn run(command: Command, env: &BTreeMap<String, String>) -> String {
    try_run(command, env).unwrap_or_else(|said| panic!("{said}"))
}

fn try_run(mut command: Command, env: &BTreeMap<String, String>) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .env_clear()
        .env("PATH", peers::path())
        .envs(env)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    match status.success() {
        true => Ok(stdout),
        false => Err(format!("{command:?}: {status}\n{stdout}\n{stderr}")),
    }
}
