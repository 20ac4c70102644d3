//! Reading and writing messages on a stream, with bounds on both sides.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::codec::{Decoder, Frame, Framing};

/// How much is read at once from a peer that sends much. A pipe holds 64 KiB by default.
const READ_BYTES: usize = 64 * 1024;

/// How much is read at once from a peer that sends little, as most do.
const LEAST_READ_BYTES: usize = 4 * 1024;

/// What may wait to be written to one peer, in bytes. A single larger message
/// passes alone.
const QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// Chunks that may wait to be written to one peer: so many that the bytes are
/// the bound, also for short messages.
const QUEUED_CHUNKS: usize = 32 * 1024;

/// Reads frames, as many at a time as one read brought. While it waits between
/// messages it holds no memory: most peers are idle.
pub struct BatchReader<R> {
    stream: R,
    decoder: Decoder,
    buffer: BytesMut,
    /// How much to make room for.
    wanted: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> BatchReader<R> {
    pub fn new(stream: R, decoder: Decoder) -> BatchReader<R> {
        BatchReader {
            stream,
            decoder,
            buffer: BytesMut::new(),
            wanted: LEAST_READ_BYTES,
            ended: false,
        }
    }

    /// The framing, once the first byte told.
    pub fn framing(&self) -> Option<Framing> {
        self.decoder.framing()
    }

    /// Waits for at least one frame and appends all that came with it. `false`
    /// at the end of the stream. Safe to drop while it waits.
    pub async fn read(&mut self, frames: &mut Vec<Frame>) -> io::Result<bool> {
        while !self.ended {
            if poll_fn(|context| self.poll_read(context)).await? == 0 {
                self.ended = true;
                while let Some(frame) = self.decoder.decode_end(&mut self.buffer) {
                    frames.push(frame);
                }
                return Ok(!frames.is_empty());
            }
            while let Some(frame) = self.decoder.decode(&mut self.buffer) {
                frames.push(frame);
            }
            if !frames.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < self.wanted / 4 {
            // A long line doubles the buffer, so that it is copied a few times only.
            self.buffer.reserve(self.wanted.max(self.buffer.len()));
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = pin!(self.stream.read_buf(&mut self.buffer)).poll(context);
        match read {
            Poll::Pending if self.buffer.is_empty() => self.buffer = BytesMut::new(),
            Poll::Ready(Ok(count)) if count == room => {
                self.wanted = READ_BYTES.min(self.wanted * 4);
            }
            Poll::Ready(Ok(count)) if count < self.wanted / 8 => {
                self.wanted = LEAST_READ_BYTES.max(self.wanted / 2);
            }
            _ => {}
        }
        read
    }
}

/// The way to one peer. Clones share one bounded queue, which [`write_loop`]
/// empties; order is the order of sending.
#[derive(Clone, Debug)]
pub struct Outbox {
    chunks: mpsc::Sender<Chunk>,
    room: Arc<Semaphore>,
    framing: Arc<OnceLock<Framing>>,
}

/// The receiving end of an [`Outbox`].
pub struct OutboxReceiver(mpsc::Receiver<Chunk>);

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Room in a peer's queue for one message, to be used without waiting.
#[derive(Debug)]
pub struct Room {
    place: mpsc::OwnedPermit<Chunk>,
    bytes: OwnedSemaphorePermit,
    framing: Framing,
}

impl Room {
    /// Queues messages that are framed already.
    pub fn send_encoded(self, bytes: Vec<u8>) {
        self.place.send(Chunk {
            bytes: bytes.into(),
            _room: self.bytes,
        });
    }

    /// Frames and queues the message that the room was made for.
    pub fn send(self, message: &str) {
        let mut bytes = Vec::with_capacity(message.len() + 32);
        self.framing.encode(&[message], &mut bytes);
        self.send_encoded(bytes);
    }
}

/// The peer is gone: nothing more can be sent to it.
#[derive(Debug, thiserror::Error)]
#[error("the peer is gone")]
pub struct OutboxClosed;

/// Why something could not be queued at once.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the peer is gone")]
    Closed,
    #[error("the peer does not read: {QUEUED_BYTES} bytes already wait for it")]
    Full,
}

impl Outbox {
    pub fn new() -> (Outbox, OutboxReceiver) {
        let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
        let outbox = Outbox {
            chunks: sender,
            room: Arc::new(Semaphore::new(QUEUED_BYTES)),
            framing: Arc::default(),
        };
        (outbox, OutboxReceiver(receiver))
    }

    /// Fixes the framing; the first call counts.
    pub fn set_framing(&self, framing: Framing) {
        let _ = self.framing.set(framing);
    }

    /// The framing in which to encode for this peer: lines until told otherwise.
    pub fn framing(&self) -> Framing {
        self.framing.get().copied().unwrap_or(Framing::Lines)
    }

    /// Frames and queues one message, waiting for room.
    pub async fn send(&self, message: &str) -> Result<(), OutboxClosed> {
        let mut bytes = Vec::with_capacity(message.len() + 32);
        self.framing().encode(&[message], &mut bytes);
        self.send_encoded(bytes).await
    }

    /// Queues messages that are framed already, waiting for room.
    pub async fn send_encoded(&self, bytes: Vec<u8>) -> Result<(), OutboxClosed> {
        let room = Arc::clone(&self.room)
            .acquire_many_owned(weight(bytes.len()))
            .await
            .map_err(|_| OutboxClosed)?;
        let chunk = Chunk {
            bytes: bytes.into(),
            _room: room,
        };
        self.chunks.send(chunk).await.map_err(|_| OutboxClosed)
    }

    /// Waits for room for a message of about so many bytes. Safe to drop while it waits.
    pub async fn room(&self, bytes: usize) -> Result<Room, OutboxClosed> {
        let room = Arc::clone(&self.room)
            .acquire_many_owned(weight(bytes))
            .await
            .map_err(|_| OutboxClosed)?;
        let place = self.chunks.clone().reserve_owned().await;
        Ok(Room {
            place: place.map_err(|_| OutboxClosed)?,
            bytes: room,
            framing: self.framing(),
        })
    }

    /// Frames and queues one message, or refuses it at once.
    pub fn try_send(&self, message: &str) -> Result<(), Refused> {
        let mut bytes = Vec::with_capacity(message.len() + 32);
        self.framing().encode(&[message], &mut bytes);
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(weight(bytes.len()))
            .map_err(|_| {
                if self.chunks.is_closed() {
                    Refused::Closed
                } else {
                    Refused::Full
                }
            })?;
        let chunk = Chunk {
            bytes: bytes.into(),
            _room: room,
        };
        self.chunks.try_send(chunk).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Closed,
        })
    }

