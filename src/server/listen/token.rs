//! The secret that clients of TCP share with the server.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq as _;

use super::ListenError;

/// Fewer characters could be guessed.
const LEAST_CHARACTERS: usize = 16;

/// A token file is one line; what is longer is another file.
const FILE_BYTES: u64 = 4096;

/// What is in the file; all clones change together when it is read again.
#[derive(Clone)]
pub struct Token {
    path: Arc<Path>,
    text: Arc<RwLock<Arc<str>>>,
}

impl Token {
    /// Reads a token file: one line, which only its owner may read.
    pub fn read(path: &Path) -> Result<Token, ListenError> {
        Ok(Token::of(path, read(path)?))
    }

    /// The token of this file, which is made if it does not exist.
    pub fn read_or_make(path: &Path) -> Result<Token, ListenError> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        match make(path, &token) {
            Ok(()) => Ok(Token::of(path, token)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Token::read(path),
            Err(error) => Err(wrong(path, format!("it cannot be made: {error}"))),
        }
    }

    fn of(path: &Path, text: String) -> Token {
        Token {
            path: path.into(),
            text: Arc::new(RwLock::new(text.into())),
        }
    }

    /// Takes what is in the file now for all that comes.
    ///
    /// # Errors
    /// What is wrong with it; the token from before is kept.
    pub fn renew(&self) -> Result<(), ListenError> {
        let text = read(&self.path)?.into();
        *self.text.write().unwrap_or_else(PoisonError::into_inner) = text;
        Ok(())
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token itself, for a client to send.
    pub fn text(&self) -> Arc<str> {
        let text = self.text.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&text)
    }

    /// Compares in a time that tells nothing of where they differ.
    pub fn is(&self, given: &str) -> bool {
        self.text().as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(…)")
    }
}

fn wrong(path: &Path, why: String) -> ListenError {
    ListenError::Token {
        path: path.to_path_buf(),
        why,
    }
}

fn read(path: &Path) -> Result<String, ListenError> {
    let failed = |error: io::Error| wrong(path, error.to_string());
    let mut options = OpenOptions::new();
    // A pipe that nobody writes to would be waited for.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(wrong(path, "it is no file".into()));
    }
    if metadata.mode() & 0o077 != 0 {
        let fix = format!("others may read it; chmod 600 {}", path.display());
        return Err(wrong(path, fix));
    }
    let mut text = String::new();
    let mut file = file.take(FILE_BYTES);
    file.read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    if token.chars().count() < LEAST_CHARACTERS || token.contains(char::is_whitespace) {
        let why = format!("it must be one word of at least {LEAST_CHARACTERS} characters");
        return Err(wrong(path, why));
    }
    Ok(token.to_owned())
}

/// Whole or not at all: who comes second reads what the first one made.
fn make(path: &Path, token: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let made = options.open(&fresh).and_then(|mut file| {
        writeln!(file, "{token}")?;
        // A link is made only where nothing is.
        fs::hard_link(&fresh, path)
    });
    let _ = fs::remove_file(&fresh);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_read_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let made = Token::read_or_make(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(made.is(text.trim()) && !made.is("") && !made.is("x"));
        assert!(Token::read_or_make(&path).unwrap().is(text.trim()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "Token(…)");

        let check = |text: &str, mode: u32, why: &str| {
            std::fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
            let said = Token::read(&path).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        };
        check("0123456789abcdef", 0o644, "chmod 600");
        check("short", 0o600, "at least 16 characters");
        check("two words and some more", 0o600, "one word");
    }
    #[test]
    fn whoever_makes_it_at_once_with_others_has_the_same_one() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("token");
            let begin = std::sync::Barrier::new(8);
            let make = || {
                begin.wait();
                Token::read_or_make(&path).unwrap().text()
            };
            let made: Vec<_> = std::thread::scope(|scope| {
                let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                makers.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert!(made.iter().all(|it| *it == made[0]));
            let files = std::fs::read_dir(folder.path()).unwrap();
            assert_eq!(files.count(), 1, "something is left behind");
        }
    }

    #[test]
    fn one_that_is_read_again_counts_everywhere_and_a_broken_one_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::read_or_make(&path).unwrap();
        let elsewhere = token.clone();
        std::fs::write(&path, "another-and-a-long-one\n").unwrap();
        token.renew().unwrap();
        assert!(elsewhere.is("another-and-a-long-one"));
        std::fs::write(&path, "").unwrap();
        assert!(token.renew().is_err());
        assert!(elsewhere.is("another-and-a-long-one") && !elsewhere.is(""));
    }
}
