//! A transcript as text for a terminal, event by event.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use crate::store::EventRow;

use super::diff::{self, DiffLine, Sign};
use super::item::{Block, Image, Item, Permission, PlanEntry, Status, Tool, ToolContent, Voice};
use super::timeline::Timeline;

#[derive(Debug, Clone)]
pub struct TerminalOptions {
    /// Whether to write colours (SGR sequences, the only ones ever written).
    pub color: bool,
    /// Columns; lines of our own making are cut to it, text is not wrapped.
    pub width: usize,
    /// Write each event as it comes, a tool call again when its status changes.
    /// Otherwise tool calls and permissions come once, as they ended.
    pub live: bool,
    /// Show the client's prompts.
    pub prompts: bool,
    /// Show the agent's thoughts.
    pub thoughts: bool,
    /// Show what is beside the conversation: modes, commands, files, usage.
    pub notes: bool,
    /// Lines shown of what a tool gave back, and ten times as many of a diff.
    pub tool_lines: usize,
}

impl Default for TerminalOptions {
    fn default() -> TerminalOptions {
        TerminalOptions {
            color: false,
            width: 80,
            live: false,
            prompts: true,
            thoughts: true,
            notes: true,
            tool_lines: 10,
        }
    }
}

/// The whole of a transcript that is at hand.
pub fn terminal(events: impl IntoIterator<Item = EventRow>, options: &TerminalOptions) -> String {
    let mut text = String::new();
    let mut renderer = TerminalRenderer::new(options.clone());
    for event in events {
        renderer
            .feed(&event, &mut text)
            .expect("a String takes all text");
    }
    renderer.finish(&mut text).expect("a String takes all text");
    text
}

/// Takes events in order; text goes out as soon as it is settled.
pub struct TerminalRenderer {
    options: TerminalOptions,
    timeline: Timeline,
    /// The paragraph that chunks are being added to.
    open: Option<(Voice, Option<String>)>,
    /// What stands above: decides on blank lines.
    above: Above,
    at_line_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Above {
    Nothing,
    Text,
    Lines,
}

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

impl TerminalRenderer {
    pub fn new(options: TerminalOptions) -> TerminalRenderer {
        let timeline = Timeline::new(options.live);
        TerminalRenderer {
            options,
            timeline,
            open: None,
            above: Above::Nothing,
            at_line_start: true,
        }
    }

    /// Writes what can be shown after this event. Fails only where `out` does.
    pub fn feed(&mut self, event: &EventRow, out: &mut dyn Write) -> fmt::Result {
        for item in self.timeline.feed(event) {
            self.item(&item, out)?;
        }
        Ok(())
    }

    /// Writes what was held back, and ends the last line.
    pub fn finish(&mut self, out: &mut dyn Write) -> fmt::Result {
        for item in self.timeline.finish() {
            self.item(&item, out)?;
        }
        self.end_line(out)
    }

    fn item(&mut self, item: &Item, out: &mut dyn Write) -> fmt::Result {
        match item {
            Item::Prompt(blocks) if self.options.prompts => {
                self.open = None;
                for block in blocks {
                    self.say(Voice::User, None, block, out)?;
                }
                Ok(())
            }
            Item::Chunk {
                voice: Voice::User, ..
            } if !self.options.prompts => Ok(()),
            Item::Chunk {
                voice: Voice::Thought,
                ..
            } if !self.options.thoughts => Ok(()),
            Item::Chunk {
                voice,
                message,
                block,
            } => self.say(*voice, message.as_deref(), block, out),
            Item::Tool(tool) => self.tool(tool, out),
            Item::Plan(entries) => self.plan(entries, out),
            Item::Permission(permission) => self.permission(permission, out),
            Item::Note(note) | Item::Usage(note) if self.options.notes => {
                self.line(&[(DIM, &format!("· {note}"))], out)
            }
            Item::Problem { text, details } => {
                self.line(&[(RED, &format!("! {text}"))], out)?;
                details
                    .iter()
                    .try_for_each(|detail| self.line(&[(DIM, &format!("  {detail}"))], out))
            }
            Item::TurnEnd { reason } if !matches!(reason.as_str(), "end_turn" | "") => {
                let reason = reason.replace('_', " ");
                self.line(&[(YELLOW, &format!("■ the turn ended: {reason}"))], out)
            }
            Item::Prompt(_) | Item::Note(_) | Item::Usage(_) | Item::TurnEnd { .. } => {
                self.open = None;
                Ok(())
            }
        }
    }

