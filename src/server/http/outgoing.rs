//! What waits to be sent on one event stream, and what was sent on it last.
//!
//! Updates have a number and are in the database: where they do not fit, the queue
//! says only which are to be read from there. So a stream that is read slowly, or
//! not at all, costs little and holds up nobody. What has no number (requests and
//! answers) is queued whole, and kept for a while, since a stream may break with it.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What one stream's queue may hold in messages.
const STREAM_BYTES: usize = 1024 * 1024;

/// What the queues of all streams of one client may hold together.
const CLIENT_BYTES: usize = 8 * 1024 * 1024;

/// What a queued message takes besides its text, about.
const OVERHEAD: usize = 64;

/// Messages and gaps that one queue may hold before gaps are joined.
const ITEMS: usize = 4096;

/// Requests and answers that are kept after they were sent.
const KEPT: usize = 256;
const KEPT_BYTES: usize = 1024 * 1024;

/// Where a client is in a stream, the `id:` of its last event: the number of the
/// last update, and how many other messages came after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub seq: i64,
    pub others: u64,
}

/// The room that all streams of one client share.
#[derive(Debug, Default)]
pub struct Budget {
    held: AtomicUsize,
    freed: Notify,
}

/// One stream's way out. There is one receiver at a time, the last that asked.
#[derive(Debug)]
pub struct Outgoing {
    queue: Mutex<Queue>,
    changed: Notify,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of the messages in it, with their overhead.
    bytes: usize,
    /// What was sent last.
    position: Position,
    /// What was sent and has no number, with its place.
    kept: VecDeque<(Position, Arc<str>)>,
    kept_bytes: usize,
    /// The number of the receiver that counts, if there is one.
    receiver: Option<u64>,
    receivers: u64,
    is_over: bool,
    /// A client that comes back on another connection reads up to this number from
    /// the database, before the session is told that it follows.
    read_ahead: Option<i64>,
}

#[derive(Debug)]
enum Item {
    Update {
        seq: i64,
        text: Arc<str>,
    },
    Other(Arc<str>),
    /// Updates with numbers above `after`, up to `last`, are in the database.
    Stored {
        after: i64,
        last: i64,
    },
}

/// What is to be sent next.
#[derive(Debug)]
pub enum Next {
    Message(Position, Arc<str>),
    /// To be read from the database; see [`Receiver::sent`] and [`Receiver::read`].
    Stored {
        after: i64,
        last: i64,
    },
}

/// The right to send what is queued.
#[derive(Debug)]
pub struct Receiver {
    outgoing: Arc<Outgoing>,
    number: u64,
}

impl Budget {
    /// What all streams hold, in bytes.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_one();
    }
}

