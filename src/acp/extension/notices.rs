//! `_acpbox/*` notifications, and events of the same kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::Tier;

/// Notification `_acpbox/agent/stderr`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStderr {
    pub session_id: String,
    pub lines: Vec<String>,
}

/// Notification and event `_acpbox/agent/exit`: the agent's process has ended.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentExit {
    pub session_id: String,
    /// How it ended, in words.
    pub exit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why acpbox ended it, where it did so for a fault of the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was ended because its session was closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Its last lines on stderr.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
}

/// Event `_acpbox/turn/start`: the turn of a prompt began later than the prompt
/// came, or beside other clients. It is here that these are shown the prompt.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnStart {
    pub session_id: String,
    /// The number of the prompt's event.
    pub prompt_seq: i64,
    /// Who sent it: the `title` or `name` of the client's `clientInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Event `_acpbox/turn/end`: a turn ended without the agent's own result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnEnd {
    pub session_id: String,
    /// The number of the prompt's event.
    pub prompt_seq: i64,
    pub reason: TurnEndReason,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnEndReason {
    /// The agent did not end a cancelled turn within the grace period.
    CancelTimeout,
    /// The agent's process or its VM ended.
    AgentExit,
    /// acpbox was told to stop.
    Shutdown,
    /// Its VM was put to sleep by force.
    Sleep,
    /// acpbox itself was killed; found out when the session was used again.
    Interrupted,
}

/// Event `_acpbox/permission/denied`: a request found nobody to answer it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionDenied {
    pub session_id: String,
    /// The agent's method that was refused.
    pub method: String,
    pub reason: String,
}

/// Event `_acpbox/permission/decided`: `session/request_permission` was answered by
/// the configured policy, and nobody was asked. Without `rule` and `remembered` it
/// was what the policy does with all else.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionDecided {
    pub session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// `allow` or `deny`.
    pub decision: String,
    /// The number of the rule in `permissions.rules`, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The id of the remembered answer, as `acpbox permissions list` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembered: Option<i64>,
    /// The chosen option; absent where the answer is that the question was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option_id: Option<String>,
}

/// Notification and event `_acpbox/session/sleep`: the agent's process was ended
/// for as long as nobody needs it. Whoever follows the session goes on doing so.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSleep {
    pub session_id: String,
    pub reason: SleepReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SleepReason {
    /// The agent was idle.
    Idle,
    /// Its VM was idle, with nobody attached.
    VmIdle,
    /// Somebody put its VM to sleep.
    Asked,
}

/// Notification and event `_acpbox/session/wake`: a sleeping session has an agent again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionWake {
    pub session_id: String,
    /// How its agent came back.
    pub tier: Tier,
}
