//! The formats: each takes a session's events as they are stored.

use std::io::{IsTerminal, stderr};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::acp::methods;
use crate::cli::args::Format;
use crate::cli::output::{self, Stream};
use crate::rpc::{message, splice};
use crate::server::extension;
use crate::store::{Direction, EventRow};
use crate::transcript::{TerminalOptions, TerminalRenderer, printable};

/// The longest reply that the one object of `json` carries, in bytes.
const REPLY_BYTES: usize = 64 * 1024 * 1024;

const MESSAGE_CHUNK: &str = "agent_message_chunk";

pub(super) enum Show {
    Text(Box<Text>),
    Json {
        text: String,
        is_truncated: bool,
        out: Stream,
    },
    Jsonl(Stream),
}

/// The one object of `json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Absent when no session came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<String>,
    pub(super) text: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) text_truncated: bool,
    /// `null` when the turn did not end by itself.
    pub(super) stop_reason: Option<String>,
    pub(super) last_seq: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<serde_json::Value>,
}

impl Show {
    /// Call within a tokio runtime. `notes`: show what is beside the conversation too.
    pub(super) fn new(format: Format, notes: bool) -> Show {
        let out = Stream::new();
        match format {
            Format::Text => Show::Text(Box::new(Text::new(out, notes))),
            Format::Json => Show::Json {
                text: String::new(),
                is_truncated: false,
                out,
            },
            Format::Jsonl => Show::Jsonl(out),
        }
    }

    pub(super) async fn event(&mut self, row: EventRow) -> anyhow::Result<()> {
        match self {
            Show::Text(text) => text.event(&row).await,
            Show::Json {
                text, is_truncated, ..
            } => {
                let chunk = chunk(&row).unwrap_or_default();
                *is_truncated |= text.len() + chunk.len() > REPLY_BYTES;
                if !*is_truncated {
                    text.push_str(&chunk);
                }
                Ok(())
            }
            Show::Jsonl(out) => {
                let event = extension::event(row)?;
                out.write(&(serde_json::to_string(&event)? + "\n")).await
            }
        }
    }

    /// Whether the person may be told that something is going on.
    pub(super) fn has_room_for_progress(&self) -> bool {
        match self {
            Show::Text(text) => !text.is_mid_line(),
            Show::Json { .. } => true,
            Show::Jsonl(out) => !out.is_terminal,
        }
    }

    /// Ends what is open, before something else is said on the terminal.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        match self {
            Show::Text(text) => text.settle().await,
            Show::Json { .. } | Show::Jsonl(_) => Ok(()),
        }
    }

    /// Writes what is left.
    pub(super) async fn finish(&mut self, summary: Summary) -> anyhow::Result<()> {
        match self {
            Show::Text(text) => text.finish(summary.session_id.as_deref()).await,
            Show::Json {
                text,
                is_truncated,
                out,
            } => {
                let summary = Summary {
                    text: std::mem::take(text),
                    text_truncated: *is_truncated,
                    ..summary
                };
                out.write(&(serde_json::to_string(&summary)? + "\n")).await
            }
            Show::Jsonl(_) => Ok(()),
        }
    }
}

/// The reply on standard output, everything else on standard error.
pub(super) struct Text {
    out: Stream,
    beside: TerminalRenderer,
    /// Whether both go to a terminal, presumably the same one.
    is_shared: bool,
    /// Whether what is beside was written last.
    is_beside: bool,
    /// Whether standard error ends inside a line.
    is_open: bool,
    /// Whether the next piece of the reply begins a paragraph.
    is_interrupted: bool,
    message: Option<String>,
}

impl Text {
    fn new(out: Stream, notes: bool) -> Text {
        let options = TerminalOptions {
            color: output::stderr_color(),
            width: output::stderr_width(),
            live: true,
            prompts: false,
            thoughts: stderr().is_terminal(),
            notes,
            ..TerminalOptions::default()
        };
        Text {
            is_shared: out.is_terminal && stderr().is_terminal(),
            out,
            beside: TerminalRenderer::new(options),
            is_beside: false,
            is_open: false,
            is_interrupted: false,
            message: None,
        }
    }

    async fn event(&mut self, row: &EventRow) -> anyhow::Result<()> {
        if let Some(text) = chunk(row) {
            return self.reply(&text, message_id(row)).await;
        }
        // How the turn failed is said once, at the end, with what to do about it.
        let is_failure = matches!(&*row.kind, "session/prompt:error" | methods::AGENT_EXIT)
            || (row.kind == methods::TURN_END && row.raw.contains("\"agent_exit\""));
        if is_failure {
            return Ok(());
        }
        let mut beside = String::new();
        self.beside.feed(row, &mut beside)?;
        if !beside.is_empty() {
            self.say_beside(&beside).await?;
        }
        self.is_interrupted |= !beside.is_empty() || row.kind.starts_with("tool_call");
        Ok(())
    }

    async fn reply(&mut self, text: &str, message: Option<String>) -> anyhow::Result<()> {
        self.settle_beside();
        let is_new = message.is_some() && self.message.is_some() && message != self.message;
        self.message = message.or(self.message.take());
        if self.is_interrupted || is_new {
            // Two messages are two paragraphs, which agents do not always say.
            self.out.break_lines(2).await?;
        }
        self.is_interrupted = false;
        if self.out.is_terminal {
            self.out.write(&printable(text)).await
        } else {
            self.out.write(text).await
        }
    }

    async fn say_beside(&mut self, text: &str) -> anyhow::Result<()> {
        if self.is_shared && !self.is_beside {
            self.out.break_lines(1).await?;
        }
        self.is_beside = true;
        self.is_open = !text.ends_with('\n');
        output::note(text);
        Ok(())
    }

    /// Ends the line that is open on standard error.
    fn settle_beside(&mut self) {
        self.is_beside = false;
        if std::mem::take(&mut self.is_open) {
            let mut end = String::new();
            // Into a String nothing fails.
            let _ = self.beside.finish(&mut end);
            output::note(&end);
        }
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        self.settle_beside();
        if self.is_shared {
            self.out.break_lines(1).await?;
        }
        Ok(())
    }

    fn is_mid_line(&self) -> bool {
        self.is_open || (self.is_shared && self.out.is_mid_line())
    }

    async fn finish(&mut self, session: Option<&str>) -> anyhow::Result<()> {
        self.settle_beside();
        self.out.break_lines(1).await?;
        if let Some(session) = session {
            let dim = anstyle::Style::new().dimmed();
            output::note(&format!(
                "{dim}session {session}; go on with: acpbox run --session {session} \"…\"{dim:#}\n"
            ));
        }
        Ok(())
    }
}

/// The text of a piece of the agent's reply, as the agent wrote it.
fn chunk(row: &EventRow) -> Option<String> {
    if row.direction != Direction::Agent || row.kind != MESSAGE_CHUNK {
        return None;
    }
    let content = splice::member(update(row)?, "content")?;
    let raw = splice::member(content, "text")?;
    match message::string(raw) {
        Some(text) => Some(text.into_owned()),
        // A lone surrogate is no text; its escape is shown as it is.
        None => Some(raw.trim_matches('"').to_owned()),
    }
}

fn message_id(row: &EventRow) -> Option<String> {
    let id = splice::member(update(row)?, "messageId")?;
    (id != "null").then(|| id.to_owned())
}

fn update(row: &EventRow) -> Option<&str> {
    splice::member(splice::member(&row.raw, "params")?, "update")
}
