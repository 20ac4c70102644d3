//! The rules of the tree that no compiler knows: who may import whom, and what
//! must not be found where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use source::{all_sources, children, imports, modules, root, sources, words};

mod names;
mod source;

/// Rooms, lowest first, each with those that it may import.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("rpc", &[]),
    ("vm", &[]),
    ("store", &[]),
    ("acp", &[]),
    ("config", &["vm"]),
    ("agent", &["rpc", "vm", "acp", "config"]),
    ("transcript", &["rpc", "store", "acp"]),
    (
        "session",
        &["rpc", "vm", "store", "acp", "config", "agent", "transcript"],
    ),
    (
        "server",
        &[
            "rpc",
            "vm",
            "store",
            "acp",
            "config",
            "agent",
            "transcript",
            "session",
        ],
    ),
    (
        "cli",
        &[
            "rpc",
            "vm",
            "store",
            "acp",
            "config",
            "agent",
            "transcript",
            "session",
            "server",
        ],
    ),
];

/// Longer files are to be split by noun.
const LINES: usize = 500;

/// Those that are longer, and how long each may be until somebody splits it.
const LONG: [(&str, usize); 0] = [];

/// Who reads the environment, and why.
const READ_THE_ENVIRONMENT: [(&str, &str); 4] = [
    ("src/config/environment.rs", "the one snapshot"),
    (
        "src/agent/example/",
        "an agent is a program of its own: it runs in the guest, with the guest's environment",
    ),
    (
        "src/cli/serve.rs",
        "LISTEN_FDS: sd_listen_fds(3) is about descriptors of this very process",
    ),
    (
        "src/cli/mod.rs",
        "ACPBOX_LOG: logs are wanted before there is a configuration, and about it",
    ),
];

/// Who opens this process's own standard output, and why.
const OPEN_STDOUT: [(&str, &str); 5] = [
    ("src/rpc/stdio.rs", "the protocol's own stream"),
    ("src/agent/example/", "an agent's protocol is on its stdout"),
    ("src/cli/output.rs", "what commands print"),
    ("src/cli/run/", "asks whether it is a terminal"),
    (
        "src/cli/vms/console.rs",
        "a guest's terminal is shown on ours",
    ),
];

