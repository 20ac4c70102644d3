//! Two texts as the lines of a unified diff.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

/// A diff is cut short rather than to hold up a whole transcript.
const LONGEST: Duration = Duration::from_millis(500);

const CONTEXT_LINES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiffLine {
    pub(super) sign: Sign,
    /// Without the sign and the line's end.
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// `@@ -1,3 +1,4 @@`
    Hunk,
    Context,
    Added,
    Removed,
}

/// `old` is empty for a new file.
pub(super) fn lines(old: &str, new: &str) -> Vec<DiffLine> {
    let diff = TextDiff::configure().timeout(LONGEST).diff_lines(old, new);
    let mut unified = diff.unified_diff();
    let mut lines = Vec::new();
    for hunk in unified.context_radius(CONTEXT_LINES).iter_hunks() {
        lines.push(DiffLine {
            sign: Sign::Hunk,
            text: hunk.header().to_string(),
        });
        for change in hunk.iter_changes() {
            let sign = match change.tag() {
                ChangeTag::Equal => Sign::Context,
                ChangeTag::Insert => Sign::Added,
                ChangeTag::Delete => Sign::Removed,
            };
            lines.push(DiffLine {
                sign,
                text: change.value().trim_end_matches(['\n', '\r']).to_owned(),
            });
        }
    }
    lines
}

/// How many lines were added and removed.
pub(super) fn counts(lines: &[DiffLine]) -> (usize, usize) {
    let count = |sign| lines.iter().filter(|line| line.sign == sign).count();
    (count(Sign::Added), count(Sign::Removed))
}

impl Sign {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Sign::Hunk => "",
            Sign::Context => " ",
            Sign::Added => "+",
            Sign::Removed => "-",
        }
    }
}
