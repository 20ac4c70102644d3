//! Sessions that pages follow: what was rendered is kept, so that each request
//! costs what has happened since, however long the transcript is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::items::{Item, Keys, RESPONSE_BYTES, Shown, Start, join_error, prompts};
use crate::acp::Failure;
use crate::store::{EventRow, Store};
use crate::transcript::{Follower, HtmlRenderer};

/// Sessions that are kept at most, and for how long after somebody asked last.
const SESSIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(300);

/// Settled items that are kept of each; those of the first response are among them.
const ITEMS: usize = super::LIMIT;

/// How far back rendering begins at most, but for the turn that is under way.
const TURNS: usize = 200;
const EVENTS: i64 = 4000;

/// The sessions that are followed, by id.
#[derive(Default)]
pub(super) struct Follows {
    sessions: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    asked: Instant,
    /// `None` until its beginning was looked for.
    follow: Arc<AsyncMutex<Option<Follow>>>,
}

impl Follows {
    /// The items that have changed after an event, or the last ones.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(super) async fn news(
        &self,
        store: &Store,
        session: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Shown, Failure> {
        // Pages of one session wait for each other, and share what is rendered.
        let mut follow = self.get(session).lock_owned().await;
        let last = store.last_seq(session).await?;
        // An import may have brought another transcript under the same id.
        follow.take_if(|follow| follow.seq > last);
        if follow.is_none() {
            *follow = Some(Follow::begin(store, session, last).await?);
        }
        let mut seq = follow.as_ref().map_or(0, |follow| follow.seq);
        while seq < last {
            let mut follower = Follower::new(session, seq);
            let events = follower.next(store).await?;
            if events.is_empty() {
                break;
            }
            seq = follower.last_seq();
            let is_last = seq >= last;
            follow = tokio::task::spawn_blocking(move || read(follow, &events, is_last))
                .await
                .map_err(join_error)?;
        }
        Ok(match follow.as_ref() {
            Some(follow) => follow.shown(after, limit),
            None => return Err(Failure::unknown_session(session)),
        })
    }

    /// Drops what is kept of a session that is gone.
    pub(super) fn forget(&self, session: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(session);
    }

    fn get(&self, session: &str) -> Arc<AsyncMutex<Option<Follow>>> {
        let now = Instant::now();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, kept| now.duration_since(kept.asked) < PATIENCE);
        if sessions.len() >= SESSIONS && !sessions.contains_key(session) {
            let oldest = sessions.iter().min_by_key(|(_, kept)| kept.asked);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&id);
            }
        }
        let kept = sessions.entry(session.to_owned()).or_insert_with(|| Kept {
            asked: now,
            follow: Arc::default(),
        });
        kept.asked = now;
        Arc::clone(&kept.follow)
    }
}

/// A session as far as it is rendered.
struct Follow {
    renderer: HtmlRenderer,
    keys: Keys,
    /// The last event that was rendered.
    seq: i64,
    settled: VecDeque<Changed>,
    settled_bytes: usize,
    /// What may still change.
    unsettled: Vec<Changed>,
    /// Whether there are items before the first that is kept.
    is_cut: bool,
    /// Who knows less than this event cannot be told all that has changed.
    dropped: i64,
}

/// An item and the event by which it became what it is, or a later one.
struct Changed {
    item: Item,
    at: i64,
}

impl Follow {
    async fn begin(store: &Store, session: &str, last: i64) -> Result<Follow, Failure> {
        let end = last.saturating_add(1);
        let prompts = prompts(store, session, end).await?;
        let Start { renderer, after } = Start::before(&prompts, end, TURNS, EVENTS);
        Ok(Follow {
            renderer,
            keys: Keys::default(),
            seq: after,
            settled: VecDeque::new(),
            settled_bytes: 0,
            unsettled: Vec::new(),
            is_cut: after > 0,
            dropped: after,
        })
    }

    /// Adds what is settled after these events.
    fn feed(&mut self, events: &[EventRow]) {
        for event in events {
            self.seq = event.seq;
            for fragment in self.renderer.feed(event) {
                let item = self.keys.item(fragment);
                let known = self
                    .unsettled
                    .iter()
                    .find(|known| known.item.key == item.key);
                let at = match known {
                    Some(known) if known.item.html == item.html => known.at,
                    _ => event.seq,
                };
                self.settled_bytes += item.html.len();
                self.settled.push_back(Changed { item, at });
                while self.settled.len() > ITEMS
                    || (self.settled_bytes > RESPONSE_BYTES && self.settled.len() > 1)
                {
                    self.drop_first();
                }
            }
        }
    }

    /// Renders anew what may still change.
    fn refresh(&mut self) {
        let mut keys = self.keys.clone();
        let before = std::mem::take(&mut self.unsettled);
        let before: HashMap<_, _> = before.iter().map(|it| (it.item.key, it)).collect();
        let fragments = self.renderer.unsettled().into_iter();
        let changed = fragments.map(|fragment| {
            let item = keys.item(fragment);
            let known = before.get(&item.key);
            let at = match known {
                Some(known) if known.item.html == item.html => known.at,
                _ => self.seq,
            };
            Changed { item, at }
        });
        self.unsettled = changed.collect();
    }

    fn drop_first(&mut self) {
        if let Some(Changed { item, at }) = self.settled.pop_front() {
            self.settled_bytes -= item.html.len();
            self.dropped = self.dropped.max(at);
            self.is_cut = true;
        }
    }

    fn shown(&self, after: Option<i64>, limit: usize) -> Shown {
        let all = self.settled.iter().chain(&self.unsettled);
        let known = after.filter(|after| (self.dropped..=self.seq).contains(after));
        let (items, left_out) = match known {
            Some(after) => {
                let changed = all.filter(|changed| changed.at > after);
                (changed.map(|changed| changed.item.shown()).collect(), 0)
            }
            None => {
                let count = self.settled.len() + self.unsettled.len();
                let left_out = count.saturating_sub(limit);
                let last = all.skip(left_out).map(|changed| changed.item.shown());
                (last.collect(), left_out)
            }
        };
        Shown {
            items,
            fresh: known.is_none(),
            older: self.is_cut || left_out > 0,
            newer: false,
            last_seq: self.seq,
        }
    }
}

type Guard = OwnedMutexGuard<Option<Follow>>;

/// Goes on with the next events, off the threads that serve clients.
fn read(mut guard: Guard, events: &[EventRow], is_last: bool) -> Guard {
    if let Some(follow) = guard.as_mut() {
        follow.feed(events);
        if is_last {
            follow.refresh();
        }
    }
    guard
}
