//! What an agent can see and reach, through the binary: the promises that the
//! README makes, each tried from a shell inside the VM.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bare::Bare;
use crate::support::inside::{Inside, initialize_with_terminals};
use crate::support::site::{Site, git};

mod death;
mod network;
mod repository;
mod server;

/// A text that is nowhere but where a test puts it.
const CANARY: &str = "canary-5c2f07";

#[test]
fn a_secret_in_acpboxs_environment_cannot_be_seen() {
    let mut site = Site::new();
    site.set("SECRET_TOKEN", CANARY);
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let script = "env; cat /proc/*/environ /proc/*/cmdline 2> /dev/null | tr '\\0' '\\n'";
    let seen = inside.succeed(&mut acpbox, &format!("{script}; true"));
    assert!(seen.contains("HOME=/home/agent"), "{seen}");
    assert!(!seen.contains(CANARY), "{seen}");
    assert!(!seen.contains("XDG_"), "{seen}");
}

#[test]
fn files_of_the_users_home_cannot_be_seen() {
    let site = Site::new();
    std::fs::create_dir(site.home().join(".ssh")).unwrap();
    for name in [".ssh/id_canary", "canary.txt"] {
        std::fs::write(site.home().join(name), CANARY).unwrap();
    }
    // A workspace inside the home opens nothing else of it.
    let workspace = site.repository("../home/src/project");
    let workspace = workspace.canonicalize().unwrap();
    std::os::unix::fs::symlink(site.home(), workspace.join("link")).unwrap();
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let home = site.home().display().to_string();
    for path in ["canary.txt", ".ssh/id_canary", ".ssh"] {
        inside.fail(&mut acpbox, &format!("ls '{home}/{path}'"));
        inside.fail(&mut acpbox, &format!("ls 'link/{path}'"));
    }
    let above = inside.succeed(&mut acpbox, &format!("ls -A '{home}'"));
    assert_eq!(above, "src");
    let found = "find / -xdev -name '*canary*' -not -path '/proc/*' 2> /dev/null";
    assert_eq!(inside.run(&mut acpbox, found).0, "");
    inside.fail(&mut acpbox, "cat /etc/shadow");
    let real = std::env::var("HOME").unwrap();
    inside.fail(&mut acpbox, &format!("ls -A '{real}' | grep ."));
}

#[test]
fn what_is_mounted_is_what_the_documentation_names() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let table = inside.succeed(&mut acpbox, "cat /proc/self/mountinfo");
    let mut writable = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (point, options) = (fields[4], fields[5]);
        if !options.split(',').any(|option| option == "ro") {
            writable.push(point);
        }
        let system = [
            "/usr", "/bin", "/sbin", "/lib", "/etc", "/proc", "/dev", "/tmp", "/var",
        ];
        let system = system
            .iter()
            .chain(&["/run", "/sys", "/home/agent", "/opt", "/nix"]);
        let is_known = point == "/"
            || Path::new(point).starts_with(&workspace)
            || system.into_iter().any(|known| point.starts_with(known));
        assert!(is_known, "{point} is mounted: {line}");
        assert!(!Path::new(point).starts_with(site.home()), "{line}");
        assert!(!Path::new(point).starts_with(site.state()), "{line}");
    }
    writable.retain(|point| {
        let own = ["/tmp", "/dev", "/home/agent", "/var", "/proc", "/run"];
        !own.iter().any(|known| Path::new(point).starts_with(known))
            && !Path::new(point).starts_with(&workspace)
    });
    assert_eq!(writable, [""; 0], "{table}");
}

#[test]
fn processes_of_the_host_cannot_be_seen_or_signalled() {
    let site = Site::new();
    let workspace = site.repository("project");
    let host = Host::start(&["sleep", "7651.5"]);
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let seen = inside.succeed(&mut acpbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert!(seen.contains("example-agent"), "{seen}");
    assert!(
        !seen.contains("7651.5") && !seen.contains("stdio"),
        "{seen}"
    );
    // Its number may by chance be a number inside too.
    let line = format!("grep -z 7651.5 /proc/{}/cmdline", host.0.id());
    inside.fail(&mut acpbox, &line);
}

#[test]
fn acpboxs_own_files_cannot_be_seen() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    assert!(site.database().is_file());
    for path in [site.state(), site.database(), site.folder().join("config")] {
        inside.fail(&mut acpbox, &format!("ls '{}'", path.display()));
    }
    let above = format!("ls -A '{}'", site.folder().display());
    assert_eq!(inside.succeed(&mut acpbox, &above), "work");
}

#[test]
fn another_vms_home_cannot_be_seen_and_the_same_vms_can() {
    let site = Site::new();
    let (first, second) = (site.repository("first"), site.repository("second"));
    let mut acpbox = site.connect(&[]);
    let one = Inside::open(&mut acpbox, &first, json!({}));
    let again = Inside::open(&mut acpbox, &first, json!({}));
    let other = Inside::open(&mut acpbox, &second, json!({}));
    assert_eq!(one.vm, again.vm);
    assert_ne!(one.vm, other.vm);
    let script = format!("echo {CANARY} > ~/secret; echo {CANARY} > /tmp/secret");
    one.succeed(&mut acpbox, &script);
    one.succeed(&mut acpbox, "setsid sleep 7652.5 > /dev/null 2>&1 &");
    assert!(site.vm_home(&one.vm).join("secret").is_file());

    let seen = again.succeed(&mut acpbox, "cat ~/secret /tmp/secret");
    assert_eq!(seen, format!("{CANARY}\n{CANARY}"));
    again.succeed(&mut acpbox, "pgrep -f '^sleep 7652.5'");

    let found = "find / -xdev -name secret -not -path '/proc/*' 2> /dev/null";
    assert_eq!(other.run(&mut acpbox, found).0, "");
    other.fail(&mut acpbox, "cat ~/secret /tmp/secret");
    other.fail(&mut acpbox, "pgrep -f '^sleep 7652.5'");
    other.fail(&mut acpbox, &format!("ls '{}'", first.display()));
    let home = site.vm_home(&one.vm);
    other.fail(&mut acpbox, &format!("ls '{}'", home.display()));
}

