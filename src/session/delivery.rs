//! How messages get to the clients of a session: at once to those who keep up.
//! One that has no room while another has falls behind, and `catch_up`
//! brings it back; if none has room, the session waits for the first.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::select_all;

use super::catch_up::Behind;
use super::client::Client;
use super::live::Live;
use super::state::{After, Batch, QueuedPrompt, State};
use crate::acp::extension::{TurnStart, UpdateMeta};
use crate::acp::methods;
use crate::rpc::connection::Refused;
use crate::transcript::prompt_lines;

/// Answers and requests that are kept for a client that lags behind, in bytes;
/// one that is longer is kept alone. A client for which there are more is let go.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// What one batch has for one client, framed.
pub struct Outgoing {
    pub client: Arc<Client>,
    bytes: Vec<u8>,
    /// The parts that are for this client alone, each with the number of the event
    /// behind which it belongs. All else can be read in the transcript.
    own: Vec<(Range<usize>, i64)>,
}

/// How many wait for something; who gives up waiting is not counted any more.
#[derive(Debug, Default)]
pub(super) struct Wanting(AtomicUsize);

pub(super) struct Counted<'a>(&'a Wanting);

impl Wanting {
    pub(super) fn count(&self) -> Counted<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A prompt whose turn began, for those who did not send it.
#[derive(Debug)]
pub struct Started {
    seq: i64,
    askers: Vec<Arc<Client>>,
    lines: Vec<String>,
}

impl Batch {
    /// Queues one message that is for this client alone, in pieces.
    pub fn send(&mut self, client: &Arc<Client>, parts: &[&str]) {
        let behind = self.through;
        let outgoing = self.outgoing(client);
        let start = outgoing.bytes.len();
        client.outbox.framing().encode(parts, &mut outgoing.bytes);
        outgoing.own.push((start..outgoing.bytes.len(), behind));
    }

    /// Queues one message of the transcript's for a client that keeps up.
    pub fn show(&mut self, client: &Arc<Client>, parts: &[&str]) {
        let outgoing = self.outgoing(client);
        client.outbox.framing().encode(parts, &mut outgoing.bytes);
    }

    fn outgoing(&mut self, client: &Arc<Client>) -> &mut Outgoing {
        let known = self
            .sends
            .iter()
            .rposition(|send| Arc::ptr_eq(&send.client, client));
        let at = known.unwrap_or_else(|| {
            self.sends.push(Outgoing {
                client: Arc::clone(client),
                bytes: Vec::new(),
                own: Vec::new(),
            });
            self.sends.len() - 1
        });
        &mut self.sends[at]
    }
}

impl Outgoing {
    fn into_own(self) -> impl Iterator<Item = (i64, Vec<u8>)> {
        let Outgoing { bytes, own, .. } = self;
        let own = own.into_iter();
        own.map(move |(range, behind)| (behind, bytes[range].to_vec()))
    }
}

impl State {
    /// Records where the turn of a prompt begins, if others than those who sent it
    /// follow, or if it had to wait: it is there that a prompt is shown.
    pub fn tell_start(&mut self, batch: &mut Batch, prompt: &QueuedPrompt) {
        let askers: Vec<Arc<Client>> = prompt.askers.iter().map(|it| it.client.clone()).collect();
        let is_asker = |client: &Arc<Client>| askers.iter().any(|it| Arc::ptr_eq(it, client));
        let mut others = self.clients.iter().filter(|it| !is_asker(&it.client));
        let is_shared = others.next().is_some();
        if !is_shared && self.next_seq == prompt.seq + 1 {
            return;
        }
        let from = askers.first().and_then(|client| client.offer().name());
        let start = TurnStart {
            session_id: self.session.to_string(),
            prompt_seq: prompt.seq,
            from: from.clone(),
        };
        let seq = self.next_seq;
        self.record_own(batch, methods::TURN_START, &start);
        let shown = self.shown;
        for attached in &mut self.clients {
            if is_asker(&attached.client) {
                attached.note_own(seq, shown);
            }
        }
        if is_shared {
            let meta = UpdateMeta {
                from,
                key: prompt.key.as_deref().map(Into::into),
                ..UpdateMeta::of(seq)
            };
            let lines = prompt_lines(&self.session, &prompt.text, &meta);
            self.started.push(Started { seq, askers, lines });
        }
    }

    /// Shows the prompts whose turns began to all who follow but did not send them.
    pub fn show_started(&mut self, batch: &mut Batch) {
        for started in std::mem::take(&mut self.started) {
            for attached in &self.clients {
                let is_asker = started
                    .askers
                    .iter()
                    .any(|asker| Arc::ptr_eq(asker, &attached.client));
                if !is_asker && attached.is_due(started.seq) {
                    for line in &started.lines {
                        batch.show(&attached.client, &[line]);
                    }
                }
            }
        }
    }
}

impl Live {
    /// Sends what a batch has for clients, and replies to acpbox's own requests.
    pub(super) async fn deliver(&self, batch: &mut Batch) {
        self.send_out(std::mem::take(&mut batch.sends), batch.through)
            .await;
        for next in std::mem::take(&mut batch.after) {
            match next {
                After::Reply(reply, outcome) => drop(reply.send(outcome)),
                other => batch.after.push(other),
            }
        }
    }

