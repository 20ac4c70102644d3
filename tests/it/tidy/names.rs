//! No tracked file names a person, a machine of a developer or a registry.

use super::source::tracked;

#[test]
fn no_person_machine_or_registry_is_named() {
    let mut wrong = Vec::new();
    for (name, text) in tracked() {
        // The rules themselves, and lock files, which tools write.
        let is_lock = name == "Cargo.lock" || name.ends_with("package-lock.json");
        if name == "tests/it/tidy/names.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(what) = betrayal(line, is_lock) {
                wrong.push(format!("{name}:{}: {what}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_names_a_person_or_a_machine_is_recognized() {
    let caught = |line: &str| betrayal(line, false).is_some();
    assert!(caught("see /home/alice/src/x"));
    assert!(caught("\"/root/.cargo/bin\""));
    assert!(caught("cd /work/main"));
    assert!(caught("/Users/alice"));
    assert!(caught("mail alice@corp.dev about it"));
    assert!(caught("https://registry.corp.dev/npm/"));
    assert!(caught("authors = [\"A\"]"));
    assert!(!caught("/home/agent, /home/me/x and /home/linuxbrew"));
    assert!(!caught("ls /proc/1/root/ and ~/work/x and target/work/"));
    assert!(!caught(
        "npm install pi-acp@0.0.34 @scope/name claude@latest"
    ));
    assert!(!caught(
        "a@example.org, https://github.com/x, http://127.0.0.1:80/"
    ));
    assert!(betrayal("\"resolved\": \"https://registry.corp.dev/x.tgz\"", true).is_some());
}

/// What a line should not say; `None` when all is well.
fn betrayal(line: &str, is_lock: bool) -> Option<String> {
    // Names that stand for somebody, and a package manager's.
    const NOBODY: [&str; 7] = ["agent", "me", "u", "you", "user", "USER", "linuxbrew"];
    for prefix in ["/home/", "/Users/"] {
        for rest in after(line, prefix) {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '-')
                .collect();
            if !name.is_empty() && !NOBODY.contains(&name.as_str()) {
                return Some(format!("the path {prefix}{name}"));
            }
        }
    }
    for prefix in ["/root/", "/work/"] {
        if after(line, prefix).next().is_some() {
            return Some(format!("a path in {prefix}"));
        }
    }
    if line.trim_start().starts_with("authors") && line.contains('=') {
        return Some("authors".into());
    }
    if is_lock {
        // Their own links are to code hosts and funding pages; what counts is
        // where packages come from.
        let from = line.trim_start();
        let is_foreign = from.starts_with("\"resolved\"")
            || (from.starts_with("source = ")
                && !from.contains("github.com/rust-lang/crates.io-index"));
        return is_foreign.then(|| "where a package was fetched from".into());
    }
    for scheme in ["https://", "http://"] {
        for rest in after(line, scheme) {
            let host: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || ".-".contains(*c))
                .collect();
            let is_public = HOSTS.contains(&host.as_str()) || !host.contains('.');
            if !is_public && !host.ends_with(".example.org") {
                return Some(format!(
                    "the host {host}; add it to HOSTS if anybody may know it"
                ));
            }
        }
    }
    address(line).map(|address| format!("the address {address}"))
}

/// Hosts that links may lead to.
const HOSTS: [&str; 9] = [
    "127.0.0.1",
    "agentclientprotocol.com",
    "example.org",
    "github.com",
    "json-schema.org",
    "spec.open-rpc.org",
    "www.apache.org",
    "www.w3.org",
    "www.jsonrpc.org",
];

/// A mail address that is not of an example.
fn address(line: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
    line.match_indices('@').find_map(|(at, _)| {
        let before = line[..at]
            .rfind(|c| !is_part(c))
            .map_or(0, |start| start + 1);
        let length = line[at + 1..]
            .find(|c| !is_part(c))
            .unwrap_or(line.len() - at - 1);
        let host = line[at + 1..at + 1 + length].trim_end_matches('.');
        let is_address = before < at
            && host.contains('.')
            && host.starts_with(|c: char| c.is_ascii_alphabetic())
            && host
                .rsplit('.')
                .next()
                .is_some_and(|top| top.chars().all(|c| c.is_ascii_alphabetic()))
            && !host.starts_with("example.");
        is_address.then(|| &line[before..at + 1 + length])
    })
}

/// What follows `prefix` where an absolute path or a link begins.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(at, _)| {
        let is_within = line[..at].ends_with(|c: char| c.is_alphanumeric() || "._~-}".contains(c));
        (!is_within).then(|| &line[at + prefix.len()..])
    })
}
