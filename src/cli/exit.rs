//! Exit codes. They are part of the interface: scripts read them.

use crate::acp::{Failure, Phase};
use crate::agent::catalog::CatalogError;
use crate::config::ConfigError;
use crate::server::listen::ListenError;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

pub const DONE: Code = Code(0);
/// acpbox itself failed.
pub const FAILED: Code = Code(1);
pub const USAGE: Code = Code(2);
/// The agent refused, or stopped at a limit.
pub const REFUSED: Code = Code(3);
pub const CANCELLED: Code = Code(4);
/// The agent or its VM failed.
pub const AGENT: Code = Code(5);
/// A person is to decide.
pub const ASKED: Code = Code(6);

/// A command that cannot be meant so; says what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> std::process::ExitCode {
        std::process::ExitCode::from(code.0)
    }
}

/// The code of an error that ended a command.
pub fn of(error: &anyhow::Error) -> Code {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return of_failure(failure);
    }
    let is_usage = error.is::<ConfigError>()
        || error.is::<CatalogError>()
        || error.is::<ListenError>()
        || error.is::<Usage>();
    if is_usage {
        return USAGE;
    }
    FAILED
}

/// The code of a failure that a request was answered with.
pub fn of_failure(failure: &Failure) -> Code {
    match failure.data.phase {
        Phase::Request => USAGE,
        Phase::Store => FAILED,
        _ => AGENT,
    }
}

/// The code of a turn that ended by itself, from ACP's `stopReason`.
pub fn of_stop_reason(reason: &str) -> Code {
    match reason {
        "cancelled" => CANCELLED,
        "refusal" | "max_tokens" | "max_turn_requests" => REFUSED,
        _ => DONE,
    }
}
