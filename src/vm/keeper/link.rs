//! The keeper thread's end of the control socket.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown};

use super::shared::{Begun, Failure, Shared};
use crate::vm::Exit;
use crate::vm::guest::protocol::{Decoder, MAX_DESCRIPTORS, Notice, descriptors};

/// How much of the guest's own complaints is kept for error messages.
const COMPLAINTS: usize = 4 << 10;

/// What a step of the loop brought.
pub(super) enum Event {
    Ready,
    Progress,
    /// The other descriptor is readable.
    Notified,
    /// The socket closed or broke; why.
    Closed(String),
    /// The deadline passed.
    Late,
}

pub(super) struct Link {
    socket: OwnedFd,
    /// The guest's standard error, until it closes.
    errors: Option<OwnedFd>,
    complaints: VecDeque<u8>,
    decoder: Decoder,
    /// Descriptors that came and belong to a notice not read yet.
    received: VecDeque<OwnedFd>,
    /// How much of the outbox's first frame is sent.
    sent: usize,
    shared: Arc<Shared>,
}

impl Link {
    pub(super) fn new(name: &str, socket: OwnedFd, errors: OwnedFd) -> std::io::Result<Link> {
        Ok(Link {
            socket,
            errors: Some(errors),
            complaints: VecDeque::new(),
            decoder: Decoder::default(),
            received: VecDeque::new(),
            sent: 0,
            shared: Arc::new(Shared::new(name)?),
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// What the guest wrote to its standard error, on one line. Drains what is
    /// still in the pipe.
    pub(super) fn complaints(&mut self) -> String {
        while self
            .errors
            .as_ref()
            .is_some_and(|errors| readable_within(errors, Duration::ZERO))
        {
            self.read_errors();
        }
        let bytes: Vec<u8> = self.complaints.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join("; ")
    }

    /// Tells the guest that it is over: it ends when it sees its socket close.
    pub(super) fn close(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// Waits for something to happen, on `other` too, and does what it asks for.
    pub(super) fn step(
        &mut self,
        deadline: Option<Instant>,
        other: Option<BorrowedFd<'_>>,
    ) -> Event {
        let shared = self.shared.clone();
        let unsent = !shared.state().outbox.is_empty();
        let wanted = if unsent {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Event::Late;
        }
        let (socket, woken, complained, notified) = {
            let mut fds = vec![
                PollFd::new(&self.socket, wanted),
                PollFd::new(shared.wake(), PollFlags::IN),
            ];
            let errors = self.errors.as_ref().map(AsFd::as_fd);
            let extra: Vec<_> = errors.into_iter().chain(other).collect();
            fds.extend(
                extra
                    .iter()
                    .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
            );
            let timeout = left.map(timespec);
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Event::Late,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Event::Progress,
                Err(error) => return Event::Closed(format!("poll failed: {error}")),
            }
            (
                fds[0].revents(),
                !fds[1].revents().is_empty(),
                errors.is_some() && !fds[2].revents().is_empty(),
                other.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty()),
            )
        };
        if complained {
            self.read_errors();
        }
        if woken {
            let mut count = [0; 8];
            let _ = rustix::io::read(shared.wake(), &mut count);
        }
        if (woken || unsent)
            && let Err(error) = self.flush()
        {
            return Event::Closed(format!("the guest does not listen: {error}"));
        }
        if socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return self.receive();
        }
        if notified {
            Event::Notified
        } else {
            Event::Progress
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        loop {
            let mut state = self.shared.state();
            let Some(frame) = state.outbox.front() else {
                return Ok(());
            };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &frame[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // Whatever the guest still has to say comes before its end.
                Err(rustix::io::Errno::PIPE) => {
                    state.outbox.clear();
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if self.sent == frame.len() {
                state.outbox.pop_front();
                self.sent = 0;
            }
        }
    }

    fn receive(&mut self) -> Event {
        let mut bytes = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let count = match rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            flags,
        ) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Event::Progress,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Event::Closed(format!("its control socket broke: {error}")),
        };
        if count == 0 {
            return Event::Closed("the guest ended".to_owned());
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.received.extend(descriptors);
            }
        }
        if self.received.len() > 2 * MAX_DESCRIPTORS {
            return Event::Closed("the guest sent descriptors that nobody asked for".to_owned());
        }
        self.decoder.push(&bytes[..count]);
        let mut event = Event::Progress;
        loop {
            match self.decoder.next::<Notice>() {
                Ok(Some(Notice::Ready)) => event = Event::Ready,
                Ok(Some(notice)) => self.take(notice),
                Ok(None) => return event,
                Err(error) => return Event::Closed(format!("the guest talks nonsense: {error}")),
            }
        }
    }

    fn take(&mut self, notice: Notice) {
        let shared = self.shared.clone();
        let mut state = shared.state();
        match notice {
            Notice::Ready => {}
            Notice::Started { id } => {
                let Some(starting) = state.starting.remove(&id) else {
                    return;
                };
                let count = descriptors(starting.io).min(self.received.len());
                let pipes = self.received.drain(..count).collect();
                state.running.insert(id, starting.exit);
                drop(state);
                let begun = Begun::new(shared.clone(), id, pipes);
                let _ = starting.answer.send(Ok(begun));
            }
            Notice::NotFound { id } => {
                if let Some(starting) = state.starting.remove(&id) {
                    let _ = starting.answer.send(Err(Failure::NotFound));
                }
            }
            Notice::Refused { id, detail } => {
                if let Some(starting) = state.starting.remove(&id) {
                    let _ = starting.answer.send(Err(Failure::Refused(detail)));
                }
            }
            Notice::Exited { id, code, signal } => {
                if let Some(watcher) = state.running.remove(&id) {
                    let exit = match (code, signal) {
                        (_, Some(signal)) => Exit::Signal(signal),
                        (Some(code), None) => Exit::Code(code),
                        (None, None) => Exit::Lost("it ended without a status".to_owned()),
                    };
                    watcher.send_replace(Some(exit));
                }
            }
        }
    }

    fn read_errors(&mut self) {
        let Some(errors) = &self.errors else { return };
        let mut bytes = [0; 1024];
        match rustix::io::read(errors, &mut bytes) {
            Ok(count) if count > 0 => {
                self.complaints.extend(&bytes[..count]);
                let excess = self.complaints.len().saturating_sub(COMPLAINTS);
                self.complaints.drain(..excess);
            }
            _ => self.errors = None,
        }
    }
}

/// Whether a descriptor becomes readable in time.
pub(super) fn readable_within(descriptor: &impl AsFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timespec(patience))).is_ok_and(|count| count > 0)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
