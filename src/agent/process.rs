//! A started agent: its three pipes as an outbox, a reader and a log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::{BatchReader, Outbox, write_loop};
use crate::vm::{Exit, Process, ProcessControl};

/// Lines of stderr that a failure quotes.
const TAIL_LINES: usize = 20;
/// The longest line of stderr that is kept whole; longer ones are cut into pieces.
const LINE_BYTES: usize = 8 * 1024;
/// Batches of lines that may wait to be stored before further ones are dropped:
/// an agent must never block on its stderr.
const WAITING_BATCHES: usize = 64;

/// A running agent. Dropping it does not end the process.
#[derive(Debug)]
pub struct AgentProcess {
    /// The way to its stdin.
    pub outbox: Outbox,
    pub exit: watch::Receiver<Option<Exit>>,
    pub control: Arc<dyn ProcessControl>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

/// What an agent writes: protocol messages, and lines of stderr.
pub struct AgentOutput {
    pub messages: BatchReader<pipe::Receiver>,
    pub stderr: mpsc::Receiver<Vec<String>>,
}

impl AgentProcess {
    /// Takes over a process that was started with three pipes.
    pub fn connect(
        process: Process,
        line_bytes: usize,
    ) -> std::io::Result<(AgentProcess, AgentOutput)> {
        let missing = || std::io::Error::other("the process was started without pipes");
        let stdin = pipe::Sender::from_owned_fd(process.stdin.ok_or_else(missing)?)?;
        let stdout = pipe::Receiver::from_owned_fd(process.stdout)?;
        let stderr = pipe::Receiver::from_owned_fd(process.stderr.ok_or_else(missing)?)?;
        let (outbox, queue) = Outbox::new();
        let writing = async move {
            if let Err(error) = write_loop(queue, stdin).await {
                tracing::debug!(%error, "the agent closed its stdin");
            }
        };
        tokio::spawn(writing.in_current_span());
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (lines, received) = mpsc::channel(WAITING_BATCHES);
        tokio::spawn(read_stderr(stderr, Arc::clone(&tail), lines).in_current_span());
        let agent = AgentProcess {
            outbox,
            exit: process.exit,
            control: process.control,
            tail,
        };
        let output = AgentOutput {
            messages: BatchReader::new(stdout, Decoder::lines(line_bytes)),
            stderr: received,
        };
        Ok((agent, output))
    }

    /// The last lines of its stderr.
    pub fn last_words(&self) -> Vec<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().cloned().collect()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }
}

async fn read_stderr(
    mut stderr: pipe::Receiver,
    tail: Arc<Mutex<VecDeque<String>>>,
    lines: mpsc::Sender<Vec<String>>,
) {
    let mut decoder = Decoder::lines(LINE_BYTES);
    let mut buffer = BytesMut::with_capacity(LINE_BYTES);
    loop {
        buffer.reserve(LINE_BYTES);
        let read = stderr.read_buf(&mut buffer).await;
        let mut batch = Vec::new();
        let mut take = |frame| match frame {
            Frame::Message(bytes) => batch.push(String::from_utf8_lossy(&bytes).into_owned()),
            Frame::TooLong { bytes } => batch.push(format!("[a line of {bytes} bytes left out]")),
            Frame::Broken(_) => {}
        };
        while let Some(frame) = decoder.decode(&mut buffer) {
            take(frame);
        }
        let is_over = !matches!(read, Ok(1..));
        if is_over && let Some(frame) = decoder.decode_end(&mut buffer) {
            take(frame);
        }
        if !batch.is_empty() {
            remember(&tail, &batch);
            if lines.try_send(batch).is_err() {
                tracing::debug!("lines of the agent's stderr were dropped: nobody takes them");
            }
        }
        if is_over {
            return;
        }
    }
}

fn remember(tail: &Mutex<VecDeque<String>>, batch: &[String]) {
    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    tail.extend(batch.iter().rev().take(TAIL_LINES).rev().cloned());
    let over = tail.len().saturating_sub(TAIL_LINES);
    tail.drain(..over);
}

/// How a process ended, in words for a person.
pub fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
        Exit::Lost(why) => why.clone(),
    }
}
