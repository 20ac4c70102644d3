//! A unix socket that only this user reaches: its folder, its mode and the
//! peer's uid are all checked.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use super::{Accepted, ListenError, folder};

/// What a socket's address holds, with the byte that ends it (`sun_path`, unix(7)).
const PATH_BYTES: usize = 107;

pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// What is to be removed in the end, by its inode, and the right to the path.
    own: Option<(u64, File)>,
}

impl UnixSocket {
    /// Listens at a path. What a dead server left there is replaced; anything
    /// else that exists is not touched. The folder is made, private, if need be.
    pub fn bind(path: &Path) -> Result<UnixSocket, ListenError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let wrong = |why: String| ListenError::Socket {
            path: path.clone(),
            why,
        };
        let io = |error: io::Error| wrong(error.to_string());
        let name = path
            .file_name()
            .ok_or_else(|| wrong("it names no file".into()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io)?;
        folder::check(folder).map_err(wrong)?;
        let lock = lock(&path)?;
        check_vacant(&path)?;
        // Bound under another name and then moved: nobody can connect before the
        // mode is set, and a dead socket is replaced at once.
        let fresh = folder.join(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        if fresh.as_os_str().len() > PATH_BYTES {
            let why = format!(
                "the path is too long for a socket by {} bytes",
                fresh.as_os_str().len() - PATH_BYTES
            );
            return Err(wrong(why));
        }
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(io)?;
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| fs::symlink_metadata(&path));
        match placed {
            Ok(metadata) => Ok(UnixSocket {
                listener,
                own: Some((metadata.ino(), lock)),
                path,
            }),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(io(error))
            }
        }
    }

    /// Empty for one without a name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One that systemd made, and will remove.
    pub fn of(listener: UnixListener) -> UnixSocket {
        let path = listener.local_addr().ok();
        let path = path.and_then(|address| address.as_pathname().map(Path::to_path_buf));
        UnixSocket {
            listener,
            path: path.unwrap_or_default(),
            own: None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        let own = rustix::process::getuid().as_raw();
        if peer.uid() != own {
            let what = format!("a client of user {} was turned away", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let process = peer
            .pid()
            .map_or_else(String::new, |pid| format!(" of process {pid}"));
        let (input, output) = stream.into_split();
        Ok(Accepted {
            input: Box::new(input),
            output: Box::new(output),
            token: None,
            tls: None,
            source: None,
            peer: format!("{self}{process}"),
        })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let Some((inode, lock)) = self.own.take() else {
            return;
        };
        // While it is locked nobody else can have put a socket there.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == inode) {
            let _ = fs::remove_file(&self.path);
        }
        drop(lock);
    }
}

impl fmt::Display for UnixSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unix:{}", self.path.display())
    }
}

/// The right to serve at a path: gone with its holder, however that ends.
fn lock(path: &Path) -> Result<File, ListenError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Neither a link nor a pipe that nobody reads is to be opened.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&beside);
    let file = opened.map_err(|error| ListenError::Socket {
        path: beside,
        why: error.to_string(),
    })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ListenError::Taken(path.to_path_buf())),
        Err(error) => Err(ListenError::Socket {
            path: path.to_path_buf(),
            why: io::Error::from(error).to_string(),
        }),
    }
}

/// Only a socket that nobody listens at may be replaced.
fn check_vacant(path: &Path) -> Result<(), ListenError> {
    let wrong = |why: &str| ListenError::Socket {
        path: path.to_path_buf(),
        why: why.to_owned(),
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(&error.to_string())),
    };
    if !metadata.file_type().is_socket() {
        return Err(wrong(
            "it exists and is no socket; remove it, or name another path",
        ));
    }
    if metadata.uid() != rustix::process::getuid().as_raw() {
        return Err(wrong(
            "the socket there is another user's; name another path",
        ));
    }
    match try_to_connect(path) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // The latter is a queue that is full.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::Taken(path.to_path_buf())),
        Err(Errno::PROTOTYPE) => Err(wrong(
            "another program's socket is there; remove it, or name another path",
        )),
        Err(error) => Err(wrong(&io::Error::from(error).to_string())),
    }
}

/// Without waiting: a server that is stopped takes nobody in.
fn try_to_connect(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)
}
