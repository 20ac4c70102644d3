//! Both ways between a client and a server, over one connection after another.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::book::{Book, Defaults, Passing};
use super::link::{Link, NoLink};
use super::place::Place;
use super::spawn::Spawn;
use crate::acp::failure::{INTERNAL_ERROR, INVALID_REQUEST};
use crate::acp::{Failure, Phase};
use crate::cli::output;
use crate::config::Config;
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::message::{self, Body, Message};
use crate::rpc::{BatchReader, Limits, Outbox, OutboxClosed, write_loop};

/// What one read of the client brought, so many times, may wait.
const BATCHES: usize = 4;

/// Between attempts to reach a server: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a client that sends nothing more is looked for.
const GONE_CHECK: Duration = Duration::from_millis(25);

/// How long what the client is owed may take to be read.
const FAREWELL: Duration = Duration::from_secs(10);
const SHORT_FAREWELL: Duration = Duration::from_millis(500);

pub(in crate::cli) struct Shim {
    pub(super) place: Place,
    spawn: Option<Spawn>,
    limits: Limits,
    /// How long a server that went may stay away.
    patience: Duration,
    book: Mutex<Book>,
}

/// What the client sends, in order.
struct FromClient {
    batches: mpsc::Receiver<Vec<Frame>>,
    batch: VecDeque<Frame>,
    is_over: bool,
}

/// How the work ended.
enum Ending {
    /// The client sends nothing more and has all its answers.
    Done,
    Gone,
}

impl Shim {
    pub(super) fn new(
        place: Place,
        spawn: Option<Spawn>,
        config: &Config,
        defaults: Defaults,
    ) -> Shim {
        Shim {
            place,
            spawn,
            limits: Limits {
                line_bytes: config.limits.line_bytes,
                depth: config.limits.depth,
            },
            patience: config.server.reconnect_timeout,
            book: Mutex::new(Book::new(defaults, config.limits.line_bytes)),
        }
    }