impl Outgoing {
    pub fn new(budget: &Arc<Budget>) -> Arc<Outgoing> {
        Arc::new(Outgoing {
            queue: Mutex::default(),
            changed: Notify::new(),
            budget: Arc::clone(budget),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an update that is in the database. Never waits.
    pub fn push_update(&self, seq: i64, text: &str) {
        let mut queue = self.lock();
        if let Some(read) = queue.read_ahead {
            if seq <= read {
                return;
            }
            queue.read_ahead = None;
            queue.push_stored(read, seq - 1);
        }
        let bytes = text.len() + OVERHEAD;
        let fits =
            queue.bytes + bytes <= STREAM_BYTES && self.budget.held() + bytes <= CLIENT_BYTES;
        if fits {
            queue.bytes += bytes;
            self.budget.take(bytes);
            let text = text.into();
            queue.items.push_back(Item::Update { seq, text });
        } else {
            queue.push_stored(seq - 1, seq);
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Queues anything else, once there is room. One at a time may wait. Safe to drop
    /// while it waits.
    pub async fn push(&self, text: &str) {
        let bytes = text.len() + OVERHEAD;
        loop {
            let held = self.budget.held();
            // Twice as much as for updates, which shall not keep answers waiting.
            if held == 0 || held + bytes <= 2 * CLIENT_BYTES {
                break;
            }
            self.budget.freed.notified().await;
        }
        self.budget.take(bytes);
        let mut queue = self.lock();
        if queue.is_over {
            self.budget.give_back(bytes);
            return;
        }
        queue.bytes += bytes;
        queue.items.push_back(Item::Other(text.into()));
        drop(queue);
        self.changed.notify_one();
    }

    /// Lets a receiver have what is queued and what will be. `None` if there is one
    /// already, unless `from` tells where this one's last stream broke: then that one
    /// ends, and what came after `from` is sent again.
    ///
    /// `stored` is the number of the last event in the database.
    pub fn receive(self: &Arc<Self>, from: Option<Position>, stored: i64) -> Option<Receiver> {
        let mut queue = self.lock();
        if queue.receiver.is_some() && from.is_none() {
            return None;
        }
        if let Some(from) = from {
            let before = queue.bytes;
            queue.resume(from, stored);
            match before.checked_sub(queue.bytes) {
                Some(freed) => self.budget.give_back(freed),
                None => self.budget.take(queue.bytes - before),
            }
        }
        queue.receivers += 1;
        let number = queue.receivers;
        queue.receiver = Some(number);
        drop(queue);
        self.changed.notify_waiters();
        self.changed.notify_one();
        Some(Receiver {
            outgoing: Arc::clone(self),
            number,
        })
    }

    /// The client has its session told anew from the beginning.
    pub fn told_anew(&self) {
        self.lock().read_ahead = None;
    }

    /// The session is followed from behind this number on.
    pub fn followed_from(&self, seq: i64) {
        let mut queue = self.lock();
        if let Some(read) = queue.read_ahead
            && read < seq
        {
            queue.read_ahead = Some(seq);
            queue.push_stored(read, seq);
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Nothing more will come. What is queued may still be sent.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether nobody listens and nothing is lost with it.
    pub fn is_vacant(&self) -> bool {
        let queue = self.lock();
        queue.receiver.is_none() && queue.items.is_empty()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.give_back(bytes);
    }
}

impl Queue {
    fn push_stored(&mut self, after: i64, last: i64) {
        if last <= after {
            return;
        }
        // Between numbers that do not follow each other is what was not for this client,
        // such as its own prompts; if there is too much of that, it is told of them.
        let is_full = self.items.len() >= ITEMS;
        match self.items.back_mut() {
            Some(Item::Stored { last: end, .. }) if *end == after || is_full => {
                *end = last.max(*end);
            }
            _ => self.items.push_back(Item::Stored { after, last }),
        }
    }

    /// Puts in front what a client at `from` has not seen.
    fn resume(&mut self, from: Position, stored: i64) {
        let sent = std::mem::replace(&mut self.position, from);
        if from.seq > sent.seq {
            // It saw more than was sent here: it had another connection.
            let mut bytes = self.bytes;
            self.items.retain(|item| match item {
                Item::Update { seq, text } if *seq <= stored => {
                    bytes -= text.len() + OVERHEAD;
                    false
                }
                Item::Stored { last, .. } => *last > stored,
                _ => true,
            });
            self.bytes = bytes;
            self.items.push_front(Item::Stored {
                after: from.seq,
                last: stored,
            });
            self.read_ahead = Some(stored.max(from.seq));
            return;
        }
        let mut again = Vec::new();
        let mut seq = from.seq;
        for (at, text) in std::mem::take(&mut self.kept) {
            if at > from {
                if at.seq > seq {
                    let (after, last) = (seq, at.seq);
                    again.push(Item::Stored { after, last });
                    seq = at.seq;
                }
                again.push(Item::Other(text));
            } else {
                self.kept.push_back((at, text));
            }
        }
        if sent.seq > seq {
            let (after, last) = (seq, sent.seq);
            again.push(Item::Stored { after, last });
        }
        let kept = self.kept.iter().map(|(_, text)| text.len());
        self.kept_bytes = kept.sum();
        for item in again.into_iter().rev() {
            if let Item::Other(text) = &item {
                self.bytes += text.len() + OVERHEAD;
            }
            self.items.push_front(item);
        }
    }

    fn keep(&mut self, text: &Arc<str>) {
        self.kept_bytes += text.len();
        self.kept.push_back((self.position, Arc::clone(text)));
        while self.kept.len() > KEPT || self.kept_bytes > KEPT_BYTES {
            let Some((_, text)) = self.kept.pop_front() else {
                break;
            };
            self.kept_bytes -= text.len();
        }
    }

    fn moved_to(&mut self, seq: i64) {
        if seq < self.position.seq {
            // The session is told anew, and numbers begin again: what was kept has
            // no place among them.
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.position = Position { seq, others: 0 };
    }
}

impl Receiver {
    /// Waits for what is next; `None` at the end, or once another one receives. Safe
    /// to drop while it waits.
    pub async fn next(&self) -> Option<Next> {
        loop {
            let changed = self.outgoing.changed.notified();
            {
                let mut queue = self.outgoing.lock();
                if queue.receiver != Some(self.number) {
                    return None;
                }
                match queue.items.front() {
                    Some(&Item::Stored { after, last }) => {
                        return Some(Next::Stored { after, last });
                    }
                    Some(_) => return self.take(&mut queue),
                    None if queue.is_over => return None,
                    None => {}
                }
            }
            changed.await;
        }
    }

    fn take(&self, queue: &mut Queue) -> Option<Next> {
        let text = match queue.items.pop_front()? {
            Item::Update { seq, text } => {
                queue.moved_to(seq);
                text
            }
            Item::Other(text) => {
                queue.position.others += 1;
                queue.keep(&text);
                text
            }
            Item::Stored { after, last } => return Some(Next::Stored { after, last }),
        };
        let bytes = text.len() + OVERHEAD;
        queue.bytes -= bytes;
        self.outgoing.budget.give_back(bytes);
        Some(Next::Message(queue.position, text))
    }

    /// An update from the database was sent, and all others of its number. `false`
    /// if another one receives.
    pub fn sent(&self, seq: i64) -> bool {
        let mut queue = self.outgoing.lock();
        if queue.receiver != Some(self.number) {
            return false;
        }
        queue.moved_to(seq);
        if let Some(Item::Stored { after, .. }) = queue.items.front_mut() {
            *after = seq;
        }
        true
    }

    /// All updates up to this number were read from the database.
    pub fn read(&self, seq: i64) {
        let mut queue = self.outgoing.lock();
        if queue.receiver == Some(self.number)
            && let Some(Item::Stored { after, last }) = queue.items.front_mut()
        {
            *after = seq;
            if *last <= seq {
                queue.items.pop_front();
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut queue = self.outgoing.lock();
        if queue.receiver == Some(self.number) {
            queue.receiver = None;
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.others {
            0 => write!(formatter, "{}", self.seq),
            others => write!(formatter, "{}.{others}", self.seq),
        }
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Position, Self::Err> {
        let (seq, others) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Position {
            seq: seq.parse::<i64>()?.max(0),
            others: others.parse()?,
        })
    }
}
