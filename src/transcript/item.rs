//! What a transcript consists of for a reader. All text in here is printable.

use std::sync::Arc;

use super::diff::DiffLine;

/// Where an item belongs: an event's number and its time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: i64,
    pub(super) time: i64,
}

/// An item with the event that brought it first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) place: Place,
    pub(super) item: Item,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// The client's message; a turn begins.
    Prompt(Vec<Block>),
    /// A piece of what somebody says, to be joined to the piece before it.
    Chunk {
        voice: Voice,
        message: Option<String>,
        block: Block,
    },
    /// A tool call as it is now.
    Tool(Tool),
    Plan(Vec<PlanEntry>),
    Permission(Permission),
    /// One line that is not part of the conversation.
    Note(String),
    /// What went wrong, and details, line by line.
    Problem {
        text: String,
        details: Vec<String>,
    },
    Usage(String),
    /// A turn ended; `reason` is ACP's `stopReason`.
    TurnEnd {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    User,
    Agent,
    Thought,
    /// A plan that the agent wrote as Markdown.
    Plan,
    /// What a compaction keeps of the conversation.
    Summary,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    Text(String),
    /// One line for what cannot be shown, such as `[image image/png 12 KiB]`.
    Placeholder(String),
    Image(Image),
}

/// A picture of a kind and size that a page may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// The line that stands for it where pictures cannot be shown.
    pub(super) placeholder: String,
    pub(super) mime: &'static str,
    /// Base64, of that alphabet's characters only.
    pub(super) data: Arc<str>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tool {
    pub(super) id: String,
    pub(super) title: String,
    /// `read`, `edit`, `execute`, …
    pub(super) kind: String,
    pub(super) status: Status,
    pub(super) content: Vec<ToolContent>,
    /// The last event that changed it.
    pub(super) changed: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ToolContent {
    Block(Block),
    Diff {
        path: String,
        is_new: bool,
        lines: Vec<DiffLine>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Status {
    #[default]
    Pending,
    InProgress,
    Completed,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanEntry {
    pub(super) text: String,
    pub(super) status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) title: String,
    /// Names of the options, as offered.
    pub(super) options: Vec<String>,
    /// What was chosen, or why nothing was; `None` while it is open.
    pub(super) answer: Option<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) is_allowed: bool,
}

impl Status {
    /// Unknown words count as pending.
    pub(super) fn parse(word: &str) -> Status {
        match word {
            "in_progress" => Status::InProgress,
            "completed" => Status::Completed,
            "failed" | "cancelled" => Status::Failed,
            _ => Status::Pending,
        }
    }

    pub(super) fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed)
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Status::Pending => "○",
            Status::InProgress => "◐",
            Status::Completed => "✓",
            Status::Failed => "✗",
        }
    }
}
