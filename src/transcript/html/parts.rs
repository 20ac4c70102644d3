//! What tools give back: output and diffs.

use std::fmt::Write as _;

use super::escape::{escape, escaped};
use crate::transcript::diff::{self, DiffLine, Sign};

/// Of a tool's output and of a diff, as much as somebody may want to read; the
/// JSONL has all.
const OUTPUT_BYTES: usize = 256 * 1024;
const DIFF_LINES: usize = 4000;
const LINE_BYTES: usize = 16 * 1024;

/// Output as it is. A fence around it, with perhaps a line on how it ended, is
/// an agent's way of saying just that, and acpbox's own for a terminal.
pub(super) fn output(text: &str, html: &mut String) {
    let (text, ending) = unfenced(text.trim_matches('\n'));
    let shown = &text[..text.floor_char_boundary(OUTPUT_BYTES)];
    html.push_str("<pre class=\"output\" dir=\"auto\">");
    // A first line break would be taken for part of the tag.
    html.push('\n');
    escape(shown, html);
    html.push_str("</pre>");
    left_out(text.len() - shown.len(), "bytes", html);
    if !ending.is_empty() {
        let _ = write!(html, "<p class=\"placeholder\">{}</p>", escaped(ending));
    }
}

/// `+` and `-` are part of the text, so that colours are not needed.
pub(super) fn diff(path: &str, is_new: bool, lines: &[DiffLine], html: &mut String) {
    let (added, removed) = diff::counts(lines);
    let new = if is_new { " (new)" } else { "" };
    let _ = write!(
        html,
        "<figure class=\"diff\"><figcaption><span class=\"path\">{}</span>{new} \
         <span class=\"added\">+{added}</span> <span class=\"removed\">-{removed}</span></figcaption>\
         <div class=\"lines\" dir=\"ltr\">",
        escaped(path)
    );
    for line in lines.iter().take(DIFF_LINES) {
        let (element, class) = match line.sign {
            Sign::Hunk => ("div", " class=\"hunk\""),
            Sign::Context => ("div", ""),
            Sign::Added => ("ins", ""),
            Sign::Removed => ("del", ""),
        };
        let text = &line.text[..line.text.floor_char_boundary(LINE_BYTES)];
        let cut = if text.len() < line.text.len() {
            "…"
        } else {
            ""
        };
        let _ = write!(
            html,
            "<{element}{class}>{}{}{cut}</{element}>",
            line.sign.prefix(),
            escaped(text)
        );
    }
    html.push_str("</div></figure>");
    left_out(lines.len().saturating_sub(DIFF_LINES), "lines", html);
}

fn left_out(count: usize, what: &str, html: &mut String) {
    if count > 0 {
        let _ = write!(
            html,
            "<p class=\"placeholder\">… {count} more {what} are left out here</p>"
        );
    }
}

/// What is within a fence, and the line behind it; the whole text if there is
/// more to it than that.
fn unfenced(text: &str) -> (&str, &str) {
    let inner = || {
        let (first, _) = text.split_once('\n')?;
        let language = first.trim_start_matches('`');
        let fence = &first[..first.len() - language.len()];
        if fence.len() < 3 || language.contains(['`', ' ']) {
            return None;
        }
        let body = &text[first.len() + 1..];
        let mut at = 0;
        let close = body.split('\n').find_map(|line| {
            let start = at;
            at += line.len() + 1;
            (line == fence).then_some(start)
        })?;
        let ending = body[close + fence.len()..].trim_matches('\n');
        let shown = &body[..close];
        (!ending.contains(['\n', '`'])).then(|| (shown.strip_suffix('\n').unwrap_or(shown), ending))
    };
    inner().unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_around_all_of_an_output_is_no_part_of_it() {
        for (text, shown, ending) in [
            ("```\na\nb\n```", "a\nb", ""),
            ("```console\na\n```", "a", ""),
            (
                "````console\n```\na\n````\nexit code 1",
                "```\na",
                "exit code 1",
            ),
            ("```\n```", "", ""),
        ] {
            assert_eq!(unfenced(text), (shown, ending));
        }
        for text in [
            "```\na\n```\nb\nc",
            "```\na\n```\n```\nb\n```",
            "```\na",
            "```",
            "``` x",
            "``` x\ny\n```",
            "``\na\n``",
            "a\n```\nb\n```",
        ] {
            assert_eq!(unfenced(text), (text, ""));
        }
    }
}
