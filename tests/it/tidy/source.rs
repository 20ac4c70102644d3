//! The source files of the tree, and what can be read in them without a compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) struct Source {
    /// Relative to the root of the repository, with `/`.
    pub(super) name: String,
    pub(super) text: String,
}

impl Source {
    /// Without lines that are comments.
    pub(super) fn code(&self) -> String {
        let lines = self.text.lines();
        lines
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect()
    }

    /// How many steps up lead to the root of the crate.
    pub(super) fn depth(&self) -> usize {
        let parts = self.name.split('/').count() - 1;
        if self.name.ends_with("/mod.rs") {
            parts - 1
        } else {
            parts
        }
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// The Rust files in a folder, but none of installed packages.
pub(super) fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut next = vec![root().join(folder)];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("node_modules") {
                next.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push(Source {
                    text: fs::read_to_string(&path).unwrap(),
                    name,
                });
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!found.is_empty());
    found
}

/// Every text file that git tracks.
pub(super) fn tracked() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the repository");
    let names = String::from_utf8(listed.stdout).unwrap();
    let found: Vec<_> = (names.split('\0').filter(|name| !name.is_empty()))
        .filter_map(|name| {
            let text = fs::read_to_string(root().join(name)).ok()?;
            Some((name.to_owned(), text))
        })
        .collect();
    assert!(found.len() > 100, "git knows only {} files", found.len());
    found
}

/// The rooms that code names behind `crate::`.
pub(super) fn imports(code: &str, rooms: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.extend([identifier(rest)]),
        }
    }
    found.retain(|name| rooms.contains(name.as_str()));
    found
}

/// The first name of each path in `a::b, c::{d, e}}`.
fn first_names(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && !character.is_whitespace() => {
                found.push(identifier(&list[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Whether code has `form` where no longer name ends with it.
pub(super) fn words(code: &str, form: &str) -> bool {
    code.match_indices(form)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The modules that a file declares and that have files of their own.
pub(super) fn modules(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let declared = line.trim().strip_suffix(';')?;
            let name = declared.rsplit_once("mod ").filter(|(before, _)| {
                before.is_empty() || (before.starts_with("pub") && before.ends_with(' '))
            })?;
            Some(name.1.to_owned())
        })
        .collect()
}

/// The folder in which the modules of a file lie.
pub(super) fn children(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap();
    match path.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" | "main" => folder.to_owned(),
        // A bench has no modules; anything else has a folder of its name.
        stem => folder.join(stem),
    }
}
