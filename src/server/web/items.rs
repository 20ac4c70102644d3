//! Items with keys, and where in a transcript rendering can begin.

use std::ops::ControlFlow;

use jiff::tz::TimeZone;

use crate::acp::extension::HtmlItem;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::store::{EventPage, Store, StoreError};
use crate::transcript::{Fragment, HtmlRenderer};

/// What goes out at once, unless a single item is larger.
pub(super) const RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// What a response shows.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) items: Vec<HtmlItem>,
    pub(super) fresh: bool,
    pub(super) older: bool,
    pub(super) newer: bool,
    pub(super) last_seq: i64,
}

/// The first event of an item and how many items before it begin with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(i64, u32);

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) html: String,
}

impl Item {
    pub(super) fn first(&self) -> i64 {
        self.key.0
    }

    pub(super) fn shown(&self) -> HtmlItem {
        let Key(seq, number) = self.key;
        HtmlItem {
            key: format!("{seq}.{number}"),
            html: self.html.clone(),
        }
    }
}

/// Gives fragments their keys, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    last: Option<Key>,
}

impl Keys {
    pub(super) fn item(&mut self, fragment: Fragment) -> Item {
        let key = match self.last {
            Some(Key(seq, number)) if seq == fragment.first => Key(seq, number + 1),
            _ => Key(fragment.first, 0),
        };
        self.last = Some(key);
        Item {
            key,
            html: fragment.html,
        }
    }
}

/// The numbers of a session's prompts below a number, in order: a turn is
/// rendered the same whether or not the ones before it are.
pub(super) async fn prompts(
    store: &Store,
    session: &str,
    before: i64,
) -> Result<Vec<i64>, StoreError> {
    let page = EventPage {
        session: session.to_owned(),
        after: Some(0),
        before: Some(before),
        limit: usize::MAX,
        max_bytes: usize::MAX,
        kinds: vec![methods::SESSION_PROMPT.to_owned()],
    };
    store
        .fold_events(page, Vec::new(), |prompts, event| {
            prompts.push(event.seq);
            ControlFlow::Continue(())
        })
        .await
}

/// A renderer, and the number of the event behind which it begins.
pub(super) struct Start {
    pub(super) renderer: HtmlRenderer,
    pub(super) after: i64,
}

impl Start {
    /// Begins with the earliest of the last `turns` prompts that lies less than `events`
    /// before `end`, else with the last prompt; `prompts` are all those before `end`.
    pub(super) fn before(prompts: &[i64], end: i64, turns: usize, events: i64) -> Start {
        let last = prompts.len().saturating_sub(1);
        let earliest = prompts.len().saturating_sub(turns).min(last);
        let near = prompts[earliest..]
            .iter()
            .position(|prompt| end - prompt < events);
        let at = near.map_or(last, |near| earliest + near);
        let renderer = HtmlRenderer::new(TimeZone::UTC);
        match prompts.get(at) {
            // What comes before the first prompt goes with it.
            Some(&prompt) if at > 0 => Start {
                renderer: renderer.behind_prompts(at as u64),
                after: prompt - 1,
            },
            _ => Start { renderer, after: 0 },
        }
    }
}

/// What became of a thread that rendered.
pub(super) fn join_error(error: tokio::task::JoinError) -> Failure {
    Failure::internal(
        Phase::Store,
        format!("a transcript cannot be shown: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering_begins_with_a_prompt_not_too_far_back() {
        let check = |prompts: &[i64], end, after| {
            let start = Start::before(prompts, end, 3, 100);
            assert_eq!(start.after, after, "{prompts:?} {end}");
        };
        check(&[], 1000, 0);
        check(&[5], 1000, 0);
        check(&[5, 20], 50, 0);
        check(&[5, 20], 1000, 19);
        check(&[5, 20, 950, 990], 1000, 949);
        check(&[5, 960, 970, 980, 990], 1000, 969);
    }

    #[test]
    fn items_of_one_event_have_keys_of_their_own() {
        let mut keys = Keys::default();
        let fragment = |first| Fragment {
            first,
            last: first,
            html: String::new(),
        };
        let given = [1, 3, 3, 3, 4].map(|first| keys.item(fragment(first)).shown().key);
        assert_eq!(given, ["1.0", "3.0", "3.1", "3.2", "4.0"]);
    }
}
