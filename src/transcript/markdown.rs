//! A transcript as Markdown, event by event.

use std::fmt::{self, Write};

use crate::store::EventRow;

use super::diff::{DiffLine, Sign};
use super::item::{Block, Image, Item, Permission, PlanEntry, Status, Tool, ToolContent, Voice};
use super::timeline::Timeline;

/// Notes are cut to this many characters: agents list hundreds of commands.
const NOTE_CHARACTERS: usize = 300;

/// The whole of a transcript that is at hand.
pub fn markdown(events: impl IntoIterator<Item = EventRow>) -> String {
    let mut text = String::new();
    let mut renderer = MarkdownRenderer::new();
    for event in events {
        renderer
            .feed(&event, &mut text)
            .expect("a String takes all text");
    }
    renderer.finish(&mut text).expect("a String takes all text");
    text
}

/// Takes events in order. What an agent wrote keeps its own Markdown, but
/// cannot reach beyond its message: fences and HTML blocks are closed.
pub struct MarkdownRenderer {
    timeline: Timeline,
    /// A message is written when it is whole, since its fences count.
    open: Option<(Voice, Option<String>, String)>,
    is_empty: bool,
}

impl Default for MarkdownRenderer {
    fn default() -> MarkdownRenderer {
        MarkdownRenderer::new()
    }
}

impl MarkdownRenderer {
    pub fn new() -> MarkdownRenderer {
        MarkdownRenderer {
            timeline: Timeline::new(false),
            open: None,
            is_empty: true,
        }
    }

    /// Writes what is whole after this event. Fails only where `out` does.
    pub fn feed(&mut self, event: &EventRow, out: &mut dyn Write) -> fmt::Result {
        for item in self.timeline.feed(event) {
            self.item(&item, out)?;
        }
        Ok(())
    }

    /// Writes what was held back.
    pub fn finish(&mut self, out: &mut dyn Write) -> fmt::Result {
        for item in self.timeline.finish() {
            self.item(&item, out)?;
        }
        self.close(out)
    }

    fn item(&mut self, item: &Item, out: &mut dyn Write) -> fmt::Result {
        if let Item::Chunk {
            voice,
            message,
            block,
        } = item
        {
            return self.say(*voice, message.as_deref(), block, out);
        }
        self.close(out)?;
        match item {
            Item::Prompt(blocks) => {
                self.paragraph("## Prompt", out)?;
                for block in blocks {
                    self.say(Voice::User, None, block, out)?;
                }
                self.close(out)?;
                self.paragraph("## Reply", out)
            }
            Item::Chunk { .. } => Ok(()),
            Item::Tool(tool) => self.tool(tool, out),
            Item::Plan(entries) => self.paragraph(&plan(entries), out),
            Item::Permission(permission) => self.paragraph(&self::permission(permission), out),
            Item::Note(note) | Item::Usage(note) => {
                self.paragraph(&format!("<sub>{}</sub>", escape(&cut(note))), out)
            }
            Item::Problem { text, details } => {
                self.paragraph(&format!("**Problem:** {}", escape(text)), out)?;
                if details.is_empty() {
                    Ok(())
                } else {
                    self.paragraph(&fenced("text", &details.join("\n")), out)
                }
            }
            Item::TurnEnd { reason } if matches!(reason.as_str(), "end_turn" | "") => Ok(()),
            Item::TurnEnd { reason } => self.paragraph(
                &format!("**The turn ended:** {}", escape(&reason.replace('_', " "))),
                out,
            ),
        }
    }

    fn say(
        &mut self,
        voice: Voice,
        message: Option<&str>,
        block: &Block,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let is_same = self
            .open
            .as_ref()
            .is_some_and(|(open, id, _)| *open == voice && id.as_deref() == message);
        if !is_same {
            self.close(out)?;
        }
        let (_, _, text) = self
            .open
            .get_or_insert_with(|| (voice, message.map(str::to_owned), String::new()));
        match block {
            Block::Text(more) => text.push_str(more),
            Block::Placeholder(more)
            | Block::Image(Image {
                placeholder: more, ..
            }) => {
                let break_before = if text.is_empty() || text.ends_with('\n') {
                    ""
                } else {
                    "\n"
                };
                // Into a fence that is open it goes as it is; both are readable.
                *text += &format!("{break_before}{}\n", escape(more));
            }
        }
        Ok(())
    }

