//! The signals of a guest's first process: everything blocked, children read
//! from a descriptor; and the clean state that each child gets instead.

use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks every signal of this process, puts every handler back to its default
/// (a parent may have left some ignored, which would pass to children), and
/// returns a descriptor that is readable when a child changed.
pub(super) fn prepare() -> std::io::Result<OwnedFd> {
    // SAFETY: plain calls on a zeroed signal set that lives on this stack; no
    // handler is installed, so nothing runs asynchronously.
    unsafe {
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        let mut children: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut children);
        libc::sigaddset(&mut children, libc::SIGCHLD);
        let descriptor = libc::signalfd(-1, &children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Gives a forked child no blocked signal and no ignored SIGPIPE. Safe to call
/// between fork and exec.
pub(super) fn restore_in_child() {
    // SAFETY: async-signal-safe calls on a set that lives on this stack.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}