    /// Room for messages of so many bytes, if there is some at once.
    pub fn try_room(&self, bytes: usize) -> Result<Room, Refused> {
        let refused = || match self.chunks.is_closed() {
            true => Refused::Closed,
            false => Refused::Full,
        };
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(bytes));
        let place = self.chunks.clone().try_reserve_owned();
        Ok(Room {
            bytes: room.map_err(|_| refused())?,
            place: place.map_err(|_| refused())?,
            framing: self.framing(),
        })
    }

    /// What waits to be written to the peer, in bytes; of a larger message than
    /// the queue holds, as much as it holds.
    pub fn queued_bytes(&self) -> usize {
        QUEUED_BYTES.saturating_sub(self.room.available_permits())
    }

    /// Ends when nothing more can be sent.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }
}

fn weight(bytes: usize) -> u32 {
    bytes.clamp(1, QUEUED_BYTES) as u32
}

/// Writes what is queued until every [`Outbox`] is dropped or the peer closes.
pub async fn write_loop<W: AsyncWrite + Unpin>(
    OutboxReceiver(mut queue): OutboxReceiver,
    mut stream: W,
) -> io::Result<()> {
    const AT_ONCE: usize = 64;
    let mut chunks = Vec::new();
    let mut joined = Vec::new();
    while queue.recv_many(&mut chunks, AT_ONCE).await > 0 {
        if let [chunk] = chunks.as_slice() {
            stream.write_all(&chunk.bytes).await?;
        } else {
            for chunk in &chunks {
                if chunk.bytes.len() > READ_BYTES {
                    stream.write_all(&joined).await?;
                    joined.clear();
                    stream.write_all(&chunk.bytes).await?;
                } else {
                    joined.extend_from_slice(&chunk.bytes);
                }
            }
            stream.write_all(&joined).await?;
            joined.clear();
        }
        chunks.clear();
        stream.flush().await?;
        if queue.is_empty() {
            // It may be long until there is more.
            chunks = Vec::new();
            joined = Vec::new();
        }
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_reader_holds_memory_only_while_a_message_is_on_its_way() {
        let (mut peer, stream) = tokio::io::duplex(1 << 20);
        let mut reader = BatchReader::new(stream, Decoder::lines(1 << 20));
        let line = format!("[{}]\n", " ".repeat(200_000));
        for message in ["{}\n", &line, "{}\n"] {
            let (first, rest) = message.split_at(1);
            let mut frames = Vec::new();
            peer.write_all(first.as_bytes()).await.unwrap();
            let waits = tokio::time::timeout(Duration::ZERO, reader.read(&mut frames));
            assert!(waits.await.is_err());
            assert_eq!(&reader.buffer[..], first.as_bytes());
            peer.write_all(rest.as_bytes()).await.unwrap();
            assert!(reader.read(&mut frames).await.unwrap());
            assert_eq!(frames.len(), 1);
            frames.clear();
            let waits = tokio::time::timeout(Duration::ZERO, reader.read(&mut frames));
            assert!(waits.await.is_err());
            assert_eq!(reader.buffer.capacity(), 0);
        }
    }
}