    /// Writes the message that is open.
    fn close(&mut self, out: &mut dyn Write) -> fmt::Result {
        let Some((voice, _, text)) = self.open.take() else {
            return Ok(());
        };
        let text = contained(text.trim_matches('\n'));
        match voice {
            _ if text.trim().is_empty() => Ok(()),
            Voice::Agent => self.paragraph(&text, out),
            Voice::User => self.paragraph(&quoted(&text), out),
            Voice::Thought => self.paragraph(&quoted(&format!("_Thought:_\n\n{text}")), out),
            Voice::Plan => self.paragraph(&quoted(&format!("_Plan:_\n\n{text}")), out),
            Voice::Summary => self.paragraph(&quoted(&format!("_Summary:_\n\n{text}")), out),
        }
    }

    fn tool(&mut self, tool: &Tool, out: &mut dyn Write) -> fmt::Result {
        let kind = if tool.kind.is_empty() {
            "tool"
        } else {
            &tool.kind
        };
        self.paragraph(
            &format!(
                "**{} {}** {}",
                tool.status.symbol(),
                escape(kind),
                escape(&tool.title)
            ),
            out,
        )?;
        for content in &tool.content {
            match content {
                ToolContent::Block(Block::Text(text)) if text.trim().is_empty() => {}
                ToolContent::Block(Block::Text(text)) => {
                    self.paragraph(&fenced("text", text.trim_matches('\n')), out)?
                }
                ToolContent::Block(
                    Block::Placeholder(text)
                    | Block::Image(Image {
                        placeholder: text, ..
                    }),
                ) => self.paragraph(&escape(text), out)?,
                ToolContent::Diff {
                    path,
                    is_new,
                    lines,
                } => self.paragraph(&diff(path, *is_new, lines), out)?,
            }
        }
        Ok(())
    }

    /// A blank line, then the text.
    fn paragraph(&mut self, text: &str, out: &mut dyn Write) -> fmt::Result {
        if !std::mem::replace(&mut self.is_empty, false) {
            out.write_char('\n')?;
        }
        out.write_str(text)?;
        out.write_char('\n')
    }
}