    /// Adds to the open paragraph, or opens one.
    fn say(
        &mut self,
        voice: Voice,
        message: Option<&str>,
        block: &Block,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let (text, is_placeholder) = match block {
            Block::Text(text) => (text.as_str(), false),
            Block::Placeholder(text)
            | Block::Image(Image {
                placeholder: text, ..
            }) => (text.as_str(), true),
        };
        let speaker = (voice, message.map(str::to_owned));
        // A paragraph does not begin with blank lines; many agents send some.
        let text = if self.open.as_ref() == Some(&speaker) {
            text
        } else {
            text.trim_start_matches('\n')
        };
        if text.is_empty() {
            return Ok(());
        }
        if self.open.as_ref() != Some(&speaker) {
            self.end_line(out)?;
            if self.above != Above::Nothing {
                out.write_char('\n')?;
            }
            self.open = Some(speaker);
        }
        self.above = Above::Text;
        if is_placeholder {
            self.end_line(out)?;
        }
        let (prefix, style) = match voice {
            Voice::User => ("> ", BOLD),
            Voice::Agent => ("", PLAIN),
            Voice::Thought => ("│ ", DIM),
            Voice::Plan | Voice::Summary => ("≡ ", DIM),
        };
        for line in text.split_inclusive('\n') {
            let (words, ends) = line
                .strip_suffix('\n')
                .map_or((line, false), |words| (words, true));
            let prefix = if self.at_line_start { prefix } else { "" };
            self.styled(
                if is_placeholder { DIM } else { style },
                &format!("{prefix}{words}"),
                out,
            )?;
            if ends {
                out.write_char('\n')?;
            }
            self.at_line_start = ends;
        }
        if is_placeholder {
            self.end_line(out)
        } else {
            Ok(())
        }
    }

    fn tool(&mut self, tool: &Tool, out: &mut dyn Write) -> fmt::Result {
        let style = match tool.status {
            Status::Completed => GREEN,
            Status::Failed => RED,
            Status::Pending | Status::InProgress => YELLOW,
        };
        let kind = if tool.kind.is_empty() {
            "tool"
        } else {
            &tool.kind
        };
        self.line(
            &[
                (style, tool.status.symbol()),
                (DIM, &format!(" {kind} ")),
                (BOLD, &tool.title),
            ],
            out,
        )?;
        if self.options.live && !tool.status.is_final() {
            return Ok(());
        }
        for content in &tool.content {
            match content {
                ToolContent::Block(Block::Text(text)) => self.tool_text(text, out)?,
                ToolContent::Block(
                    Block::Placeholder(text)
                    | Block::Image(Image {
                        placeholder: text, ..
                    }),
                ) => self.line(&[(DIM, &format!("  {text}"))], out)?,
                ToolContent::Diff {
                    path,
                    is_new,
                    lines,
                } => self.diff(path, *is_new, lines, out)?,
            }
        }
        Ok(())
    }

    fn tool_text(&mut self, text: &str, out: &mut dyn Write) -> fmt::Result {
        let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
        for line in lines.iter().take(self.options.tool_lines) {
            self.line(&[(DIM, &format!("  {}", line.replace('\t', "    ")))], out)?;
        }
        self.left_out(lines.len(), self.options.tool_lines, out)
    }

