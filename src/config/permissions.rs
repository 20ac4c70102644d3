//! `[permissions]`: what is answered when an agent asks whether it may.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::vm::Scope;
use super::{ConfigError, units};

/// How long a question waits where the file says nothing. A guess: a question of
/// the evening is still there in the morning.
const UNANSWERED: Duration = Duration::from_secs(12 * 3600);

/// A file that is longer was written by no person.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What becomes of agents' questions.
#[derive(Debug, Clone)]
pub struct Permissions {
    /// In order; the first that fits decides.
    pub rules: Vec<Rule>,
    pub default: Decision,
    /// How long a question may stay unanswered; `None` is for ever.
    pub unanswered: Option<Duration>,
    /// Whether answers for always are kept and used again.
    pub remember: bool,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions {
            rules: Vec::new(),
            default: Decision::Ask,
            unanswered: Some(UNANSWERED),
            remember: true,
        }
    }
}

/// A rule fits a request that all its conditions fit.
#[derive(Debug, Clone)]
pub struct Rule {
    pub agent: Option<String>,
    /// Sessions that work in this folder or below; canonical where it exists.
    pub workspace: Option<PathBuf>,
    /// Any of these.
    pub kind: Option<Vec<ToolKind>>,
    pub title: Option<TextPattern>,
    pub command: Option<TextPattern>,
    pub path: Option<PathPattern>,
    pub decide: Decision,
    /// Whether to allow may mean to allow for always, where nothing less is offered.
    pub always: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Whoever is attached decides; nobody there is a refusal.
    #[default]
    Ask,
    Allow,
    Deny,
}

/// ACP's kinds of tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    Read,
    Edit,
    Delete,
    Move,
    Search,
    Execute,
    Think,
    Fetch,
    SwitchMode,
    Other,
}

/// A text in which each `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPattern(String);

/// A glob of paths: below a session's folders, or absolute.
#[derive(Debug, Clone)]
pub struct PathPattern {
    glob: GlobMatcher,
    is_absolute: bool,
}

/// `[permissions]` as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Permissions")]
pub(super) struct Table {
    /// Looked through in order; the first that fits a request decides it.
    rules: Vec<RuleEntry>,
    /// What is done where no rule fits and no answer is remembered.
    default: Decision,
    /// How long a question may stay unanswered before it is refused: `12h`, or `never`.
    #[schemars(with = "String")]
    unanswered: units::Patience,
    /// Whether answers such as "always allow" are remembered, and used again for
    /// the same agent, workspace, and command line or folder.
    remember: bool,
}

/// All conditions that are there must fit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PermissionRule")]
struct RuleEntry {
    /// An agent's name.
    agent: Option<String>,
    /// Sessions that work in this folder or below it.
    workspace: Option<String>,
    /// The tool call is of one of these kinds.
    kind: Option<Vec<ToolKind>>,
    /// The tool call's whole title; `*` stands for any characters.
    title: Option<String>,
    /// The whole command line, where the agent gives it. To allow, `*` stands for
    /// any characters but those that a shell obeys.
    command: Option<String>,
    /// A glob that every file of the tool call must fit (for `deny` and `ask`: any),
    /// below the session's folders, or absolute.
    path: Option<String>,
    decide: Decision,
    /// For `allow`: choose to allow for always where the agent offers nothing less.
    #[serde(default)]
    always: bool,
}

impl Default for Table {
    fn default() -> Table {
        let settings = Permissions::default();
        Table {
            rules: Vec::new(),
            default: settings.default,
            unanswered: units::Patience(settings.unanswered),
            remember: settings.remember,
        }
    }
}

/// The file that has `[permissions]`, to be read again while acpbox runs.
#[derive(Debug, Clone)]
pub struct PermissionsFile {
    pub(super) file: PathBuf,
    pub(super) home: PathBuf,
}

impl PermissionsFile {
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What the file says now.
    ///
    /// # Errors
    /// When it is not there, is no file of a sensible size, or is wrong; says where.
    pub fn read(&self) -> Result<Permissions, ConfigError> {
        let wrong = |source| ConfigError::Read {
            file: self.file.clone(),
            source,
        };
        let found = std::fs::metadata(&self.file).map_err(wrong)?;
        if !found.is_file() || found.len() > FILE_BYTES {
            let what = format!("it is no file of at most {FILE_BYTES} bytes");
            return Err(wrong(std::io::Error::other(what)));
        }
        let text = std::fs::read_to_string(&self.file).map_err(wrong)?;
        let scope = Scope {
            file: &self.file,
            home: &self.home,
        };
        scope.permissions(super::file::parse(&text, &self.file)?.permissions)
    }
}

impl Decision {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Ask => "ask",
            Decision::Allow => "allow",
            Decision::Deny => "deny",
        }
    }
}

impl ToolKind {
    /// The kind of that name in ACP.
    pub fn named(name: &str) -> Option<ToolKind> {
        let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        ToolKind::deserialize(name).ok()
    }

    /// Its name in ACP.
    pub fn name(self) -> &'static str {
        match self {
            ToolKind::Read => "read",
            ToolKind::Edit => "edit",
            ToolKind::Delete => "delete",
            ToolKind::Move => "move",
            ToolKind::Search => "search",
            ToolKind::Execute => "execute",
            ToolKind::Think => "think",
            ToolKind::Fetch => "fetch",
            ToolKind::SwitchMode => "switch_mode",
            ToolKind::Other => "other",
        }
    }
}

