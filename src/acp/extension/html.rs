//! `_acpbox/session/html`: a transcript as HTML, piece by piece, for a page.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::SessionState;

/// `_acpbox/session/html`: items of a transcript as the HTML export has them. At most
/// one of `after`, `before` and `from`; without any, the last items. Starts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HtmlRequest {
    pub session_id: String,
    /// The `lastSeq` of the response before: only items that are new or have
    /// changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Only items that begin before this event: the last ones of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// Only the item that shows this event and those behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// At most so many, 1 to 500; 100 if absent. Not of those that have changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HtmlResponse {
    /// In the order of the transcript. One with a key that is known takes its place.
    pub items: Vec<HtmlItem>,
    /// Whether `items` do not continue what the client has: it begins anew with them.
    pub fresh: bool,
    /// Whether there are items before these.
    pub older: bool,
    /// Whether there are items behind these.
    pub newer: bool,
    /// The number of the last event that is shown, for `after`.
    pub last_seq: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub agent: String,
    pub cwd: PathBuf,
    /// Whether the session's agent runs in this process.
    pub live: bool,
    /// Whether a turn runs or waits.
    pub running: bool,
    /// As `session/list` has it, but `live` only where it is so in this process.
    pub state: SessionState,
    /// Whether the agent takes images in prompts, as far as it is known.
    pub images: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HtmlItem {
    /// Which item it is, for as long as the session exists: `SEQ.N`, two numbers
    /// by which items are in order. `SEQ` is its first event.
    pub key: String,
    /// One element. Whatever an agent said is text in it: no script, no address but
    /// those of links, no style of its own.
    pub html: String,
}
