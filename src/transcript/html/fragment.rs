//! Items as fragments: articles, folds and lines, each with its event's number.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::escape::{self, escape, escaped};
use super::{between, markdown, parts};
use crate::transcript::item::{
    Block, Image, Permission, Place, PlanEntry, Status, Tool, ToolContent, Voice,
};

/// Notes with more characters are folded: agents list hundreds of commands.
const NOTE_CHARACTERS: usize = 200;

/// Characters of a thought that show when it is folded.
const PREVIEW_CHARACTERS: usize = 90;

/// Diffs with more lines are folded at first.
const OPEN_DIFF_LINES: usize = 80;

/// HTML for one item. Its element has the id `e` and `first`, if no fragment
/// before it has that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Numbers of the first and the last event that it shows.
    pub first: i64,
    pub last: i64,
    pub html: String,
}

/// Writes fragments, and collects them.
#[derive(Clone)]
pub(super) struct Fragments {
    zone: TimeZone,
    written: Vec<Fragment>,
    /// The highest number that was given out as an id.
    last_id: i64,
    /// Characters of base64 that pictures may still take.
    pictures: usize,
}

impl Fragments {
    pub(super) fn new(zone: TimeZone, pictures: usize) -> Fragments {
        Fragments {
            zone,
            written: Vec::new(),
            last_id: 0,
            pictures,
        }
    }

    pub(super) fn take(&mut self) -> Vec<Fragment> {
        std::mem::take(&mut self.written)
    }

    pub(super) fn prompt(&mut self, place: Place, number: u64, blocks: &[Block]) {
        let mut html = self.open("article", "prompt", place, place);
        let link = self.link(place);
        let _ = write!(html, "{link}<h2>Prompt {number}</h2>");
        self.blocks(blocks, markdown::plain, &mut html);
        html.push_str("</article>\n");
        self.push(place, place, html);
    }

    pub(super) fn message(&mut self, voice: Voice, first: Place, last: Place, blocks: &[Block]) {
        let is_empty = |block: &Block| matches!(block, Block::Text(text) if text.trim().is_empty());
        if blocks.iter().all(is_empty) {
            return;
        }
        let (class, name) = match voice {
            Voice::User => ("prompt", "User"),
            Voice::Agent => ("reply", "Reply"),
            Voice::Thought => ("thought", "Thought"),
            Voice::Plan => ("written-plan", "Plan"),
            Voice::Summary => ("summary", "Summary of the conversation"),
        };
        if matches!(voice, Voice::Thought | Voice::Summary) {
            let mut html = self.open("details", class, first, last);
            let time = escape::time(first.time, &self.zone);
            let _ = write!(
                html,
                "<summary><span class=\"label\">{name}</span> <span class=\"preview\">{}</span>{time}</summary>",
                escaped(&preview(blocks))
            );
            self.blocks(blocks, markdown::render, &mut html);
            html.push_str("</details>\n");
            return self.push(first, last, html);
        }
        let mut html = self.open("article", class, first, last);
        let link = self.link(first);
        match voice {
            Voice::User | Voice::Plan => {
                let _ = write!(html, "{link}<h3>{name}</h3>");
            }
            _ => html.push_str(&link),
        }
        let write = match voice {
            Voice::User => markdown::plain,
            _ => markdown::render,
        };
        self.blocks(blocks, write, &mut html);
        html.push_str("</article>\n");
        self.push(first, last, html);
    }