#[test]
fn programs_and_the_system_cannot_be_written() {
    let site = Site::with_peers();
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    inside.fail(&mut acpbox, "echo x >> /run/acpbox/acpbox");
    inside.fail(&mut acpbox, "rm /run/acpbox/acpbox");
    inside.fail(&mut acpbox, "echo x > /usr/bin/canary");
    inside.fail(&mut acpbox, "echo x > /etc/canary");
    // The installation of an agent that the VM could also run.
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/node_modules");
    let package = modules.join("pi-acp/package.json").display().to_string();
    inside.succeed(&mut acpbox, &format!("test -s '{package}'"));
    inside.fail(&mut acpbox, &format!("echo x >> '{package}'"));
    inside.fail(&mut acpbox, &format!("mv '{package}' '{package}.old'"));
    inside.fail(
        &mut acpbox,
        &format!("touch '{}/canary'", modules.display()),
    );
}

#[test]
fn a_home_or_the_root_as_cwd_is_refused_with_the_line_that_would_allow_it_if_any() {
    let site = Site::new();
    let mut acpbox = site.connect(&["--agent", "example"]);
    for (folder, is_ours) in [
        (site.home(), false),
        ("/etc".into(), false),
        ("/".into(), true),
        (site.state(), true),
    ] {
        std::fs::create_dir_all(&folder).unwrap();
        let params = json!({"cwd": folder, "mcpServers": []});
        let request = acpbox.send_request("session/new", params);
        let error = acpbox.answer(request).expect_err("it is refused");
        assert_eq!(error["code"], -32602, "{error}");
        let message = error["message"].as_str().unwrap();
        let line = format!("workspaces = [{:?}]", folder.display().to_string());
        assert_eq!(message.contains(&line), !is_ours, "{message}");
        assert_eq!(message.contains("no VM may share it"), is_ours, "{message}");
    }
    assert_eq!(
        acpbox.request("_acpbox/vm/list", json!({}))["vms"],
        json!([])
    );
}

/// Commands in terminals are spared the agent's secrets. That is order, not a
/// border: they run as the same user, and see the agent's environment in /proc.
#[test]
fn secrets_are_passed_to_the_agent_and_not_to_its_terminals() {
    let mut site = Site::new();
    site.set("PASSED_TOKEN", CANARY);
    site.set("UNNAMED_TOKEN", CANARY);
    let table = "[agents.example]\npass_env = ['PASSED_TOKEN']\nenv = { PLAIN = 'plain' }\n";
    site.configure(table);
    let workspace = site.repository("project");
    let mut acpbox = site.start(&[]);
    acpbox.request("initialize", initialize_with_terminals());
    let inside = Inside::open(&mut acpbox, &workspace, json!({"env": {"CLIENTS": CANARY}}));
    let told = |acpbox: &mut Bare, name: &str| {
        let answer = acpbox.prompt(&inside.session, &format!("[[env:{name}]]"));
        answer["_meta"]["acpbox"]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for name in ["PASSED_TOKEN", "CLIENTS"] {
        assert!(told(&mut acpbox, name).contains(&format!("{name}={CANARY}")));
    }
    assert!(told(&mut acpbox, "PLAIN").contains("PLAIN=plain"));
    assert!(told(&mut acpbox, "UNNAMED_TOKEN").contains("is not set"));
    let seen = inside.succeed(&mut acpbox, "env; pwd");
    assert!(seen.contains("HOME=/home/agent"), "{seen}");
    assert!(seen.ends_with(&workspace.display().to_string()), "{seen}");
    for name in ["PASSED_TOKEN", "CLIENTS", "PLAIN", CANARY] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    assert_eq!(
        acpbox.count("terminal/create"),
        0,
        "the client was bothered"
    );
    // It was a terminal of acpbox's, and the value is in no stored file.
    let events = json!({"sessionId": inside.session});
    let events = acpbox.request("_acpbox/session/events", events);
    let kinds = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["kind"]);
    assert!(kinds.into_iter().any(|kind| kind == "terminal/create"));
    acpbox.close(Duration::from_secs(10));
    for file in std::fs::read_dir(site.state()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let told = "\"text\":\"CLIENTS=";
        let text = String::from_utf8_lossy(&bytes);
        // The agent itself said the values; nothing else did.
        for (place, _) in text.match_indices(CANARY) {
            let before = &text[text.floor_char_boundary(place.saturating_sub(40))..place];
            let is_said = before.contains("_TOKEN=") || before.contains("CLIENTS=");
            assert!(is_said, "{} near {before:?} {told}", file.path().display());
        }
    }
}

/// A process of the host's, ended when dropped.
struct Host(Child);

impl Host {
    fn start(command: &[&str]) -> Host {
        let mut command_line = Command::new(command[0]);
        command_line.args(&command[1..]).stdin(Stdio::null());
        Host(command_line.spawn().unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn warnings(value: &Value) -> Vec<&str> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str).collect()
}
