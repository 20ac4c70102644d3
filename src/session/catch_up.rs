//! A client that lags behind reads the transcript, page by page, until it has all
//! of it; from there on it is sent what comes. What was kept for it alone is put
//! in between, behind the events behind which it belongs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::Client;
use super::live::Live;
use super::replay::{self, Reading};
use crate::acp::Failure;
use crate::rpc::connection::Refused;
use crate::transcript::Shown;

/// How long a transcript that cannot be read is tried again for, and how often:
/// what is wrong with a disk may pass.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How far a client is that does not keep up.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Which of a client's lags this is: only one is worked on.
    number: u64,
    /// The last event that it has.
    cursor: i64,
    /// Up to here events are replayed, as to one that was not there.
    replay_until: i64,
    /// Framed messages for it alone, each with the event behind which it belongs.
    kept: VecDeque<(i64, Vec<u8>)>,
    kept_bytes: usize,
}

impl Lag {
    pub(super) fn new(number: u64, cursor: i64) -> Lag {
        Lag {
            number,
            cursor,
            ..Lag::default()
        }
    }

    pub(super) fn renumber(&mut self, number: u64) {
        self.number = number;
    }

    pub(super) fn keep(&mut self, behind: i64, bytes: Vec<u8>) {
        self.kept_bytes += bytes.len();
        self.kept.push_back((behind, bytes));
    }

    pub(super) fn cursor(&self) -> i64 {
        self.cursor
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    pub(super) fn has_many(&self) -> bool {
        self.kept.len() > 1
    }

    /// What belongs behind events up to `until`.
    fn take(&mut self, until: i64) -> VecDeque<(i64, Vec<u8>)> {
        let count = self.kept.partition_point(|(behind, _)| *behind <= until);
        let taken: VecDeque<_> = self.kept.drain(..count).collect();
        self.kept_bytes -= taken.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        taken
    }

    fn put_back(&mut self, own: VecDeque<(i64, Vec<u8>)>) {
        for (behind, bytes) in own.into_iter().rev() {
            self.kept_bytes += bytes.len();
            self.kept.push_front((behind, bytes));
        }
    }
}

/// A client that lags behind. If this is dropped before it has caught up, it
/// follows no more.
pub(super) struct Behind {
    live: Arc<Live>,
    client: Arc<Client>,
    number: u64,
    is_done: bool,
}

/// Where a client is, as its state says now.
struct Position {
    cursor: i64,
    replay_until: i64,
    own_events: Vec<i64>,
    /// The last event that there is for it.
    last: i64,
}

impl Behind {
    /// The lag that a client has in a session.
    pub(super) fn of(live: Arc<Live>, client: &Arc<Client>) -> Behind {
        let number = live.state().lag(client).map_or(0, |lag| lag.number);
        client.begin_to_lag();
        Behind {
            live,
            client: Arc::clone(client),
            number,
            is_done: false,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Says from where it reads, up to where that is a replay, and what it gets
    /// alone behind that.
    pub(super) fn set_out(&self, cursor: i64, replay_until: i64, lines: &[String]) {
        let framing = self.client.outbox.framing();
        let mut state = self.live.state();
        let Some(lag) = state.lag(&self.client) else {
            return;
        };
        lag.cursor = cursor;
        lag.replay_until = replay_until;
        for line in lines {
            let mut bytes = Vec::with_capacity(line.len() + 32);
            framing.encode(&[line], &mut bytes);
            lag.keep(replay_until, bytes);
        }
    }

    /// [`Behind::run`] in a task of its own. A client that cannot be given what it
    /// lacks is let go.
    pub(super) fn run_aside(self) {
        tokio::spawn(async move {
            let client = Arc::clone(&self.client);
            if let Err(failure) = self.run().await {
                client.let_go(&failure);
            }
        });
    }

    /// Sends the client what it lacks, until it keeps up, is gone, or has all of a
    /// session that ended.
    ///
    /// # Errors
    /// When the transcript cannot be read, for so long that nobody would wait. The
    /// client follows no more then.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let turnstile = self.client.turnstile(&self.live.id);
        // Of an earlier agent of the same session, or an earlier lag.
        let _turn = turnstile.lock().await;
        let mut pause = FIRST_PAUSE;
        let mut failing: Option<(Instant, i64)> = None;
        while let Err(failure) = self.go_on().await {
            let cursor = self.position().map_or(0, |at| at.cursor);
            // Since it got anything.
            let since = match failing {
                Some((since, before)) if before == cursor => since,
                _ => {
                    pause = FIRST_PAUSE;
                    Instant::now()
                }
            };
            failing = Some((since, cursor));
            if since.elapsed() > PATIENCE {
                return Err(failure);
            }
            tracing::debug!(%failure, "what a client lacks cannot be read for now");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.client.outbox.closed() => return Err(failure),
            }
        }
        self.is_done = true;
        Ok(())
    }

