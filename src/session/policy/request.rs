//! What an agent asks for, as far as it says so. All of it is the agent's word:
//! what is missing, odd or too long fits no rule that allows.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::ToolKind;
use crate::rpc::message;
use crate::rpc::splice::{self, Member};
use crate::transcript::printable;

/// Tool calls of a session that are remembered: agents ask soon after they tell
/// of one.
const CALLS: usize = 32;
/// Longer texts are no titles and no commands to compare with a pattern.
const TEXT_BYTES: usize = 8 * 1024;
/// Files of one tool call; a guess, far above what agents were seen to name.
const FILES: usize = 64;
const ID_BYTES: usize = 256;

/// A part of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Said<T> {
    #[default]
    Nothing,
    /// Something that cannot be compared: of another type, too long, with
    /// characters that are there to deceive.
    Unclear,
    This(T),
}

/// A tool call that an agent told of or asks for.
#[derive(Debug, Clone, Default)]
pub struct ToolCall {
    pub kind: Said<ToolKind>,
    pub title: Said<String>,
    /// The command line.
    pub command: Said<String>,
    /// The folder that the command is to run in, where the agent says so.
    pub folder: Said<String>,
    /// What it names as locations, then what it shows changes of.
    pub locations: Said<Vec<String>>,
    pub changes: Said<Vec<String>>,
}

/// The newest tool calls of a session: agents say some things only once, and not
/// when they ask.
#[derive(Debug, Default)]
pub struct ToolCalls(VecDeque<(Box<str>, ToolCall)>);

/// A file, both ways resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub absolute: PathBuf,
    /// In the folder of the session that holds it.
    pub below: PathBuf,
}

/// What is asked for, and by whom.
#[derive(Debug, Default)]
pub struct Request {
    pub agent: String,
    /// The session's working folder, canonical.
    pub cwd: PathBuf,
    pub call: ToolCall,
    /// The call's files; `Unclear` if one of them is not in the session's folders.
    pub places: Said<Vec<Place>>,
    /// Whether the request could be read at all.
    pub is_sound: bool,
}

/// What an answer for always is about: the narrowest that is of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The tool's kind.
    pub kind: &'static str,
    /// `command`, `folder` or `title`.
    pub scope: &'static str,
    pub text: String,
}

impl<T> Said<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Said::This(value) => Some(value),
            _ => None,
        }
    }

    /// Takes over what `raw` says, if it says anything.
    fn overlay(&mut self, raw: Option<&str>, read: impl FnOnce(&str) -> Option<T>) {
        if let Some(raw) = raw.filter(|raw| *raw != "null") {
            *self = read(raw).map_or(Said::Unclear, Said::This);
        }
    }
}

