//! `_meta.acpbox` on ACP's own messages.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `_meta.acpbox` of `session/new`, `session/load`, `session/resume` and `session/fork`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionOptions {
    /// The agent's name in the catalogue; the default agent if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// A VM's name; the workspace's own VM if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Variables for the agent's environment. Their values are not stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Text for the agent besides the base instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_instructions: Option<String>,
    /// Leave out the base instructions, which tell the agent about its VM.
    #[serde(default)]
    pub skip_os_instructions: bool,
    /// `session/load`: replay only events with a higher sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// `session/fork`: the last event that the fork takes over; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// What this client does in the session, beside others that are attached.
    #[serde(default)]
    pub role: Role,
    /// `session/load` and `session/resume`: `false` starts nothing. A session whose agent
    /// does not run is followed as it is stored, and `cwd` may be left out; whatever is
    /// sent to the session next brings it back, with what was said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<bool>,
}

/// What a client that is attached to a session does there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It prompts, answers what the agent asks, and sets what can be set.
    #[default]
    Controller,
    /// It looks on.
    Observer,
}

/// `_meta.acpbox` of `session/prompt`. Not passed on to the agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptOptions {
    /// What becomes of the prompt while another one's turn runs.
    #[serde(default)]
    pub when_busy: WhenBusy,
    /// The client's own name for this prompt, 1 to 255 bytes: a prompt that
    /// comes again with the same key is not run again, but gets the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It is answered with an error.
    Refuse,
}

/// `clientCapabilities._meta.acpbox`: what a client wants beyond ACP.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientOptions {
    /// Send `_acpbox/agent/stderr`, `_acpbox/agent/exit`, `_acpbox/session/sleep` and
    /// `_acpbox/session/wake` notifications.
    #[serde(default)]
    pub agent_notifications: bool,
    /// Let sessions and VMs sleep as if this client were not attached to them: it may
    /// be a page that somebody left open. Turns and questions keep them awake all the same.
    #[serde(default)]
    pub lets_sleep: bool,
}

/// `_meta.acpbox` of every `session/update`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UpdateMeta {
    /// The event's number in its session, from 1.
    pub seq: i64,
    /// Of a `user_message_chunk` by which a prompt is shown to the other clients:
    /// who sent it, by the `title` or `name` of its `clientInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Of the same: the prompt's `idempotencyKey`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl UpdateMeta {
    pub fn of(seq: i64) -> UpdateMeta {
        UpdateMeta {
            seq,
            from: None,
            key: None,
        }
    }
}

/// `_meta.acpbox` of a `session/prompt` result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromptMeta {
    /// The agent's whole reply: the text of its message chunks in this turn.
    pub text: String,
    /// Whether `text` was cut at its bound; the events have all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_truncated: bool,
    /// The number of the turn's last event, which is this result.
    pub last_seq: i64,
    /// Whether this is the stored result of an earlier prompt with the same key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// `_meta.acpbox` of the results of `session/new`, `session/load`, `session/resume`
/// and `session/fork`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionMeta {
    pub agent: String,
    pub vm: String,
    /// The number of the session's last event.
    pub last_seq: i64,
    /// What the session has used until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<SessionUsage>,
    /// How a stored session came back; absent for a new one, and for one that is
    /// followed as it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// With `start: false`: what the session is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// Where a fork comes from; absent for other sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
    /// What the VM could not be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a session has used, as its agent told it: nothing is counted or priced
/// by acpbox itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionUsage {
    /// Turns whose result told of tokens. The tokens are the sums over these
    /// turns: ACP leaves open whether an agent tells those of one turn or of the
    /// whole session, and they are taken for those of one turn.
    pub turns: u64,
    pub total_tokens: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub thought_tokens: u64,
    pub cached_read_tokens: u64,
    pub cached_write_tokens: u64,
    /// Tokens in the agent's context, by its last `usage_update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_used: Option<u64>,
    /// How many tokens the context holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_size: Option<u64>,
    /// One for each currency. Agents tell a sum; one that begins at zero after a
    /// restart is noticed by a smaller sum, or by a new session of the agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<Cost>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    pub amount: f64,
    /// Of ISO 4217, or another unit that the agent named.
    pub currency: String,
}

/// `_meta.acpbox` of `session/list`: filters besides ACP's own `cwd`. All must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListOptions {
    /// An agent's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// A VM's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// Last used at or after this: an RFC 3339 time, a date such as `2026-11-01`
    /// (its first moment) or a duration before now such as `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Last used before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Its agent runs, in some acpbox process.
    Live,
    /// Its client or its process ended without closing it.
    Open,
    /// Its agent was idle and ended; it goes on when it is used.
    Sleeping,
    /// By `session/close`.
    Closed,
}

/// `_meta.acpbox` of each session in the result of `session/list`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedSession {
    pub agent: String,
    pub vm: String,
    pub state: SessionState,
    /// ISO 8601.
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<SessionUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
}

/// `_meta.acpbox` of the result of `session/delete`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeleteMeta {
    pub removed: RemovedSession,
    /// What is left of the session and why, for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedSession {
    pub events: u64,
    pub log_lines: u64,
    /// Files in the VM: the agent's own of this session, and its instructions.
    pub agent_files: u64,
    /// Whether the agent, asked by `session/delete`, said that it deleted its own session.
    pub agent_session: bool,
}

/// How a stored session came back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub tier: Tier,
    /// The agent's own id for the session, which is new after `new` and `fork`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_session: Option<String>,
    /// Why better tiers were not used, and what could not be put back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What is missing because values are not stored and the client did not send
    /// them anew: a variable's name, or `mcpServers/NAME/env/VARIABLE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What the agent did not have any more and acpbox set anew: `mode`, `model`,
    /// or a config option's id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_back: Vec<String>,
    /// The history that goes in front of the next prompt, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preamble: Option<PreambleNote>,
    /// Mode, model and config options as they are now.
    #[serde(default, skip_serializing_if = "SessionSettings::is_empty")]
    pub settings: SessionSettings,
}

impl Restored {
    pub fn by(tier: Tier) -> Restored {
        Restored {
            tier,
            agent_session: None,
            reasons: Vec::new(),
            missing: Vec::new(),
            put_back: Vec::new(),
            preamble: None,
            settings: SessionSettings::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// It was live in this process.
    Attach,
    /// The agent's own `session/resume`.
    Resume,
    /// The agent's own `session/load`.
    Load,
    /// The agent's own `session/fork`.
    Fork,
    /// A new session of the agent, which is told the history with the next prompt.
    New,
}

/// A history made from the transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreambleNote {
    /// Its length.
    pub bytes: usize,
    /// The first and the last event that it tells of. The session's first prompt
    /// is told in any case.
    pub from_seq: i64,
    pub to_seq: i64,
    /// Whether messages between the first prompt and `fromSeq` were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
}

/// What a session's agent is set to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Values, strings or booleans, by the option's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config_options: BTreeMap<String, serde_json::Value>,
}

impl SessionSettings {
    pub fn is_empty(&self) -> bool {
        *self == SessionSettings::default()
    }
}

/// The session that a fork was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkedFrom {
    pub session_id: String,
    /// The last event that the fork took over, under the same number.
    pub seq: i64,
}