fn plan(entries: &[PlanEntry]) -> String {
    let line = |entry: &PlanEntry| {
        let text = escape(&entry.text);
        match entry.status {
            Status::Completed => format!("- [x] {text}"),
            Status::InProgress => format!("- [ ] {text} _(in progress)_"),
            Status::Pending => format!("- [ ] {text}"),
            Status::Failed => format!("- [ ] {text} _(failed)_"),
        }
    };
    std::iter::once("**Plan**\n".to_owned())
        .chain(entries.iter().map(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn permission(permission: &Permission) -> String {
    let answer = match &permission.answer {
        Some(answer) => format!("→ **{}**", escape(&answer.text)),
        None => format!("(unanswered: {})", escape(&permission.options.join(", "))),
    };
    format!("**Permission:** {} {answer}", escape(&permission.title))
}

fn diff(path: &str, is_new: bool, lines: &[DiffLine]) -> String {
    let old = if is_new { "/dev/null" } else { path };
    let mut text = format!("--- {old}\n+++ {path}");
    for line in lines {
        text.push('\n');
        text.push_str(match line.sign {
            Sign::Hunk => "",
            sign => sign.prefix(),
        });
        text.push_str(&line.text);
    }
    fenced("diff", &text)
}

/// A code block whose fence is longer than any run of backticks inside.
fn fenced(language: &str, text: &str) -> String {
    let longest = text
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}")
}

/// A message that ends where it ends: a fence that it leaves open is closed, a
/// line that would begin an HTML block is escaped, and so are headings of our
/// own two levels.
fn contained(text: &str) -> String {
    let mut contained = String::with_capacity(text.len() + 16);
    let mut fence: Option<(char, usize)> = None;
    let mut is_below_text = false;
    for line in text.split('\n') {
        let indented = line.len() - line.trim_start_matches(' ').len();
        let words = &line[indented..];
        let run = fence_at(words).filter(|_| indented < 4);
        match (fence, run) {
            (None, Some(opened)) => fence = Some(opened),
            (Some((character, length)), Some((closing, count)))
                if closing == character && count >= length && words[count..].trim().is_empty() =>
            {
                fence = None;
            }
            _ => {}
        }
        let is_outside = fence.is_none() && run.is_none() && indented < 4;
        let is_heading = words.starts_with("# ") || words.starts_with("## ");
        if is_outside
            && (words.starts_with('<') || is_heading || (is_below_text && is_underline(words)))
        {
            contained.push_str(&line[..indented]);
            contained.push('\\');
            contained.push_str(words);
        } else {
            contained.push_str(line);
        }
        contained.push('\n');
        is_below_text = is_outside && !words.is_empty();
    }
    if let Some((character, length)) = fence {
        contained.extend(std::iter::repeat_n(character, length));
    } else {
        contained.pop();
    }
    contained
}

/// The fence that a line opens or closes: its character and length.
fn fence_at(line: &str) -> Option<(char, usize)> {
    let character = line
        .chars()
        .next()
        .filter(|character| matches!(character, '`' | '~'))?;
    let length = line.len() - line.trim_start_matches(character).len();
    let rest = &line[length..];
    (length >= 3 && !(character == '`' && rest.contains('`'))).then_some((character, length))
}

/// `===` and `---` make the paragraph above them a heading of our own levels.
fn is_underline(line: &str) -> bool {
    let line = line.trim_end();
    !line.is_empty()
        && (line.bytes().all(|byte| byte == b'=') || line.bytes().all(|byte| byte == b'-'))
}

fn quoted(text: &str) -> String {
    let line = |line: &str| {
        if line.is_empty() {
            ">".to_owned()
        } else {
            format!("> {line}")
        }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Text of our own lines: nothing in it is Markdown.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '>' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

fn cut(note: &str) -> String {
    match note.char_indices().nth(NOTE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &note[..end]),
        None => note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(fenced("text", "plain"), "```text\nplain\n```");
        assert_eq!(fenced("text", "a\n````\nb"), "`````text\na\n````\nb\n`````");
    }

    #[test]
    fn a_message_stays_within_itself() {
        let check = |text, expected| assert_eq!(contained(text), expected, "{text:?}");
        check("plain\n\ntext", "plain\n\ntext");
        check("```rust\nlet x;", "```rust\nlet x;\n```");
        check("````\n```\nstill in", "````\n```\nstill in\n````");
        check("~~~\n```\nx", "~~~\n```\nx\n~~~");
        check("```\na\n```\nb", "```\na\n```\nb");
        check("```\n# code\n<b>\n```", "```\n# code\n<b>\n```");
        check("a ``` b", "a ``` b");
        check("<!-- hides the rest", "\\<!-- hides the rest");
        check("  <script>\nx", "  \\<script>\nx");
        check("## Prompt\nfaked", "\\## Prompt\nfaked");
        check("Prompt\n======", "Prompt\n\\======");
        check("Prompt\n---", "Prompt\n\\---");
        check("a rule\n\n---\nb", "a rule\n\n---\nb");
        check("### fine", "### fine");
    }

    #[test]
    fn our_own_lines_hold_no_markdown() {
        assert_eq!(
            escape("a `b` *c* <d> [e](f) &lt;"),
            "a \\`b\\` \\*c\\* &lt;d\\> \\[e\\](f) &amp;lt;"
        );
    }
}