    /// Serves a client until it is done, gone, or `shutdown` is cancelled. What it
    /// began lives on in the server. `is_gone` tells whether a client that sends
    /// nothing more still listens.
    pub(in crate::cli) async fn serve<R, W>(
        &self,
        link: Link,
        input: R,
        output: W,
        shutdown: CancellationToken,
        is_gone: impl Fn() -> bool,
    ) where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (client, queue) = Outbox::new();
        let mut writing = tokio::spawn(write_loop(queue, output));
        let (sender, batches) = mpsc::channel(BATCHES);
        let silent = CancellationToken::new();
        let reading = read_all(
            BatchReader::new(input, Decoder::detecting(self.limits.line_bytes)),
            client.clone(),
            sender,
            silent.clone(),
        );
        let reading = tokio::spawn(reading);
        let from_client = FromClient {
            batches,
            batch: VecDeque::new(),
            is_over: false,
        };
        let gone = async {
            silent.cancelled().await;
            while !is_gone() {
                tokio::time::sleep(GONE_CHECK).await;
            }
        };
        let patience = tokio::select! {
            ending = self.work(link, from_client, &client) => match ending {
                Ending::Done => FAREWELL,
                Ending::Gone => Duration::ZERO,
            },
            () = shutdown.cancelled() => SHORT_FAREWELL,
            () = client.closed() => Duration::ZERO,
            () = gone => Duration::ZERO,
        };
        reading.abort();
        let _ = reading.await;
        drop(client);
        let _ = tokio::time::timeout(patience, &mut writing).await;
        writing.abort();
    }

    async fn work(&self, mut link: Link, mut from_client: FromClient, client: &Outbox) -> Ending {
        loop {
            {
                let Link {
                    reader,
                    outbox,
                    first,
                    ..
                } = &mut link;
                let first = std::mem::take(first);
                // The server alone ends a connection: what it said last is still heard.
                tokio::select! {
                    never = self.upward(outbox, first, &mut from_client, client) => match never {},
                    ending = self.downward(reader, client) => if let Some(ending) = ending {
                        return ending;
                    },
                }
            }
            if from_client.is_over && self.book().owes_nothing() {
                link.close().await;
                return Ending::Done;
            }
            if self.withdraw(client).await.is_err() {
                return Ending::Gone;
            }
            tracing::warn!("the connection to the server is lost");
            let instance = std::mem::take(&mut link.info.instance);
            drop(link);
            match self
                .connect_again(&instance, &mut from_client, client)
                .await
            {
                Ok(found) => link = found,
                Err(ending) => return ending,
            }
        }
    }

    /// A connection is lost: whom it asked need not answer, and the next one counts anew.
    async fn withdraw(&self, client: &Outbox) -> Result<(), OutboxClosed> {
        let withdrawn = self.book().lost();
        for line in withdrawn {
            client.send(&line).await?;
        }
        Ok(())
    }

    /// From the client to the server, until the connection is dropped. `first`
    /// comes before all else, and is remembered already.
    async fn upward(
        &self,
        outbox: &mut Option<Outbox>,
        first: Vec<String>,
        from_client: &mut FromClient,
        client: &Outbox,
    ) -> Infallible {
        if let Some(outbox) = outbox.as_ref() {
            for line in first {
                if outbox.send(&line).await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
        while let Some(frame) = from_client.next().await {
            let Some(line) = self.taken(frame, client).await else {
                continue;
            };
            let Some(outbox) = outbox.as_ref() else { break };
            let mut framed = Vec::with_capacity(line.len() + 1);
            framed.extend_from_slice(&line);
            framed.push(b'\n');
            if outbox.send_encoded(framed).await.is_err() {
                self.book().is_unsent(&line);
                // The next connection takes what follows.
                return std::future::pending().await;
            }
        }
        // The server goes on until it has answered all.
        *outbox = None;
        std::future::pending().await
    }

    /// What is to be sent for a frame of the client's.
    async fn taken(&self, frame: Frame, client: &Outbox) -> Option<Bytes> {
        let line = match frame {
            Frame::Message(line) => line,
            Frame::TooLong { bytes } => {
                let limit = self.limits.line_bytes;
                let what = format!(
                    "Invalid Request: a message of {bytes} bytes is over the limit of {limit} (limits.line_bytes)"
                );
                complain(client, INVALID_REQUEST, what).await;
                return None;
            }
            Frame::Broken(why) => {
                complain(client, -32700, format!("Parse error: {why}")).await;
                return None;
            }
        };
        let passing = self.book().client_said(&line, self.limits.depth);
        match passing {
            Passing::AsItIs => Some(line),
            Passing::As(text) => Some(text.into()),
            Passing::Nowhere => None,
            Passing::Back(answer) => {
                let _ = client.send(&answer).await;
                None
            }
        }
    }

    /// From the server to the client, until the connection ends.
    async fn downward<R: AsyncRead + Unpin>(
        &self,
        reader: &mut BatchReader<R>,
        client: &Outbox,
    ) -> Option<Ending> {
        let mut frames = Vec::new();
        while matches!(reader.read(&mut frames).await, Ok(true)) {
            for frame in frames.drain(..) {
                let Frame::Message(line) = frame else {
                    continue;
                };
                if self.pass_down(&line, client).await.is_err() {
                    return Some(Ending::Gone);
                }
            }
        }
        None
    }

    pub(super) async fn pass_down(&self, line: &[u8], client: &Outbox) -> Result<(), OutboxClosed> {
        let Ok(text) = std::str::from_utf8(line) else {
            tracing::warn!("a message of the server's is not UTF-8");
            return Ok(());
        };
        let passing = self.book().server_said(text);
        match &passing {
            Passing::AsItIs => client.send(text).await,
            Passing::As(text) => client.send(text).await,
            Passing::Nowhere | Passing::Back(_) => Ok(()),
        }
    }

    /// Finds a server again and takes up everything with it. Where none comes
    /// back in time the client is told, and one is looked for all the same.
    async fn connect_again(
        &self,
        instance: &str,
        from_client: &mut FromClient,
        client: &Outbox,
    ) -> Result<Link, Ending> {
        let lost = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut given_up = None;
        let mut spawned = None;
        let mut is_in_vain = false;
        loop {
            let why = match self.attempt(instance, client).await {
                Ok(link) => return Ok(link),
                Err(NoLink::Nobody) => {
                    self.start_server(&mut spawned);
                    NoLink::Nobody.to_string()
                }
                // Nothing would change by waiting.
                Err(NoLink::Incompatible(why)) => {
                    is_in_vain = true;
                    why
                }
                Err(NoLink::Unusable(why) | NoLink::Leaving(why)) => why,
            };
            if given_up.is_none() && (is_in_vain || lost.elapsed() >= self.patience) {
                let failure = match is_in_vain {
                    true => Failure::new(Phase::Request, INTERNAL_ERROR, why),
                    false => self.away(&why),
                };
                output::say(&failure.to_string());
                let lines = self.book().refuse_all(&failure);
                for line in lines {
                    client.send(&line).await.map_err(|_| Ending::Gone)?;
                }
                given_up = Some(failure);
            }
            if from_client.is_at_end() && self.book().owes_nothing() {
                return Err(Ending::Done);
            }
            let wait = tokio::time::sleep(pause);
            match &given_up {
                None => wait.await,
                Some(_) if from_client.is_over => return Err(Ending::Done),
                Some(failure) => tokio::select! {
                    () = wait => {}
                    () = refuse(failure, self.limits.depth, from_client, client) => {}
                },
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, instance: &str, client: &Outbox) -> Result<Link, NoLink> {
        let initialize = self.book().initialize();
        let mut link = Link::open(&self.place.socket, initialize.as_deref()).await?;
        if let Some(why) = self.place.objection(&link.info) {
            return Err(NoLink::Unusable(why));
        }
        if let Some(why) = self.place.objection_to_version(&link.info) {
            return Err(NoLink::Incompatible(why));
        }
        if let Some(note) = self.place.note_on_version(&link.info) {
            tracing::warn!("{note}");
        }
        let is_another = link.info.instance != instance;
        if let Err(why) = self.take_up(&mut link, is_another, client).await {
            // Something may have been asked on it already. That the client is gone is
            // noticed by whoever serves it.
            let _ = self.withdraw(client).await;
            return Err(why);
        }
        tracing::warn!(is_another, "connected to the server again");
        Ok(link)
    }

    fn start_server(&self, spawned: &mut Option<tokio::process::Child>) {
        let Some(spawn) = &self.spawn else { return };
        let runs = (spawned.as_mut()).is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !runs {
            match spawn.start(&spawn.log()) {
                Ok(child) => *spawned = Some(child),
                Err(error) => tracing::warn!(%error, "a server could not be started"),
            }
        }
    }

    fn away(&self, why: &str) -> Failure {
        let what = format!(
            "the acpbox server went and did not come back within {} s: {why}",
            self.patience.as_secs_f32()
        );
        Failure::new(Phase::Request, INTERNAL_ERROR, what).hint(format!(
            "start one with `acpbox serve` (it is looked for at unix:{}); transcripts are kept",
            self.place.socket.display()
        ))
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromClient {
    /// Whether nothing more comes.
    fn is_at_end(&self) -> bool {
        self.is_over
            || (self.batch.is_empty() && self.batches.is_closed() && self.batches.is_empty())
    }

    /// Safe to drop while it waits.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.batch.pop_front() {
                return Some(frame);
            }
            match self.batches.recv().await {
                Some(batch) => self.batch = batch.into(),
                None => {
                    self.is_over = true;
                    return None;
                }
            }
        }
    }
}

/// Answers what the client asks while there is no server. Ends when it sends nothing more.
async fn refuse(failure: &Failure, depth: usize, from_client: &mut FromClient, client: &Outbox) {
    while let Some(frame) = from_client.next().await {
        if let Frame::Message(line) = frame
            && let Ok(parsed) = Message::parse(&line, depth)
            && let Body::Request { id, .. } = parsed.body
        {
            let _ = client
                .send(&message::error(id, &failure.to_error_object()))
                .await;
        }
    }
}

async fn complain(client: &Outbox, code: i32, what: String) {
    let error = jsonrpsee_types::ErrorObjectOwned::owned(code, what, None::<()>);
    let _ = client.send(&message::error("null", &error)).await;
}

/// Reads all that the client sends, with a bound on what waits.
async fn read_all<R: AsyncRead + Unpin>(
    mut reader: BatchReader<R>,
    client: Outbox,
    batches: mpsc::Sender<Vec<Frame>>,
    silent: CancellationToken,
) {
    let _silent = silent.drop_guard();
    loop {
        let mut frames = Vec::new();
        if !matches!(reader.read(&mut frames).await, Ok(true)) {
            return;
        }
        if let Some(framing) = reader.framing() {
            client.set_framing(framing);
        }
        let is_broken = frames.iter().any(|frame| matches!(frame, Frame::Broken(_)));
        if batches.send(frames).await.is_err() || is_broken {
            return;
        }
    }
}