impl ToolCalls {
    /// Notes what a `tool_call` or `tool_call_update` says.
    pub fn note(&mut self, update: &[Member<'_>], is_new: bool) {
        let Some(id) = splice::value(update, "toolCallId").and_then(message::string) else {
            return;
        };
        if id.len() > ID_BYTES {
            return;
        }
        let known = self.0.iter().position(|(known, _)| **known == *id);
        let mut entry = match known.and_then(|at| self.0.remove(at)) {
            Some(entry) if !is_new => entry,
            // A tool call without a kind is of the kind `other`.
            _ if is_new => {
                let kind = Said::This(ToolKind::Other);
                let call = ToolCall {
                    kind,
                    ..ToolCall::default()
                };
                (id.as_ref().into(), call)
            }
            _ => (id.as_ref().into(), ToolCall::default()),
        };
        entry.1.overlay(update);
        self.0.push_back(entry);
        if self.0.len() > CALLS {
            self.0.pop_front();
        }
    }

    /// What is known of a tool call, by its id.
    pub fn get(&self, id: &str) -> Option<&ToolCall> {
        let found = self.0.iter().find(|(known, _)| **known == *id)?;
        Some(&found.1)
    }
}

impl ToolCall {
    fn overlay(&mut self, members: &[Member<'_>]) {
        let value = |key: &str| splice::value(members, key);
        self.kind
            .overlay(value("kind"), |raw| ToolKind::named(&message::string(raw)?));
        self.title
            .overlay(value("title"), |raw| plain(raw).map(Cow::into_owned));
        if let Some(raw) = value("rawInput").filter(|raw| *raw != "null") {
            let input = splice::members(raw).unwrap_or_default();
            self.command = command(&input);
            // Said once, it holds: some agents leave it out when they ask.
            for key in ["workdir", "cwd"] {
                let folder = splice::value(&input, key);
                self.folder
                    .overlay(folder, |raw| plain(raw).map(Cow::into_owned));
            }
        }
        self.locations.overlay(value("locations"), locations);
        self.changes.overlay(value("content"), changes);
    }

    /// Whether a shell may be what runs: then its operators count.
    pub fn may_be_command(&self) -> bool {
        match self.kind {
            Said::This(kind) => matches!(kind, ToolKind::Execute | ToolKind::Other),
            Said::Nothing | Said::Unclear => true,
        }
    }

    /// Whether it may touch files that it does not name.
    pub fn may_touch_files(&self) -> bool {
        match self.kind {
            Said::This(kind) => !matches!(
                kind,
                ToolKind::Execute | ToolKind::Think | ToolKind::Fetch | ToolKind::SwitchMode
            ),
            Said::Nothing | Said::Unclear => true,
        }
    }
}

impl Request {
    /// Reads the raw params of a `session/request_permission`. `locate` resolves
    /// a path, if it is in the session's folders.
    pub fn read(
        params: Option<&str>,
        known: &ToolCalls,
        agent: &str,
        cwd: PathBuf,
        locate: impl Fn(&Path) -> Option<Place>,
    ) -> Request {
        let mut request = Request {
            agent: agent.to_owned(),
            cwd,
            ..Request::default()
        };
        let call = params.and_then(|params| splice::member(params, "toolCall"));
        let Some(members) = call.and_then(splice::members) else {
            return request;
        };
        request.is_sound = !params
            .and_then(splice::members)
            .is_none_or(|all| has_twins(&all))
            && !has_twins(&members)
            && splice::value(&members, "rawInput")
                .and_then(splice::members)
                .is_none_or(|input| !has_twins(&input));
        let id = splice::value(&members, "toolCallId").and_then(message::string);
        if let Some(call) = id.and_then(|id| known.get(&id)) {
            request.call = call.clone();
        }
        request.call.overlay(&members);
        request.places = places(&request.call, &request.cwd, locate);
        request
    }

    /// Whether a rule may allow it: nothing of it deceives.
    pub fn may_be_allowed(&self) -> bool {
        self.is_sound
            && self.call.kind != Said::Unclear
            && self.call.title != Said::Unclear
            && (self.call.command != Said::Unclear || !self.call.may_be_command())
    }

