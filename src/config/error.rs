//! What can be wrong with the configuration, and how to mend it.

use std::path::PathBuf;

/// Every message names the file or field, what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "the user's home folder is unknown: HOME is unset and /etc/passwd has no entry; set HOME"
    )]
    NoHome,
    #[error("cannot read the configuration file {}", file.display())]
    Read {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{} line {line}: {problem}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        problem: String,
    },
    #[error("{}: `{key}` {problem}", file.display())]
    Value {
        file: PathBuf,
        key: String,
        problem: String,
    },
    /// A field of a client's request.
    #[error("`{field}` {problem}")]
    Request {
        field: &'static str,
        problem: String,
    },
    /// A folder that no configuration lets a VM share.
    #[error("`{field}` {}: {problem}; no VM may share it, since {own}; work in another folder, beside it or below", path.display())]
    NeverShared {
        field: &'static str,
        path: PathBuf,
        problem: String,
        /// Why nothing can allow it.
        own: String,
    },
    /// A folder that the configuration does not let a VM share.
    #[error("`{field}` {}: {problem}; to allow it, write in {}:\n{allow}", path.display(), file.display())]
    NotShared {
        field: &'static str,
        path: PathBuf,
        problem: String,
        file: PathBuf,
        allow: String,
    },
}
