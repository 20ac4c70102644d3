//! The secret that clients of TCP share with the server.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::ListenError;

/// Fewer characters could be guessed.
const LEAST_CHARACTERS: usize = 16;

/// A token file is one line; what is longer is another file.
const FILE_BYTES: u64 = 4096;

#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Reads a token file: one line, which only its owner may read.
    pub fn read(path: &Path) -> Result<Token, ListenError> {
        let wrong = |why: String| ListenError::Token {
            path: path.to_path_buf(),
            why,
        };
        let mut options = OpenOptions::new();
        // A pipe that nobody writes to would be waited for.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options
            .open(path)
            .map_err(|error| wrong(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| wrong(error.to_string()))?;
        if !metadata.is_file() {
            return Err(wrong("it is no file".into()));
        }
        if metadata.mode() & 0o077 != 0 {
            let fix = format!("others may read it; chmod 600 {}", path.display());
            return Err(wrong(fix));
        }
        let mut text = String::new();
        file.take(FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| wrong(error.to_string()))?;
        let token = text.trim();
        if token.chars().count() < LEAST_CHARACTERS || token.contains(char::is_whitespace) {
            return Err(wrong(format!(
                "it must be one word of at least {LEAST_CHARACTERS} characters"
            )));
        }
        Ok(Token(token.into()))
    }

    /// The token of this file, which is made if it does not exist.
    pub fn read_or_make(path: &Path) -> Result<Token, ListenError> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        match options.open(path) {
            Ok(mut file) => {
                let written = writeln!(file, "{token}");
                written.map_err(|error| ListenError::Token {
                    path: path.to_path_buf(),
                    why: error.to_string(),
                })?;
                Ok(Token(token.into()))
            }
            Err(_exists) => Token::read(path),
        }
    }

    /// The token itself, for a client to send.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Compares in a time that tells nothing of where they differ.
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(…)")
    }
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
}
