//! A VM's disk: what persists of it in its state folder.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Removes a stopped VM's folder, if it is there; tools leave read-only ones in it (Go's module cache), whose
/// files cannot be removed as they are.
pub fn remove(folder: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The file in a VM's folder on which every process with a guest of it holds a lock.
pub fn lock_file(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// [`remove`], unless a guest uses the folder; `false` then. Nobody boots the VM meanwhile.
pub fn remove_unused(folder: &Path) -> io::Result<bool> {
    let lock = match File::options().write(true).open(lock_file(folder)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return remove(folder).map(|()| true);
        }
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => remove(folder).map(|()| true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes every folder below writable. Links are not followed.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_forbid_it_are_removed_too() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs::create_dir_all(disk.join("cache/module")).unwrap();
        fs::write(disk.join("cache/module/file"), "x").unwrap();
        fs::set_permissions(disk.join("cache/module"), Permissions::from_mode(0o500)).unwrap();
        remove(&disk).unwrap();
        assert!(!disk.exists());
        remove(&disk).unwrap();
    }

    #[test]
    fn a_folder_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs::create_dir_all(&disk).unwrap();
        let guest = File::create(lock_file(&disk)).unwrap();
        rustix::fs::flock(&guest, FlockOperation::LockShared).unwrap();
        assert!(!remove_unused(&disk).unwrap());
        assert!(disk.exists());
        drop(guest);
        assert!(remove_unused(&disk).unwrap());
        assert!(!disk.exists());
    }
}