    pub(super) fn tool(&mut self, place: Place, tool: &Tool) {
        let last = tool.changed;
        let kind = match tool.kind.as_str() {
            "" => "tool",
            kind => kind,
        };
        let (word, symbol) = status(tool.status);
        let mut summary = format!(
            "<span class=\"mark\" aria-hidden=\"true\">{symbol}</span><span class=\"unseen\">{word}: </span>\
             <span class=\"kind\">{}</span> <span class=\"title\" dir=\"auto\">{}</span>",
            escaped(kind),
            escaped(&tool.title)
        );
        summary.push_str("<span class=\"when\">");
        let took = between(place, last);
        if tool.status.is_final() && took >= Duration::from_millis(100) {
            let _ = write!(
                summary,
                "<span class=\"took\">{}</span> ",
                escape::duration(took)
            );
        }
        summary.push_str(&escape::time(place.time, &self.zone));
        summary.push_str("</span>");
        let is_blank = |content: &ToolContent| matches!(content, ToolContent::Block(Block::Text(text)) if text.trim().is_empty());
        if tool.content.iter().all(is_blank) {
            let mut html = self.open("div", &format!("tool {word}"), place, last);
            let _ = writeln!(html, "<div class=\"line\">{summary}</div></div>");
            return self.push(place, last, html);
        }
        let diff_lines = |content: &ToolContent| match content {
            ToolContent::Diff { lines, .. } => lines.len(),
            ToolContent::Block(_) => 0,
        };
        let is_diff = (1..=OPEN_DIFF_LINES).contains(&tool.content.iter().map(diff_lines).sum());
        let mut html = self.open("details", &format!("tool {word}"), place, last);
        if is_diff || tool.status == Status::Failed {
            // In front of the `>` that ends the tag.
            html.insert_str(html.len() - 1, " open");
        }
        let _ = write!(html, "<summary>{summary}</summary>");
        for content in &tool.content {
            match content {
                ToolContent::Diff {
                    path,
                    is_new,
                    lines,
                } => parts::diff(path, *is_new, lines, &mut html),
                ToolContent::Block(block) => {
                    self.blocks(std::slice::from_ref(block), parts::output, &mut html);
                }
            }
        }
        html.push_str("</details>\n");
        self.push(place, last, html);
    }

    pub(super) fn plan(&mut self, place: Place, entries: &[PlanEntry]) {
        let mut html = self.open("section", "plan", place, place);
        let link = self.link(place);
        let _ = write!(html, "{link}<h3>Plan</h3><ul>");
        for entry in entries {
            let (word, symbol) = status(entry.status);
            let _ = write!(
                html,
                "<li class=\"{word}\"><span class=\"mark\" aria-hidden=\"true\">{symbol}</span>\
                 <span class=\"unseen\">{word}: </span><span dir=\"auto\">{}</span></li>",
                escaped(&entry.text)
            );
        }
        html.push_str("</ul></section>\n");
        self.push(place, place, html);
    }

    pub(super) fn permission(&mut self, place: Place, permission: &Permission) {
        let class = match &permission.answer {
            Some(answer) if answer.is_allowed => "permission allowed",
            Some(_) => "permission refused",
            None => "permission unanswered",
        };
        let mut html = self.open("p", class, place, place);
        html.push_str(&self.link(place));
        let _ = write!(
            html,
            "<span class=\"label\">Permission</span> <span dir=\"auto\">{}</span> ",
            escaped(&permission.title)
        );
        match &permission.answer {
            Some(answer) => {
                let _ = write!(
                    html,
                    "<span class=\"answer\">→ <strong>{}</strong></span>",
                    escaped(&answer.text)
                );
            }
            None => html.push_str("<span class=\"answer\">unanswered</span>"),
        }
        if !permission.options.is_empty() {
            let offered = permission.options.join(" · ");
            let _ = write!(
                html,
                " <span class=\"offered\">of {}</span>",
                escaped(&offered)
            );
        }
        html.push_str("</p>\n");
        self.push(place, place, html);
    }

    pub(super) fn note(&mut self, place: Place, note: &str) {
        let time = escape::time(place.time, &self.zone);
        let html = match note.char_indices().nth(NOTE_CHARACTERS) {
            Some((end, _)) => format!(
                "{}<summary>{}…{time}</summary><p dir=\"auto\">{}</p></details>\n",
                self.open("details", "note", place, place),
                escaped(&note[..end]),
                escaped(note)
            ),
            None => format!(
                "{}{}{}</p>\n",
                self.open("p", "note", place, place),
                self.link(place),
                escaped(note)
            ),
        };
        self.push(place, place, html);
    }