    fn diff(
        &mut self,
        path: &str,
        is_new: bool,
        lines: &[DiffLine],
        out: &mut dyn Write,
    ) -> fmt::Result {
        let (added, removed) = diff::counts(lines);
        let new = if is_new { " (new)" } else { "" };
        let removed = if is_new {
            String::new()
        } else {
            format!(" -{removed}")
        };
        self.line(
            &[
                (BOLD, &format!("  {path}")),
                (DIM, &format!("{new} +{added}{removed}")),
            ],
            out,
        )?;
        let shown = self.options.tool_lines.saturating_mul(10);
        for line in lines.iter().take(shown) {
            let style = match line.sign {
                Sign::Hunk => CYAN,
                Sign::Context => PLAIN,
                Sign::Added => GREEN,
                Sign::Removed => RED,
            };
            let text = line.text.replace('\t', "    ");
            self.line(&[(style, &format!("  {}{text}", line.sign.prefix()))], out)?;
        }
        self.left_out(lines.len(), shown, out)
    }

    fn left_out(&mut self, count: usize, shown: usize, out: &mut dyn Write) -> fmt::Result {
        match count.saturating_sub(shown) {
            0 => Ok(()),
            more => self.line(&[(DIM, &format!("  … {more} more lines"))], out),
        }
    }

    fn plan(&mut self, entries: &[PlanEntry], out: &mut dyn Write) -> fmt::Result {
        self.line(&[(BOLD, "Plan")], out)?;
        for entry in entries {
            let (mark, style) = match entry.status {
                Status::Completed => ("[x]", DIM),
                Status::InProgress => ("[~]", PLAIN),
                Status::Pending => ("[ ]", PLAIN),
                Status::Failed => ("[!]", RED),
            };
            self.line(&[(style, &format!("  {mark} {}", entry.text))], out)?;
        }
        Ok(())
    }

    fn permission(&mut self, permission: &Permission, out: &mut dyn Write) -> fmt::Result {
        let title = format!("? {}", permission.title);
        match &permission.answer {
            Some(answer) => {
                let style = if answer.is_allowed { GREEN } else { RED };
                self.line(
                    &[(YELLOW, &title), (style, &format!(" → {}", answer.text))],
                    out,
                )
            }
            None => {
                let options = format!(" [{}]", permission.options.join(" · "));
                self.line(&[(YELLOW, &title), (DIM, &options)], out)
            }
        }
    }

    /// A line of its own, cut to the width.
    fn line(&mut self, parts: &[(Style, &str)], out: &mut dyn Write) -> fmt::Result {
        self.end_line(out)?;
        self.open = None;
        if self.above == Above::Text {
            out.write_char('\n')?;
        }
        self.above = Above::Lines;
        let mut room = self.options.width;
        for (style, text) in parts {
            let (cut, columns) = cut(text, room);
            self.styled(*style, &cut, out)?;
            room = room.saturating_sub(columns);
        }
        out.write_char('\n')
    }

    fn end_line(&mut self, out: &mut dyn Write) -> fmt::Result {
        if !self.at_line_start {
            out.write_char('\n')?;
        }
        self.at_line_start = true;
        Ok(())
    }

    fn styled(&self, style: Style, text: &str, out: &mut dyn Write) -> fmt::Result {
        if self.options.color && !text.is_empty() && style != PLAIN {
            write!(out, "{style}{text}{style:#}")
        } else {
            out.write_str(text)
        }
    }
}

/// As much of a line as fits in `room` columns, and how many it takes.
fn cut(text: &str, room: usize) -> (String, usize) {
    let width = |character: char| character.width().unwrap_or(0);
    let whole: usize = text.chars().map(width).sum();
    if whole <= room {
        return (text.to_owned(), whole);
    }
    let mut cut = String::new();
    let mut columns = 0;
    for character in text.chars() {
        if columns + width(character) + 1 > room {
            break;
        }
        columns += width(character);
        cut.push(character);
    }
    if room > 0 {
        cut.push('…');
    }
    (cut, room)
}