    /// [`Behind::run`] up to the first error, after which it can be called again.
    async fn go_on(&self) -> Result<(), Failure> {
        let mut shown = None;
        let mut is_replay = None;
        while let Some(at) = self.position() {
            let replays = at.cursor < at.replay_until;
            if is_replay.replace(replays) != Some(replays) || shown.is_none() {
                shown = Some(self.shown(&at, replays).await?);
            }
            let Some(now) = shown.take() else { break };
            let target = match replays {
                true => at.replay_until,
                false => at.last,
            };
            let (next, has_joined) = match at.cursor < target {
                true => {
                    let (next, bytes) = self.page(now, at.cursor, target).await?;
                    self.send(bytes).await;
                    (next, false)
                }
                false => self.join(now).await?,
            };
            if has_joined {
                break;
            }
            shown = Some(next);
        }
        Ok(())
    }

    /// `None` once this lag is over.
    fn position(&self) -> Option<Position> {
        let mut state = self.live.state();
        let last = state.stored;
        let own_events = state.own_events(&self.client);
        let lag = state.lag(&self.client)?;
        (lag.number == self.number).then_some(Position {
            cursor: lag.cursor,
            replay_until: lag.replay_until,
            own_events,
            last,
        })
    }

    async fn shown(&self, at: &Position, is_replay: bool) -> Result<Shown, Failure> {
        let framing = self.client.outbox.framing();
        let own = at.own_events.clone();
        match is_replay {
            true => {
                let shown = Shown::new(&self.live.id, framing);
                replay::look_back(&self.live.store, &self.live.id, shown, at.cursor).await
            }
            false => Ok(Shown::live(&self.live.id, framing, own)),
        }
    }

    /// Reads a page, and moves the client behind it.
    async fn page(
        &self,
        mut shown: Shown,
        after: i64,
        until: i64,
    ) -> Result<(Shown, Vec<u8>), Failure> {
        let own = {
            let mut state = self.live.state();
            // Turns up to `until` may have begun since the last page.
            shown.set_own(state.own_events(&self.client));
            state
                .lag(&self.client)
                .map(|lag| lag.take(until))
                .unwrap_or_default()
        };
        let reading = Reading {
            shown,
            own: own.clone(),
            after,
            until,
        };
        let read = replay::read(&self.live.store, &self.live.id, reading).await;
        let mut reading = read.inspect_err(|_| {
            if let Some(lag) = self.live.state().lag(&self.client) {
                lag.put_back(own);
            }
        })?;
        reading.show_own(reading.after + 1);
        if let Some(lag) = self.live.state().lag(&self.client) {
            // Also for a lag that began meanwhile: nobody else has these messages.
            lag.put_back(std::mem::take(&mut reading.own));
            if lag.number == self.number {
                lag.cursor = reading.after;
            }
        }
        let bytes = reading.shown.take();
        Ok((reading.shown, bytes))
    }

    async fn send(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() && self.client.outbox.send_encoded(bytes).await.is_err() {
            self.live.detach(&self.client);
        }
    }

    /// Lets the client have what comes, if it can be given all the rest at once.
    async fn join(&self, shown: Shown) -> Result<(Shown, bool), Failure> {
        let order = self.live.order().await;
        // If that fails the session ends, which is told to this client too.
        let _ = self.live.flush().await;
        let Some(at) = self.position() else {
            return Ok((shown, true));
        };
        let target = at.last;
        let (shown, bytes) = self.page(shown, at.cursor, target).await?;
        let is_all = self.position().is_none_or(|at| at.cursor >= target);
        let mut bytes = bytes;
        if is_all && let Some(lag) = self.live.state().lag(&self.client) {
            // Also what belongs behind events that could not be stored.
            for (_, own) in lag.take(i64::MAX) {
                bytes.extend_from_slice(&own);
            }
        }
        if !is_all {
            drop(order);
            self.send(bytes).await;
            return Ok((shown, false));
        }
        match self.client.outbox.try_room(bytes.len()) {
            Ok(room) => {
                if !bytes.is_empty() {
                    room.send_encoded(bytes);
                }
                self.live.state().keep_up(&self.client, target);
                self.live.readers.notify_waiters();
                Ok((shown, true))
            }
            Err(Refused::Closed) => {
                self.live.detach(&self.client);
                Ok((shown, true))
            }
            Err(Refused::Full) => {
                drop(order);
                self.send(bytes).await;
                Ok((shown, false))
            }
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.client.end_to_lag();
        if !self.is_done {
            let is_this = {
                let mut state = self.live.state();
                let lag = state.lag(&self.client);
                lag.is_some_and(|lag| lag.number == self.number)
            };
            if is_this {
                self.live.detach(&self.client);
            }
        }
    }
}