    /// Sends what a batch has for each client. `through` is its last event. The
    /// order must be held.
    pub(super) async fn send_out(&self, sends: Vec<Outgoing>, through: i64) {
        let is_stored = self.state().is_stored;
        let mut slow = Vec::new();
        for send in sends {
            let Some(send) = self.keep_for_later(send) else {
                continue;
            };
            if !is_stored {
                // It could not be read again.
                self.send_waiting(send).await;
                continue;
            }
            match send.client.outbox.try_room(send.bytes.len()) {
                Ok(room) => room.send_encoded(send.bytes),
                Err(Refused::Closed) => self.detach(&send.client),
                Err(Refused::Full) => slow.push(send),
            }
        }
        if !slow.is_empty() {
            self.send_to_slow(slow).await;
        }
        let mut state = self.state();
        state.shown = state.shown.max(through);
    }

    /// Waits for the first that has room, unless somebody else keeps up. The others
    /// fall behind.
    async fn send_to_slow(&self, mut slow: Vec<Outgoing>) {
        loop {
            let others_keep_up = {
                let state = self.state();
                let is_slow = |client| slow.iter().any(|it| Arc::ptr_eq(&it.client, client));
                let mut clients = state.clients.iter();
                clients.any(|it| it.is_reading() && !is_slow(&it.client))
            };
            if others_keep_up || slow.is_empty() || self.wanting.is_any() {
                break;
            }
            let rooms = slow
                .iter()
                .map(|send| Box::pin(send.client.outbox.room(send.bytes.len())));
            let (room, at) = tokio::select! {
                biased;
                (room, at, _) = select_all(rooms) => (room, at),
                // Somebody came, who may have been let in by now.
                () = self.make_way.notified() => continue,
                () = self.unheard.cancelled() => {
                    for send in &slow {
                        self.detach(&send.client);
                    }
                    return;
                }
            };
            let send = slow.remove(at);
            match room {
                Ok(room) => {
                    room.send_encoded(send.bytes);
                    break;
                }
                Err(_) => self.detach(&send.client),
            }
        }
        for send in slow {
            match send.client.outbox.try_room(send.bytes.len()) {
                Ok(room) => room.send_encoded(send.bytes),
                Err(Refused::Closed) => self.detach(&send.client),
                Err(Refused::Full) => {
                    if let Some(send) = self.fall_behind(send) {
                        self.send_waiting(send).await;
                    }
                }
            }
        }
    }

    async fn send_waiting(&self, send: Outgoing) {
        let is_sent = tokio::select! {
            biased;
            sent = send.client.outbox.send_encoded(send.bytes) => sent.is_ok(),
            () = self.unheard.cancelled() => false,
        };
        if !is_sent {
            self.detach(&send.client);
        }
    }

    /// From here on a client reads the transcript until it has all of it. Hands
    /// back what is for one that does not follow.
    fn fall_behind(&self, send: Outgoing) -> Option<Outgoing> {
        let client = Arc::clone(&send.client);
        let Some(live) = self.this.upgrade() else {
            return Some(send);
        };
        {
            let mut state = self.state();
            let shown = state.shown;
            let Some(attached) = state.attached(&client) else {
                return Some(send);
            };
            let lag = attached.fall_behind(shown);
            for (behind, bytes) in send.into_own() {
                lag.keep(behind, bytes);
            }
        }
        tracing::debug!(session = &*self.id, "a client does not keep up");
        Behind::of(live, &client).run_aside();
        None
    }

    /// Keeps a lagging client's own messages until it is there. Hands back what is
    /// for one that keeps up.
    fn keep_for_later(&self, send: Outgoing) -> Option<Outgoing> {
        let client = Arc::clone(&send.client);
        let mut state = self.state();
        let Some(lag) = state.lag(&client) else {
            return Some(send);
        };
        for (behind, bytes) in send.into_own() {
            lag.keep(behind, bytes);
        }
        if lag.kept_bytes() > KEPT_BYTES && lag.has_many() {
            drop(state);
            tracing::warn!(
                session = &*self.id,
                "a client is let go: it does not read, and {KEPT_BYTES} bytes of answers wait for it"
            );
            client.unfit.cancel();
            self.detach(&client);
        }
        None
    }

    /// Waits while clients follow and every one of them lags behind: that slows
    /// the agent, which only the first would.
    pub(super) async fn await_a_reader(&self) {
        loop {
            let mut changed = std::pin::pin!(self.readers.notified());
            changed.as_mut().enable();
            {
                let state = self.state();
                let mut there = state.clients.iter().filter(|it| it.is_there()).peekable();
                if !state.is_stored || there.peek().is_none() || there.any(|it| it.is_live()) {
                    return;
                }
            }
            tokio::select! {
                () = changed => {}
                () = self.unheard.cancelled() => return,
            }
        }
    }
}