    pub(super) fn problem(&mut self, place: Place, text: &str, details: &[String]) {
        let mut html = self.open("section", "problem", place, place);
        let link = self.link(place);
        let _ = write!(
            html,
            "{link}<p><span class=\"label\">Problem</span> <span dir=\"auto\">{}</span></p>",
            escaped(text)
        );
        if !details.is_empty() {
            html.push_str("<pre>");
            escape(&details.join("\n"), &mut html);
            html.push_str("</pre>");
        }
        html.push_str("</section>\n");
        self.push(place, place, html);
    }

    pub(super) fn turn_end(
        &mut self,
        place: Place,
        reason: &str,
        took: Option<Duration>,
        usage: Option<&str>,
    ) {
        let is_usual = matches!(reason, "end_turn" | "");
        let class = if is_usual { "turn-end" } else { "turn-end cut" };
        let mut html = self.open("p", class, place, place);
        html.push_str(&self.link(place));
        html.push_str("<span class=\"label\">");
        match is_usual {
            true => html.push_str("Turn ended"),
            false => {
                let _ = write!(html, "Turn ended: {}", escaped(&reason.replace('_', " ")));
            }
        }
        html.push_str("</span>");
        if let Some(took) = took {
            let _ = write!(html, " after {}", escape::duration(took));
        }
        if let Some(usage) = usage {
            let _ = write!(html, " · {}", escaped(usage));
        }
        html.push_str("</p>\n");
        self.push(place, place, html);
    }

    /// Each block in its turn; `write` takes those that are text.
    fn blocks(&mut self, blocks: &[Block], write: fn(&str, &mut String), html: &mut String) {
        for block in blocks {
            match block {
                Block::Text(text) if text.trim().is_empty() => {}
                Block::Text(text) => write(text, html),
                Block::Placeholder(text) => {
                    let _ = write!(html, "<p class=\"placeholder\">{}</p>", escaped(text));
                }
                Block::Image(image) => self.image(image, html),
            }
        }
    }

    fn image(&mut self, image: &Image, html: &mut String) {
        match self.pictures.checked_sub(image.data.len()) {
            Some(left) => {
                self.pictures = left;
                let _ = write!(
                    html,
                    "<p><img alt=\"{}\" loading=\"lazy\" src=\"data:{};base64,{}\"></p>",
                    escaped(&image.placeholder),
                    image.mime,
                    image.data
                );
            }
            None => {
                let _ = write!(
                    html,
                    "<p class=\"placeholder\">{} (left out: this page has many pictures)</p>",
                    escaped(&image.placeholder)
                );
            }
        }
    }

    /// An opening tag. Every number is an id once; those of joined events are in `data-last`.
    fn open(&mut self, element: &str, class: &str, first: Place, last: Place) -> String {
        let mut html = format!("<{element} class=\"{class}\"");
        if first.seq > self.last_id {
            self.last_id = first.seq;
            let _ = write!(html, " id=\"e{}\"", first.seq);
        }
        if last.seq > first.seq {
            let _ = write!(html, " data-last=\"{}\"", last.seq);
        }
        html.push('>');
        html
    }

    /// The time, as a link to the fragment itself.
    fn link(&self, place: Place) -> String {
        let time = escape::time(place.time, &self.zone);
        format!("<a class=\"at\" href=\"#e{}\">{time}</a>", place.seq)
    }

    fn push(&mut self, first: Place, last: Place, html: String) {
        self.written.push(Fragment {
            first: first.seq,
            last: last.seq.max(first.seq),
            html,
        });
    }
}

fn status(status: Status) -> (&'static str, &'static str) {
    let word = match status {
        Status::Pending => "pending",
        Status::InProgress => "running",
        Status::Completed => "completed",
        Status::Failed => "failed",
    };
    (word, status.symbol())
}

/// The first words of a message.
fn preview(blocks: &[Block]) -> String {
    let text = blocks.iter().find_map(|block| match block {
        Block::Text(text) => Some(text.as_str()),
        Block::Placeholder(_) | Block::Image(_) => None,
    });
    let text = text.unwrap_or_default().trim_start();
    let line = text.lines().next().unwrap_or_default();
    let line = line.replace("**", "").replace('`', "");
    let line = line.trim_matches(['*', '#', ' ', '_']);
    match line.char_indices().nth(PREVIEW_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