    /// What an answer for always would hold for; `None` where that would be more
    /// than anybody could tell from the question.
    pub fn subject(&self) -> Option<Subject> {
        if !self.may_be_allowed() {
            return None;
        }
        let call = &self.call;
        let kind = *call.kind.known()?;
        let subject = |scope, text| {
            let kind = kind.name();
            Some(Subject { kind, scope, text })
        };
        match kind {
            ToolKind::Execute => {
                // Elsewhere the same words may mean something else.
                let is_here = match &call.folder {
                    Said::Nothing => true,
                    Said::Unclear => false,
                    Said::This(folder) => Path::new(folder) == self.cwd,
                };
                let command = call.command.known().filter(|_| is_here)?;
                subject("command", command.clone())
            }
            ToolKind::Read | ToolKind::Edit | ToolKind::Delete | ToolKind::Move => {
                subject("folder", folders(self.places.known()?)?)
            }
            ToolKind::Search if self.places != Said::Nothing => {
                subject("folder", folders(self.places.known()?)?)
            }
            ToolKind::Search | ToolKind::Think | ToolKind::Fetch => {
                subject("title", call.title.known()?.clone())
            }
            // A tool of another server, say.
            ToolKind::Other if self.places == Said::Nothing => {
                subject("title", call.title.known()?.clone())
            }
            // Another plan is another question.
            ToolKind::Other | ToolKind::SwitchMode => None,
        }
    }
}

/// Whether a name stands twice in an object: readers differ in which they take.
fn has_twins(members: &[Member<'_>]) -> bool {
    let mut keys: Vec<&str> = members.iter().map(|member| &*member.key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// A raw string that is what it looks like.
fn plain(raw: &str) -> Option<Cow<'_, str>> {
    if raw.len() > TEXT_BYTES {
        return None;
    }
    message::string(raw).filter(|text| is_plain(text))
}

fn is_plain(text: &str) -> bool {
    let is_hidden = |character: char| {
        character.is_control()
            // Soft hyphen, zero width, line and paragraph separators, invisible operators.
            || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}')
    };
    matches!(printable(text), Cow::Borrowed(_)) && !text.contains(is_hidden)
}

/// The command line of a `rawInput`: a text, or words.
fn command(input: &[Member<'_>]) -> Said<String> {
    let value = |key: &str| splice::value(input, key).filter(|raw| *raw != "null");
    let Some(raw) = value("command") else {
        return Said::Nothing;
    };
    let more = value("args");
    if raw.len() + more.map_or(0, str::len) > TEXT_BYTES {
        return Said::Unclear;
    }
    let words = |raw: &str| serde_json::from_str::<Vec<String>>(raw).ok();
    let line = match (message::string(raw), more) {
        (Some(line), None) => Some(line.into_owned()),
        (Some(program), Some(more)) => words(more).map(|mut words| {
            words.insert(0, program.into_owned());
            joined(&words)
        }),
        (None, None) => words(raw).map(|words| joined(&words)),
        (None, Some(_)) => None,
    };
    let line = line.filter(|line| is_plain(line) && !line.trim().is_empty());
    line.map_or(Said::Unclear, |line| Said::This(line.trim().to_owned()))
}

/// Words as one line of a shell; what a shell is given is that line itself.
fn joined(words: &[String]) -> String {
    const SHELLS: [&str; 9] = [
        "sh",
        "bash",
        "zsh",
        "/bin/sh",
        "/bin/bash",
        "/bin/zsh",
        "/usr/bin/sh",
        "/usr/bin/bash",
        "/usr/bin/zsh",
    ];
    if let [shell, flag, line] = words
        && SHELLS.contains(&shell.as_str())
        && ["-c", "-lc"].contains(&flag.as_str())
    {
        return line.clone();
    }
    let is_bare = |character: char| character.is_alphanumeric() || "-_./=:,+@%".contains(character);
    let quoted = words.iter().map(|word| match word.chars().all(is_bare) {
        true if !word.is_empty() => word.clone(),
        _ => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
struct Location {
    path: String,
}

fn locations(raw: &str) -> Option<Vec<String>> {
    let all: Vec<Location> = serde_json::from_str(raw).ok()?;
    some(all.into_iter().map(|location| location.path))
}

/// The files that a tool call's raw content shows changes of.
fn changes(raw: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        r#type: Option<&'a RawValue>,
        path: Option<String>,
    }
    // Output of commands may be long, and is told again and again.
    if !raw.contains("diff") && !raw.contains("\\u") {
        return Some(Vec::new());
    }
    let all: Vec<Content> = serde_json::from_str(raw).ok()?;
    let is_diff = |content: &Content| {
        let name = content.r#type.and_then(|raw| message::string(raw.get()));
        name.is_some_and(|name| name == "diff")
    };
    let changed = all.into_iter().filter(is_diff);
    let paths: Option<Vec<String>> = changed.map(|content| content.path).collect();
    some(paths?)
}

/// Few and short ones.
fn some(paths: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let paths: Vec<String> = paths.into_iter().take(FILES + 1).collect();
    let bytes: usize = paths.iter().map(String::len).sum();
    let is_bounded = paths.len() <= FILES && bytes <= TEXT_BYTES;
    (is_bounded && paths.iter().all(|path| is_plain(path))).then_some(paths)
}

fn places(
    call: &ToolCall,
    cwd: &Path,
    locate: impl Fn(&Path) -> Option<Place>,
) -> Said<Vec<Place>> {
    let mut places = Vec::new();
    for said in [&call.locations, &call.changes] {
        let paths = match said {
            Said::Nothing => continue,
            Said::Unclear => return Said::Unclear,
            Said::This(paths) => paths,
        };
        for path in paths {
            match locate(&cwd.join(path)) {
                Some(place) if !places.contains(&place) => places.push(place),
                Some(_) => {}
                None => return Said::Unclear,
            }
        }
    }
    match places.is_empty() {
        true => Said::Nothing,
        false => Said::This(places),
    }
}

/// The folders of files: one as it is, several as a JSON array.
fn folders(places: &[Place]) -> Option<String> {
    let parents = places.iter().map(|place| place.absolute.parent()?.to_str());
    let mut parents: Vec<&str> = parents.collect::<Option<_>>()?;
    parents.sort_unstable();
    parents.dedup();
    match parents.as_slice() {
        [one] => Some((*one).to_owned()),
        several => serde_json::to_string(several).ok(),
    }
}
