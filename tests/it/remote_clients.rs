//! The official SDKs' clients of a server: whole turns through `acpbox serve` with a
//! real agent in a VM, and what they say of a wrong token. `tests/peers/install`
//! installs those that are not Rust.

mod rust;

use std::path::Path;

use serde_json::Value;

use crate::http::Web;
use crate::support::clients::Remote;
use crate::support::model::Model;
use crate::support::peers;
use crate::support::setup::Setup;
use crate::support::site::{GUEST_HOME, agent_table};

#[test]
fn the_typescript_sdk_drives_claude_over_a_websocket() {
    check(|served, prompts| served.drive(Remote::TypeScript, "websocket", prompts));
}

#[test]
fn the_typescript_sdk_drives_claude_over_event_streams() {
    check(|served, prompts| served.drive(Remote::TypeScript, "http", prompts));
}

#[test]
fn the_python_sdk_drives_claude_over_a_websocket() {
    check(|served, prompts| served.drive(Remote::Python, "websocket", prompts));
}

#[test]
fn the_python_sdk_drives_claude_over_event_streams() {
    check(|served, prompts| served.drive(Remote::Python, "http", prompts));
}

#[test]
fn the_python_sdk_drives_claude_over_a_unix_socket() {
    check(|served, prompts| served.drive(Remote::Python, "unix", prompts));
}

#[test]
fn the_rust_sdk_drives_claude_over_a_websocket() {
    check(|served, prompts| served.drive_rust("websocket", prompts));
}

#[test]
fn the_rust_sdk_drives_claude_over_event_streams() {
    check(|served, prompts| served.drive_rust("http", prompts));
}

#[test]
fn a_wrong_token_is_named_by_every_sdk() {
    let setup = Setup::host();
    let web = Web::start(&setup);
    let mut said = Vec::new();
    for transport in ["websocket", "http"] {
        let url = url(&web, transport);
        for sdk in [Remote::TypeScript, Remote::Python] {
            let failed = sdk.drive(transport, &url, "wrong", &setup.workspace(), &[]);
            said.push((format!("{sdk:?} {transport}"), failed));
        }
        let failed = rust::drive(&url, "wrong", &setup.workspace(), &[]);
        said.push((format!("Rust {transport}"), failed));
    }
    for (who, said) in said {
        let said = said.expect_err(&who);
        assert!(said.contains("401"), "{who}: {said}");
        // Those that read the body say it in acpbox's words.
        if ["TypeScript http", "Rust http"].contains(&who.as_str()) {
            let words = "the token in `Authorization` is wrong";
            assert!(said.contains(words), "{who}: {said}");
        }
    }
}

/// A server with an agent that asks for permissions. Fields end in this order.
struct Served {
    web: Web,
    setup: Setup,
    _model: Model,
}

impl Served {
    fn start() -> Served {
        let model = Model::start();
        let launch = peers::claude(model.port(), Path::new(GUEST_HOME));
        let setup = Setup::new()
            .config(&agent_table("claude", &launch))
            .variable("PATH", &peers::path());
        let socket = format!("unix:{}", setup.path().join("acp.sock").display());
        let web = Web::start_with(&setup, &["--listen", &socket, "--agent", "claude"]);
        Served {
            web,
            setup,
            _model: model,
        }
    }

    fn drive(&self, sdk: Remote, transport: &str, prompts: &[&str]) -> Result<Value, String> {
        let address = match transport {
            "unix" => self.setup.path().join("acp.sock").display().to_string(),
            _ => url(&self.web, transport),
        };
        let (token, cwd) = (&self.web.token, self.setup.workspace());
        sdk.drive(transport, &address, token, &cwd, prompts)
    }

    fn drive_rust(&self, transport: &str, prompts: &[&str]) -> Result<Value, String> {
        let url = url(&self.web, transport);
        rust::drive(&url, &self.web.token, &self.setup.workspace(), prompts)
    }
}

fn url(web: &Web, transport: &str) -> String {
    let scheme = match transport {
        "websocket" => "ws",
        _ => "http",
    };
    format!("{scheme}://{}/acp", web.address)
}

/// Two turns, the first of which asks for a permission and writes a file; then the
/// session is loaded, and told anew.
fn check(drive: impl FnOnce(&Served, &[&str]) -> Result<Value, String>) {
    let mut served = Served::start();
    let file = served.setup.workspace().join("a.txt");
    let first = format!("[[write:{}|by the SDK]]", file.display());
    let seen = drive(&served, &[&first, "[[say:and again]]"]);
    let seen = seen.unwrap_or_else(|said| panic!("{said}"));

    assert_eq!(seen["initialize"]["agentInfo"]["name"], "acpbox");
    assert_eq!(seen["session"]["_meta"]["acpbox"]["agent"], "claude");
    let turns = seen["turns"].as_array().unwrap();
    assert_eq!(turns.len(), 2, "{seen}");
    assert!(turns.iter().all(|turn| turn["stopReason"] == "end_turn"));
    assert_eq!(turns[1]["_meta"]["acpbox"]["text"], "and again");
    assert!(!seen["permissions"].as_array().unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(file).unwrap().trim(), "by the SDK");

    let told = said(&seen["updates"]);
    assert!(told.ends_with("and again"), "{told}");
    assert!(tool_calls(&seen["updates"]) > 0, "{seen}");
    assert_eq!(said(&seen["replayed"]), told);
    let again = tool_calls(&seen["replayed"]);
    assert_eq!(again, tool_calls(&seen["updates"]));

    served.web.server.signal(libc::SIGTERM);
    assert_eq!(served.web.server.exit_code(), Some(0));
}

/// What the agent said in these updates.
fn said(updates: &Value) -> String {
    let updates = updates.as_array().unwrap().iter();
    updates
        .filter(|update| update["sessionUpdate"] == "agent_message_chunk")
        .filter_map(|update| update["content"]["text"].as_str())
        .collect()
}

fn tool_calls(updates: &Value) -> usize {
    let updates = updates.as_array().unwrap().iter();
    updates
        .filter(|update| update["sessionUpdate"] == "tool_call")
        .count()
}
