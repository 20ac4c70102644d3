//! What tools give back: output and diffs.

use std::fmt::Write as _;

use super::escape::{escape, escaped};
use crate::transcript::diff::{self, DiffLine, Sign};

/// Of a tool's output and of a diff, as much as somebody may want to read; the
/// JSONL has all.
const OUTPUT_BYTES: usize = 256 * 1024;
const DIFF_LINES: usize = 4000;
const LINE_BYTES: usize = 16 * 1024;

/// Output as it is. A fence around all of it is an agent's way of saying just that.
pub(super) fn output(text: &str, html: &mut String) {
    let text = unfenced(text.trim_matches('\n'));
    let shown = &text[..text.floor_char_boundary(OUTPUT_BYTES)];
    html.push_str("<pre class=\"output\" dir=\"auto\">");
    // A first line break would be taken for part of the tag.
    html.push('\n');
    escape(shown, html);
    html.push_str("</pre>");
    left_out(text.len() - shown.len(), "bytes", html);
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

fn unfenced(text: &str) -> &str {
    let inner = || {
        let opened = text.strip_prefix("```")?;
        let (language, body) = opened.split_once('\n')?;
        let body = body.strip_suffix("```")?.strip_suffix('\n')?;
        let is_whole = !language.contains(['`', ' ']) && !body.contains("```");
        is_whole.then_some(body)
    };
    inner().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_around_all_of_an_output_is_no_part_of_it() {
        for (text, expected) in [
            ("```\na\nb\n```", "a\nb"),
            ("```console\na\n```", "a"),
            ("```\na\n```\nb\n```", "```\na\n```\nb\n```"),
            ("```\na", "```\na"),
            ("```", "```"),
            ("``` x", "``` x"),
            ("a\n```\nb\n```", "a\n```\nb\n```"),
        ] {
            assert_eq!(unfenced(text), expected);
        }
    }
}
