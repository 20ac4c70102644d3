//! Items from anywhere in a transcript, for those who scroll back or follow a link.

use std::collections::VecDeque;

use super::items::{Item, Keys, RESPONSE_BYTES, Shown, Start, join_error, prompts};
use crate::acp::Failure;
use crate::store::{EventRow, Store};
use crate::transcript::{Follower, HtmlRenderer};

/// How far back rendering begins at most, but for the turn that is looked for.
const TURNS: usize = 100;
const EVENTS: i64 = 2000;

/// The last items that begin before an event.
pub(super) async fn before(
    store: &Store,
    session: &str,
    end: i64,
    limit: usize,
) -> Result<Shown, Failure> {
    read(store, session, end, Goal::Before(end), limit).await
}

/// The item that shows an event, and those behind it.
pub(super) async fn from(
    store: &Store,
    session: &str,
    from: i64,
    limit: usize,
) -> Result<Shown, Failure> {
    let end = from.saturating_add(1);
    read(store, session, end, Goal::From(from), limit).await
}

async fn read(
    store: &Store,
    session: &str,
    end: i64,
    goal: Goal,
    limit: usize,
) -> Result<Shown, Failure> {
    let prompts = prompts(store, session, end).await?;
    let Start { renderer, after } = Start::before(&prompts, end, TURNS, EVENTS);
    let mut window = Window {
        renderer,
        keys: Keys::default(),
        items: VecDeque::new(),
        bytes: 0,
        goal,
        limit,
        is_cut: after > 0,
        is_full: false,
    };
    let mut follower = Follower::new(session, after);
    loop {
        let events = follower.next(store).await?;
        let is_end = events.is_empty();
        window = tokio::task::spawn_blocking(move || window.read(&events))
            .await
            .map_err(join_error)?;
        if is_end || window.is_full {
            break;
        }
    }
    Ok(Shown {
        items: window.items.iter().map(Item::shown).collect(),
        fresh: true,
        older: window.is_cut,
        newer: window.is_full,
        last_seq: follower.last_seq(),
    })
}

enum Goal {
    /// Items that begin before this event.
    Before(i64),
    /// The last item that begins at this event or before, and what follows.
    From(i64),
}

struct Window {
    renderer: HtmlRenderer,
    keys: Keys,
    items: VecDeque<Item>,
    bytes: usize,
    goal: Goal,
    limit: usize,
    /// Whether something lies before the items.
    is_cut: bool,
    /// Whether something lies behind them; then no more is needed.
    is_full: bool,
}

impl Window {
    /// Takes the next events; none is the end of the transcript.
    fn read(mut self, events: &[EventRow]) -> Window {
        for event in events {
            for fragment in self.renderer.feed(event) {
                let item = self.keys.item(fragment);
                self.take(item);
            }
            if self.is_full {
                return self;
            }
        }
        if events.is_empty() {
            for fragment in self.renderer.unsettled() {
                let item = self.keys.item(fragment);
                self.take(item);
            }
        }
        self
    }

    fn take(&mut self, item: Item) {
        let bytes = self.bytes + item.html.len();
        let is_over = self.items.len() >= self.limit || bytes > RESPONSE_BYTES;
        match self.goal {
            Goal::Before(end) if item.first() >= end => self.is_full = true,
            Goal::Before(_) => {
                self.push(item);
                while self.items.len() > self.limit
                    || (self.bytes > RESPONSE_BYTES && self.items.len() > 1)
                {
                    self.drop_first();
                }
            }
            Goal::From(seq) if item.first() <= seq => {
                while !self.items.is_empty() {
                    self.drop_first();
                }
                self.push(item);
            }
            Goal::From(_) if self.is_full || (is_over && !self.items.is_empty()) => {
                self.is_full = true;
            }
            Goal::From(_) => self.push(item),
        }
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.html.len();
        self.items.push_back(item);
    }

    fn drop_first(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= item.html.len();
            self.is_cut = true;
        }
    }
}
