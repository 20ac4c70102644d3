//! Names that must stay as they were but that no mount can hold: symbolic
//! links, and names that must stay absent.
//!
//! A guest can make or replace such a name; it is put back within about a
//! millisecond, what was there is set aside, and a guest that insists is
//! ended. Who made the change cannot be told, so that the user's own change of
//! such a name during a run is set aside too, and named in the log.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// How often a guest may try before it is ended.
const ATTEMPTS: u32 = 16;

/// Appended to the name of what is set aside.
const ASIDE: &str = ".refused-by-acpbox";

/// A name that must stay as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched {
    pub(super) path: PathBuf,
    /// Where the link points; `None` for a name that must stay absent.
    pub(super) link: Option<PathBuf>,
}

/// Watches names while a guest runs.
pub(super) struct Sentinels {
    notifier: Option<OwnedFd>,
    posts: Vec<Post>,
    attempts: u32,
}

struct Post {
    /// The folder, held open: its path could lead elsewhere by now.
    folder: OwnedFd,
    name: OsString,
    watched: Watched,
}

impl Sentinels {
    /// Takes up the posts. Returns warnings for those that cannot be taken.
    pub(super) fn new(watched: impl IntoIterator<Item = Watched>) -> (Sentinels, Vec<String>) {
        let mut sentinels = Sentinels {
            notifier: None,
            posts: Vec::new(),
            attempts: 0,
        };
        let mut warnings = Vec::new();
        for watched in watched {
            if let Err(error) = sentinels.take_post(&watched) {
                warnings.push(format!(
                    "{} cannot be watched ({error}): a guest could replace it unseen; \
                     close programs that watch many files, or raise fs.inotify.max_user_instances",
                    watched.path.display()
                ));
            }
        }
        (sentinels, warnings)
    }

    /// Readable when something changed beside a watched name.
    pub(super) fn notifier(&self) -> Option<BorrowedFd<'_>> {
        self.notifier.as_ref().map(AsFd::as_fd)
    }

    /// Puts back what has changed. Returns why the guest must end, if it must.
    pub(super) fn check(&mut self) -> Option<String> {
        if let Some(notifier) = &self.notifier {
            let mut events = [MaybeUninit::uninit(); 4096];
            while rustix::io::read(notifier, &mut events).is_ok() {}
        }
        for post in &self.posts {
            match post.put_back() {
                Ok(false) => {}
                Ok(true) => {
                    self.attempts += 1;
                    tracing::warn!(
                        path = %post.watched.path.display(),
                        "a protected name was replaced while its VM ran; it was put back and the \
                         other set aside as `…{ASIDE}`"
                    );
                }
                Err(error) => {
                    return Some(format!(
                        "{} was replaced by the guest and cannot be put back ({error}); check it \
                         before you use it",
                        post.watched.path.display()
                    ));
                }
            }
        }
        (self.attempts > ATTEMPTS)
            .then(|| format!("the guest replaced protected names {} times", self.attempts))
    }

    fn take_post(&mut self, watched: &Watched) -> std::io::Result<()> {
        let (Some(parent), Some(name)) = (watched.path.parent(), watched.path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(parent, flags, Mode::empty())?;
        let notifier = match &mut self.notifier {
            Some(notifier) => notifier,
            none => none.insert(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?),
        };
        let events = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        inotify::add_watch(&*notifier, parent, events)?;
        self.posts.push(Post {
            folder,
            name: name.to_owned(),
            watched: watched.clone(),
        });
        Ok(())
    }
}

impl Post {
    /// Returns whether anything had to be done.
    fn put_back(&self) -> std::io::Result<bool> {
        let expected = self.watched.link.as_deref();
        if self.is_there()? {
            if expected.is_some() && self.link().as_deref() == expected {
                return Ok(false);
            }
            self.set_aside()?;
        } else if expected.is_none() {
            return Ok(false);
        }
        if let Some(target) = expected {
            rustix::fs::symlinkat(target, &self.folder, &self.name)?;
        }
        Ok(true)
    }

    fn is_there(&self) -> std::io::Result<bool> {
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(&self.folder, &self.name, Vec::new()).ok()?;
        Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    fn set_aside(&self) -> std::io::Result<()> {
        let mut aside = self.name.clone();
        aside.push(ASIDE);
        match rename(&self.folder, &self.name, &aside) {
            // Something of another kind was set aside before.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                aside.push(format!(".{}", std::process::id()));
                rename(&self.folder, &self.name, &aside)
            }
            // Gone by itself.
            _ => Ok(()),
        }
    }
}

fn rename(folder: &OwnedFd, from: &OsStr, to: &OsStr) -> std::io::Result<()> {
    Ok(rustix::fs::renameat(
        folder,
        Path::new(from),
        folder,
        Path::new(to),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_link_is_put_back_and_a_forbidden_name_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        let absent = folder.path().join("absent");
        std::os::unix::fs::symlink("target", &link).unwrap();
        let (mut sentinels, warnings) = Sentinels::new([
            Watched {
                path: link.clone(),
                link: Some("target".into()),
            },
            Watched {
                path: absent.clone(),
                link: None,
            },
        ]);
        assert!(warnings.is_empty());
        assert_eq!(sentinels.check(), None);
        assert_eq!(sentinels.attempts, 0);

        std::fs::remove_file(&link).unwrap();
        std::fs::create_dir(&link).unwrap();
        std::fs::write(&absent, "evil").unwrap();
        assert_eq!(sentinels.check(), None);
        assert_eq!(sentinels.attempts, 2);
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("target"));
        assert!(!absent.exists());
        let aside = folder.path().join("absent.refused-by-acpbox");
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "evil");

        std::fs::remove_file(&link).unwrap();
        assert_eq!(sentinels.check(), None);
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("target"));
        for _ in 0..ATTEMPTS {
            std::fs::write(&absent, "again").unwrap();
            sentinels.check();
        }
        let reason = sentinels.check().unwrap();
        assert!(reason.contains("times"), "{reason}");
    }
}