#[test]
fn rooms_import_downwards_only() {
    let names: BTreeSet<&str> = IMPORTS.iter().map(|(room, _)| *room).collect();
    let folders: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        folders,
        names.iter().map(|&name| name.to_owned()).collect(),
        "every folder under src/ is a room of the import table"
    );
    let mut wrong = Vec::new();
    for (room, allowed) in IMPORTS {
        for file in sources(&format!("src/{room}")) {
            for imported in imports(&file.code(), &names) {
                if imported != room && !allowed.contains(&imported.as_str()) {
                    wrong.push(format!("{}: {room} imports {imported}", file.name));
                }
            }
            let escape = "super::".repeat(file.depth() + 1);
            if file.code().contains(&escape) {
                wrong.push(format!("{}: `{escape}` leaves the crate", file.name));
            }
            // One step less reaches the root of the crate; `crate::` says so openly.
            let to_root = "super::".repeat(file.depth());
            for name in &names {
                let sly = format!("{to_root}{name}::");
                if file
                    .code()
                    .lines()
                    .any(|line| line.trim_start().starts_with(&format!("use {sly}")))
                {
                    wrong.push(format!("{}: write crate::{name} for {sly}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let names = IMPORTS.iter().map(|(room, _)| *room).collect();
    let check = |code: &str, expected: &[&str]| {
        let found: Vec<String> = imports(code, &names).into_iter().collect();
        assert_eq!(found, expected, "{code}");
    };
    check("use crate::store::Store;", &["store"]);
    check(
        "use crate::{acp::Failure, rpc, vm::{Vm, Exit}};",
        &["acp", "rpc", "vm"],
    );
    check("fn f(x: &crate::session::Host) {}", &["session"]);
    check("use crate::{\n    cli,\n};", &["cli"]);
    check("use super::store::Store; let vm = 1;", &[]);
    check("use crate::storekeeper::X;", &[]);
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<String> = all_sources()
        .into_iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| file.name)
        .collect();
    assert!(
        silent.is_empty(),
        "these files do not begin with a //! line: {silent:?}"
    );
}

#[test]
fn no_file_is_too_long() {
    let mut wrong = Vec::new();
    let mut long: BTreeMap<&str, usize> = LONG.into();
    for file in all_sources() {
        let lines = file.text.lines().count();
        let allowed = long.remove(file.name.as_str());
        if lines > allowed.unwrap_or(LINES) {
            wrong.push(format!("{} has {lines} lines; split it by noun", file.name));
        } else if allowed.is_some() && lines <= LINES {
            wrong.push(format!("{} is short again; take it off LONG", file.name));
        }
    }
    wrong.extend(
        long.keys()
            .map(|name| format!("{name} is gone; take it off LONG")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_part_of_the_crate() {
    let roots = [
        "src/lib.rs",
        "src/main.rs",
        "tests/it/main.rs",
        "tests/testy/main.rs",
    ];
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut next: Vec<PathBuf> = roots.iter().map(|name| root().join(name)).collect();
    // A bench is a crate of its own.
    next.extend(
        sources("benches")
            .iter()
            .map(|file| root().join(&file.name)),
    );
    while let Some(path) = next.pop() {
        for module in modules(&fs::read_to_string(&path).unwrap()) {
            let folder = children(&path);
            let flat = folder.join(format!("{module}.rs"));
            let file = if flat.exists() {
                flat
            } else {
                folder.join(&module).join("mod.rs")
            };
            assert!(
                file.exists(),
                "{}: `mod {module};` has no file",
                path.display()
            );
            next.push(file);
        }
        reached.insert(path);
    }
    let orphans: Vec<String> = all_sources()
        .into_iter()
        .map(|file| file.name)
        .filter(|name| !reached.contains(&root().join(name)))
        .collect();
    assert!(
        orphans.is_empty(),
        "no `mod` names these files: {orphans:?}"
    );
}

#[test]
fn stdout_belongs_to_the_protocol() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let code = file.code();
        if !file.name.starts_with("src/cli/") {
            for macro_name in ["println!", "print!", "dbg!"] {
                if words(&code, macro_name) {
                    wrong.push(format!("{}: {macro_name}", file.name));
                }
            }
        }
        if words(&code, "stdout()") && !is_listed(&file.name, &OPEN_STDOUT) {
            wrong.push(format!("{}: stdout()", file.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_vm() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let code = file.code();
        let found = [
            "unsafe {",
            "unsafe fn",
            "unsafe impl",
            "unsafe extern",
            "unsafe trait",
        ]
        .iter()
        .any(|form| words(&code, form));
        if found && !file.name.starts_with("src/vm/") {
            wrong.push(file.name);
        }
    }
    assert!(wrong.is_empty(), "unsafe outside of src/vm: {wrong:?}");
}

#[test]
fn the_environment_is_read_in_one_place() {
    let readers = [
        "env::var",
        "env::vars",
        "env::var_os",
        "env::vars_os",
        "from_env(",
        "set_var(",
    ];
    let mut wrong = Vec::new();
    for file in sources("src") {
        let code = file.code();
        if readers.iter().any(|reader| code.contains(reader))
            && !is_listed(&file.name, &READ_THE_ENVIRONMENT)
        {
            wrong.push(file.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "these read the process environment; take a config::Environment instead: {wrong:?}"
    );
}

#[test]
fn architecture_names_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let files: Vec<String> = all_sources().into_iter().map(|file| file.name).collect();
    let quoted = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|word| word.ends_with(".rs")).collect();
    assert!(named.len() > 40, "{named:?}");
    for name in named {
        let ending = format!("/{name}");
        assert!(
            files
                .iter()
                .any(|file| file.ends_with(&ending) || file == name),
            "ARCHITECTURE.md names {name}, which does not exist"
        );
    }
}

#[test]
fn lists_of_exceptions_name_what_exists() {
    let listed = (READ_THE_ENVIRONMENT.iter().chain(&OPEN_STDOUT)).map(|(name, _)| name);
    for name in listed {
        assert!(
            root().join(name).exists(),
            "{name} is gone; take it off its list"
        );
    }
}

fn is_listed(name: &str, list: &[(&str, &str)]) -> bool {
    list.iter().any(|(listed, _)| name.starts_with(listed))
}
