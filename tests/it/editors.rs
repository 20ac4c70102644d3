//! The editors' snippets and README.md: they say what the binary understands.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use acpbox::config::{Config, Environment, Limits, Overrides, Paths, VmSettings};
use serde_json::Value;

/// Every snippet, and where in a JSON one the agents are.
const SNIPPETS: [(&str, Option<&str>); 6] = [
    ("editors/zed/settings.json", Some("/agent_servers")),
    ("editors/jetbrains/acp.json", Some("/agent_servers")),
    ("editors/vscode/settings.json", Some("/acp.agents")),
    ("editors/neovim/codecompanion.lua", None),
    ("editors/neovim/avante.lua", None),
    ("editors/emacs/agent-shell.el", None),
];

#[test]
fn every_editors_command_line_starts_acpbox() {
    for (name, pointer) in SNIPPETS {
        let words = match pointer {
            Some(pointer) => json_command(name, pointer),
            None => quoted_command(name),
        };
        assert_eq!(words[0], "acpbox", "{name}");
        let answer = initialize(&words[1..]);
        assert_eq!(
            answer["result"]["agentInfo"]["name"], "acpbox",
            "{name}: {answer}"
        );
        // The agent that the snippet names is the one in play.
        let agent = words.iter().skip_while(|word| *word != "--agent").nth(1);
        let played = answer["result"]["_meta"]["acpbox"]["agent"].as_str();
        assert_eq!(played, agent.map(String::as_str), "{name}");
    }
}

#[test]
fn every_file_under_editors_is_checked() {
    let mut found = BTreeSet::new();
    for editor in fs::read_dir(root().join("editors")).unwrap().flatten() {
        for file in fs::read_dir(editor.path()).unwrap().flatten() {
            let path = file.path();
            found.insert(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    let checked = SNIPPETS.map(|(name, _)| PathBuf::from(name));
    assert_eq!(found, checked.into());
}

#[test]
fn readme_quotes_every_snippet() {
    let readme = read("README.md");
    for (name, _) in SNIPPETS {
        assert!(
            blocks(&readme).any(|(_, block)| block == read(name).trim_end()),
            "README.md does not quote {name}"
        );
    }
}

#[test]
fn the_configuration_in_readme_is_the_built_in_one() {
    let readme = read("README.md");
    let text = blocks(&readme)
        .find(|(language, block)| *language == "toml" && block.contains("[limits]"))
        .expect("README.md has a TOML block with [limits]")
        .1;
    let shown = parse(text);
    let built_in = parse("");
    assert_eq!(shown.limits, Limits::default());
    assert_eq!(*shown.vm_settings("any"), VmSettings::default());
    assert_eq!(shown.default_agent, built_in.default_agent);
    assert_eq!(shown.default_vm, built_in.default_vm);
    let of = |config: &Config| format!("{:?}", config.permissions);
    assert_eq!(of(&shown), of(&built_in));

    // Every key there is, except those that README shows in examples.
    let schema = acpbox::config::schema();
    for (section, elsewhere) in [
        ("Limits", &[][..]),
        ("Vm", &["workspaces"][..]),
        ("Permissions", &[][..]),
    ] {
        let keys = schema["$defs"][section]["properties"].as_object().unwrap();
        for key in keys.keys().filter(|key| !elsewhere.contains(&key.as_str())) {
            let line = format!("\n{key} = ");
            assert!(
                text.contains(&line),
                "README.md does not show `{key}` of {section}"
            );
        }
    }
}

#[test]
fn every_example_of_a_configuration_in_readme_is_understood() {
    let readme = read("README.md");
    let mut count = 0;
    for (_, block) in blocks(&readme).filter(|(language, _)| *language == "toml") {
        parse(block);
        count += 1;
    }
    assert!(count > 1, "README.md shows how to name an agent and a VM");
    for section in ["Agent", "Vm", "Retention", "PermissionRule", "Hooks"] {
        let schema = acpbox::config::schema();
        for key in schema["$defs"][section]["properties"]
            .as_object()
            .unwrap()
            .keys()
        {
            assert!(
                readme.contains(&format!("\n{key} = ")),
                "README.md never shows `{key}`"
            );
        }
    }
}

#[test]
fn readme_names_every_method_agent_and_subcommand() {
    let readme = read("README.md");
    let openrpc: Value = serde_json::from_str(&acpbox(&["schema", "openrpc"])).unwrap();
    for method in openrpc["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        assert!(
            readme.contains(&format!("`{name}`")),
            "README.md does not name {name}"
        );
    }
    let agents: Value = serde_json::from_str(&acpbox(&["agents", "list", "--json"])).unwrap();
    for agent in agents.as_array().unwrap() {
        let name = agent["name"].as_str().unwrap();
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "README.md does not list agent {name}"
        );
    }
    let help = acpbox(&["--help"]);
    let commands = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    for name in commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        assert!(
            name == "help" || readme.contains(&format!("acpbox {name}")),
            "README.md does not show `acpbox {name}`"
        );
    }
    // The sentences under each exit code are those of the help.
    let help = acpbox(&["run", "--help"]);
    for line in help.split("Exit codes:").nth(1).unwrap().lines() {
        let Some((code, meaning)) = line.trim().split_once("  ") else {
            continue;
        };
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "README.md lacks the row {row}");
    }
}

/// The command and its arguments, from a file of JSON.
fn json_command(name: &str, pointer: &str) -> Vec<String> {
    let settings: Value = serde_json::from_str(&read(name)).unwrap();
    let server = &settings.pointer(pointer).unwrap()["acpbox"];
    let args = server["args"].as_array().unwrap().iter();
    std::iter::once(&server["command"])
        .chain(args)
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

/// The same from Lua or Lisp: the quoted words around `stdio`, up to the first
/// that is neither a flag nor its value.
fn quoted_command(name: &str) -> Vec<String> {
    let text = read(name);
    let quoted: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    let at = quoted.iter().position(|word| *word == "stdio").unwrap();
    let mut words = vec![quoted[at - 1].to_owned(), quoted[at].to_owned()];
    let mut rest = quoted[at + 1..].iter();
    while let Some(flag) = rest.next().filter(|word| word.starts_with("--")) {
        words.push((*flag).to_owned());
        words.extend(rest.next().map(|value| (*value).to_owned()));
    }
    words
}

/// Starts acpbox as an editor does, and returns the answer to `initialize`.
fn initialize(arguments: &[String]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut child = binary(folder.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request =
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#;
    let mut input = child.stdin.take().unwrap();
    // One that refuses its arguments may be gone already.
    let _ = writeln!(input, "{request}");
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {}: {errors}",
        output.status
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command prints.
fn acpbox(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = binary(folder.path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn binary(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acpbox"));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .current_dir(home);
    command
}

fn parse(text: &str) -> Config {
    let environment = Environment::from_variables([("HOME", "/home/me")]);
    let paths = Paths {
        config_file: "README.md".into(),
        state_dir: "/state".into(),
        database: "/state/acpbox.db".into(),
        vms_dir: "/state/vms".into(),
        runtime_dir: "/state/run".into(),
        server: Vec::new(),
    };
    Config::parse(text, paths, &environment, &Overrides::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The fenced blocks of a Markdown text: language and content.
fn blocks(markdown: &str) -> impl Iterator<Item = (&str, &str)> {
    markdown.split("\n```").skip(1).step_by(2).map(|block| {
        let (language, content) = block.split_once('\n').unwrap();
        (language, content)
    })
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
