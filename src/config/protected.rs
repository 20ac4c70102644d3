//! Names in a workspace that the host would later run or trust.

use std::path::{Component, Path, PathBuf};

/// Read-only in the guest unless the configuration says otherwise, also when
/// absent. An agent that could write them would run code outside its VM the
/// next time the person commits, opens the editor or starts an agent there.
///
/// The namespace driver holds the same names closed in the submodules and
/// linked worktrees of a repository. No list of names closes a repository that
/// the agent makes itself inside the workspace: `git status` around it enters it.
///
/// Left out: what a person starts knowingly (build scripts, Makefiles, tests),
/// and what its tool asks about again whenever the content changes (`.envrc`).
pub const DEFAULT_PROTECTED: &[&str] = &[
    // Run by git on commit, checkout, merge and push.
    ".git/hooks",
    // `core.fsmonitor`, `core.sshCommand`, `core.hooksPath`, aliases and filters are commands.
    ".git/config",
    ".git/config.worktree",
    // The usual values of `core.hooksPath`.
    ".husky",
    ".githooks",
    // Editors run tasks, debuggers and interpreters named here; their trust is
    // granted once per folder, not per content.
    ".vscode",
    ".idea",
    ".zed",
    ".devcontainer",
    // Agents' own settings: hooks, plugins and MCP servers are commands, which
    // an agent started on the host would run.
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".opencode",
    // opencode ends when it cannot write this file into a folder that lacks it.
    ".opencode/.gitignore",
    ".pi",
    ".qwen",
    ".mcp.json",
];

/// The folder that `.git/config` names as `core.hooksPath`, when it lies in the workspace.
pub(super) fn hooks_path(git_config: &str) -> Option<PathBuf> {
    let value = git_config.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        // `[core] hooksPath = x` on one line is legal too.
        let key = key.rsplit(']').next().unwrap_or(key).trim();
        key.eq_ignore_ascii_case("hookspath")
            .then(|| value.trim().trim_matches('"'))
    })?;
    is_inside(Path::new(value)).then(|| PathBuf::from(value))
}

/// Whether this is a relative path of plain names.
pub(super) fn is_inside(path: &Path) -> bool {
    path.components().next().is_some()
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hooks_path_inside_the_workspace_is_found() {
        assert_eq!(
            hooks_path("[core]\n\tbare = false\n\thooksPath = tools/hooks\n"),
            Some("tools/hooks".into())
        );
        assert_eq!(hooks_path("[core] hookspath = \"a b\""), Some("a b".into()));
        assert_eq!(hooks_path("[core]\n\thooksPath = /usr/share/hooks\n"), None);
        assert_eq!(hooks_path("[core]\n\thooksPath = ../outside\n"), None);
        assert_eq!(hooks_path("[core]\n\tbare = false\n"), None);
    }

    #[test]
    fn every_default_is_a_plain_relative_name() {
        assert!(
            DEFAULT_PROTECTED
                .iter()
                .all(|name| is_inside(Path::new(name)))
        );
    }
}
