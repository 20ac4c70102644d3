//! This process's own standard streams, without a thread between where possible.
//!
//! Setting `O_NONBLOCK` on an inherited descriptor would change it for everyone
//! who shares it (a shell, the editor's log). So a pipe is opened anew, a socket
//! (as Node gives its children) is used with `MSG_DONTWAIT`, and anything else
//! goes through tokio's blocking threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

/// Standard input as a stream. Call within a tokio runtime.
pub fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    let stdin = io::stdin();
    match kind(stdin.as_fd()) {
        FileType::Fifo => {
            let opened = reopen(0, OFlags::RDONLY).and_then(pipe::Receiver::from_owned_fd);
            if let Ok(pipe) = opened {
                return Box::new(pipe);
            }
        }
        FileType::Socket => {
            if let Ok(socket) = Socket::share(stdin.as_fd(), Interest::READABLE) {
                return Box::new(socket);
            }
        }
        _ => {}
    }
    Box::new(tokio::io::stdin())
}

/// Standard output as a stream. Call within a tokio runtime.
pub fn output() -> Box<dyn AsyncWrite + Send + Unpin> {
    let stdout = io::stdout();
    match kind(stdout.as_fd()) {
        FileType::Fifo => {
            let opened = reopen(1, OFlags::WRONLY).and_then(pipe::Sender::from_owned_fd);
            if let Ok(pipe) = opened {
                return Box::new(pipe);
            }
        }
        FileType::Socket => {
            if let Ok(socket) = Socket::share(stdout.as_fd(), Interest::WRITABLE) {
                return Box::new(socket);
            }
        }
        _ => {}
    }
    Box::new(tokio::io::stdout())
}

fn kind(stream: BorrowedFd<'_>) -> FileType {
    rustix::fs::fstat(stream).map_or(FileType::Unknown, |stat| {
        FileType::from_raw_mode(stat.st_mode)
    })
}

/// Opens the pipe behind a descriptor again, as a file description of our own.
fn reopen(descriptor: u8, access: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A socket whose shared flags stay as they are.
struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an `OwnedFd` never lies about its descriptor, and `unsafe` stays in vm/"
    )]
    fn share(stream: BorrowedFd<'_>, interest: Interest) -> io::Result<Socket> {
        AsyncFd::with_interest(stream.try_clone_to_owned()?, interest).map(Socket)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let read = guard.try_io(|socket| {
                let (read, _) =
                    rustix::net::recv(socket.get_ref(), &mut *unfilled, RecvFlags::DONTWAIT)?;
                Ok(read)
            });
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match guard.try_io(|socket| Ok(rustix::net::send(socket.get_ref(), bytes, flags)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether nobody reads standard output any more.
pub fn output_is_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [rustix::event::PollFd::new(
        &stdout,
        rustix::event::PollFlags::empty(),
    )];
    let now = rustix::event::Timespec::default();
    let closed = rustix::event::PollFlags::ERR | rustix::event::PollFlags::HUP;
    rustix::event::poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(closed)
}
