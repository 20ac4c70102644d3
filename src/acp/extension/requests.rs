//! The `_acpbox/*` requests and their results.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Which side an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventDirection {
    Client,
    Agent,
    Acpbox,
}

/// `_acpbox/session/events`: one page of a session's transcript. Starts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsRequest {
    pub session_id: String,
    /// Only events with a higher number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Only events with a lower number; without `after`, the last ones below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// At most so many, 1 to 10,000; 1,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only these kinds: update kinds such as `tool_call`, methods, or a
    /// method with `:result` or `:error`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsResponse {
    /// In ascending order.
    pub events: Vec<Event>,
    /// The number of the session's last event, in the page or not.
    pub last_seq: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub seq: i64,
    /// Milliseconds since 1970.
    pub time: i64,
    pub direction: EventDirection,
    pub kind: String,
    /// The JSON-RPC message, byte for byte.
    #[schemars(with = "serde_json::Value")]
    pub message: Box<RawValue>,
}

/// `_acpbox/session/search`: finds words in all transcripts. Starts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SearchRequest {
    /// Words that must all occur in one message, tool call or title. Words in
    /// double quotes must stand together, as must those of `src/main.rs` or
    /// `snake_case`; `*` behind three letters or more stands for the rest of a
    /// word. Nothing else has a meaning. Case and accents do not matter. At most 1,000 bytes
    /// and 32 words.
    pub query: String,
    /// Only this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Only sessions whose working folder this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Only sessions with this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// At most so many, 1 to 100; 20 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchResponse {
    /// The best first: how often the words occur for the length of the text,
    /// what kind it is, how recent it is. The newest thousand matches are ranked
    /// against each other, later pages go on with older ones. Of one session
    /// there are at most the newest 20, unless `sessionId` names it.
    pub hits: Vec<SearchHit>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Some transcripts could not be made searchable in time: there may be more
    /// to be found later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    pub session_id: String,
    /// The event where the text begins; 0 for a title.
    pub seq: i64,
    /// `prompt`, `message`, `thought`, `tool` (a tool call's title and paths) or
    /// `title`, where nothing else of the session was found.
    pub kind: String,
    /// Milliseconds since 1970.
    pub time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub agent: String,
    pub cwd: PathBuf,
    /// Some 200 characters of the text on one line, in pieces.
    pub snippet: Vec<SnippetPart>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SnippetPart {
    pub text: String,
    /// Whether this piece is what was looked for.
    #[serde(rename = "match", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_match: bool,
}

/// `_acpbox/agent/logs`: what the agent wrote to stderr.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogsRequest {
    pub session_id: String,
    /// Only lines with a higher number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// The newest so many, 1 to 10,000; 1,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogsResponse {
    pub lines: Vec<LogEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    pub number: i64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// `stderr`, or `stdout` for what was no protocol message.
    pub stream: String,
    pub text: String,
}

/// `_acpbox/vm/list` takes nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmListRequest {}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VmListResponse {
    pub vms: Vec<VmStatus>,
}

/// `_acpbox/vm/status`, `/sleep`, `/wake`, `/delete`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmRequest {
    pub name: String,
    /// `sleep` and `delete`: end turns that still run, and agents that are being started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    pub name: String,
    pub driver: String,
    pub state: VmState,
    pub workspaces: Vec<PathBuf>,
    /// The process that runs it, where that is not this one's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<u32>,
    /// Sessions with a live agent in it, in this process.
    pub live_sessions: usize,
    /// When something last went on in it, in this process; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<i64>,
    /// Since when it has been idle with nobody attached, while it runs in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<i64>,
    /// Milliseconds since 1970.
    pub created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    Running,
    /// Stopped by this process while nobody needed it; whatever needs it wakes it.
    Sleeping,
    Stopped,
}

/// `_acpbox/vm/delete`'s result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmDeleteResponse {
    /// Whether there was such a VM.
    pub deleted: bool,
}
