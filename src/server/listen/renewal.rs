//! Certificates, keys and tokens are read again when their files change, or on demand.
//! Connections that are there go on.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{ListenError, Listener, Tls, Token};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What listeners have from files.
pub struct Renewal(Vec<Kept>);

/// All that is read from the same files.
struct Kept {
    paths: Vec<PathBuf>,
    what: Vec<What>,
    /// The files as they were when they were last read.
    read: Print,
    /// The files as they were at the last look.
    seen: Print,
}

enum What {
    Tls(Tls),
    Token(Token),
}

/// Tells whether files are others, or have changed: device, inode, size and time of change.
type Print = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Renewal {
    /// Of all that these listeners have.
    pub fn of(listeners: &[Listener]) -> Renewal {
        let mut kept: Vec<Kept> = Vec::new();
        for listener in listeners {
            let (Listener::Tcp(socket) | Listener::Http(socket)) = listener else {
                continue;
            };
            let token = What::Token(socket.token().clone());
            let tls = socket.tls().cloned().map(What::Tls);
            for what in tls.into_iter().chain([token]) {
                let paths = what.paths();
                match kept.iter_mut().find(|it| it.paths == paths) {
                    Some(same) => same.what.push(what),
                    None => kept.push(Kept {
                        paths,
                        what: vec![what],
                        read: Print::new(),
                        seen: Print::new(),
                    }),
                }
            }
        }
        Renewal(kept)
    }

    /// Looks at the files for ever, and at once for each message of `demands`.
    pub async fn run(self, mut demands: mpsc::Receiver<()>) {
        let mut kept = self.0;
        // What changed since it was read is found now.
        let mut is_demanded = true;
        let mut is_first = true;
        loop {
            let look = move || {
                for it in &mut kept {
                    it.look(is_demanded, is_first);
                }
                kept
            };
            // Files may be on a disk that takes its time.
            match tokio::task::spawn_blocking(look).await {
                Ok(back) => kept = back,
                Err(error) => {
                    tracing::error!(%error, "certificates and tokens are not read again any more");
                    return;
                }
            }
            is_first = false;
            is_demanded = tokio::select! {
                demand = demands.recv() => match demand {
                    Some(()) => true,
                    None => std::future::pending().await,
                },
                () = tokio::time::sleep(LOOK) => false,
            };
        }
    }
}

impl Kept {
    fn look(&mut self, is_demanded: bool, is_first: bool) {
        let now = print(&self.paths);
        // Of two files that are replaced one is the first, so wait until they rest.
        let has_changed = now != self.read && now == self.seen;
        self.seen.clone_from(&now);
        if !is_demanded && !has_changed {
            return;
        }
        self.read = now;
        let name = self.what.first().map_or("", What::name);
        match self.what.iter().try_for_each(What::renew) {
            Ok(()) if is_first => {}
            Ok(()) => tracing::info!("{name} was read again"),
            Err(error) => tracing::error!("{name} from before is kept: {error}"),
        }
    }
}

impl What {
    fn paths(&self) -> Vec<PathBuf> {
        let paths = match self {
            What::Tls(tls) => tls.paths().to_vec(),
            What::Token(token) => vec![token.path()],
        };
        paths.into_iter().map(Path::to_path_buf).collect()
    }

    fn name(&self) -> &'static str {
        match self {
            What::Tls(_) => "the certificate",
            What::Token(_) => "the token",
        }
    }

    fn renew(&self) -> Result<(), ListenError> {
        match self {
            What::Tls(tls) => tls.renew(),
            What::Token(token) => token.renew(),
        }
    }
}

fn print(paths: &[PathBuf]) -> Print {
    let of = |path: &PathBuf| -> io::Result<_> {
        let metadata = std::fs::metadata(path)?;
        Ok((
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ))
    };
    paths.iter().map(|path| of(path).ok()).collect()
}
