//! File descriptors: every client and every agent takes some, and the kernel sets
//! an end to them.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many files as it ever may; programs that are not
/// servers are to have fewer. Returns how many; `None` is without limit.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// A descriptor that is held for nothing but the moment in which there is no other:
/// with it a client can be let in and told so. It would have to guess else.
pub struct Spare(Option<File>);

impl Spare {
    /// Why a client is turned away then.
    pub const NONE_LEFT: &str = "acpbox has no file descriptor left; close sessions or clients, or raise its limit of open files (ulimit -n, LimitNOFILE)";

    pub fn hold() -> Spare {
        Spare(open())
    }

    /// Whether an error means that there are none left.
    pub fn is_needed(error: &io::Error) -> bool {
        let code = Errno::from_io_error(error);
        matches!(code, Some(Errno::MFILE | Errno::NFILE))
    }

    /// Makes room for another one. `false` if it was lost before.
    pub fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// `false` if somebody else was faster.
    pub fn take_back(&mut self) -> bool {
        self.0 = self.0.take().or_else(open);
        self.0.is_some()
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