impl TextPattern {
    /// Whether the whole text fits, with nothing in place of a `*` that
    /// `may_stand` refuses.
    pub fn fits(&self, text: &str, may_stand: impl Fn(&str) -> bool) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        let Some(mut rest) = rest.strip_suffix(last) else {
            return false;
        };
        for part in parts {
            let Some(at) = rest.find(part) else {
                return false;
            };
            if !may_stand(&rest[..at]) {
                return false;
            }
            rest = &rest[at + part.len()..];
        }
        may_stand(rest)
    }
}

impl PathPattern {
    /// Whether a file fits: `below` is its path in the session's folder.
    pub fn fits(&self, absolute: &Path, below: &Path) -> bool {
        self.glob
            .is_match(if self.is_absolute { absolute } else { below })
    }
}

impl Scope<'_> {
    pub(super) fn permissions(&self, table: Table) -> Result<Permissions, ConfigError> {
        let unanswered = table.unanswered.0;
        if unanswered.is_some_and(|patience| patience.is_zero()) {
            let problem = "is 0, which would refuse every question; write a time such as \"10m\", \
                           or \"never\"";
            return Err(self.wrong("permissions.unanswered".to_owned(), problem.to_owned()));
        }
        let rules = (1..).zip(table.rules);
        Ok(Permissions {
            rules: rules
                .map(|(number, entry)| self.rule(number, entry))
                .collect::<Result<_, _>>()?,
            default: table.default,
            unanswered,
            remember: table.remember,
        })
    }

    /// `number` counts from 1.
    fn rule(&self, number: usize, entry: RuleEntry) -> Result<Rule, ConfigError> {
        let key = |name: &str| format!("permissions.rules, rule {number}, {name}");
        let wrong = |name: &str, problem: &str| Err(self.wrong(key(name), problem.to_owned()));
        if entry.kind.as_ref().is_some_and(Vec::is_empty) {
            return wrong(
                "kind",
                "is empty, which fits nothing; leave it out for any kind",
            );
        }
        if entry.always && entry.decide != Decision::Allow {
            return wrong("always", "is for decide = \"allow\" alone; leave it out");
        }
        let workspace = match &entry.workspace {
            Some(path) => {
                let path = self.absolute(path, &key("workspace"))?;
                // Sessions' folders are without symlinks, too.
                Some(path.canonicalize().unwrap_or(path))
            }
            None => None,
        };
        Ok(Rule {
            agent: entry.agent,
            workspace,
            kind: entry.kind,
            title: self.text(entry.title, || key("title"))?,
            command: self.text(entry.command, || key("command"))?,
            path: match entry.path {
                Some(path) => Some(self.path_pattern(&path, key("path"))?),
                None => None,
            },
            decide: entry.decide,
            always: entry.always,
        })
    }

    fn text(
        &self,
        pattern: Option<String>,
        key: impl Fn() -> String,
    ) -> Result<Option<TextPattern>, ConfigError> {
        let Some(pattern) = pattern else {
            return Ok(None);
        };
        let problem = if pattern.is_empty() {
            "is empty, which fits nothing; leave it out for any"
        } else if pattern.contains(char::is_control) {
            "has a control character, which fits nothing: what has one is always asked"
        } else {
            return Ok(Some(TextPattern(pattern)));
        };
        Err(self.wrong(key(), problem.to_owned()))
    }

    fn path_pattern(&self, pattern: &str, key: String) -> Result<PathPattern, ConfigError> {
        let is_plain = (Path::new(pattern).components()).all(|part| part != Component::ParentDir);
        if pattern.is_empty() || !is_plain {
            let problem = format!(
                "has `{pattern}`; write a glob without `..`, as src/**, /absolute/** or ~/**"
            );
            return Err(self.wrong(key, problem));
        }
        let mut glob = match pattern.strip_prefix("~/") {
            Some(rest) => {
                let home = self.home.canonicalize().unwrap_or(self.home.to_path_buf());
                format!("{}/{rest}", globset::escape(&home.to_string_lossy()))
            }
            None => pattern.trim_start_matches("./").to_owned(),
        };
        if glob.ends_with('/') {
            // A folder is all that is in it.
            glob.push_str("**");
        }
        let built = GlobBuilder::new(&glob).literal_separator(true).build();
        let built = built.map_err(|error| {
            self.wrong(key, format!("has `{pattern}`, which is no glob: {error}"))
        })?;
        Ok(PathPattern {
            glob: built.compile_matcher(),
            is_absolute: glob.starts_with('/'),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_what_it_may() {
        let no_semicolon = |text: &str| !text.contains(';');
        let fits = |pattern: &str, text: &str| TextPattern(pattern.into()).fits(text, no_semicolon);
        for (pattern, text) in [
            ("git status", "git status"),
            ("git status*", "git status"),
            ("git status*", "git status -s"),
            ("*", ""),
            ("* --check", "cargo fmt --check"),
            ("a*b*c", "a1b2b3c"),
            ("a*; b*", "a1; b2"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("git status", "git status -s"),
            ("git status", " git status"),
            ("cargo *", "cargo"),
            ("cargo *", "cargo test; rm x"),
            ("* --check", "rm x; fmt --check"),
            ("aa*aa", "aaa"),
            ("a*; b*", "a1; b2; c"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
