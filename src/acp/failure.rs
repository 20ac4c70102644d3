//! A failure that names itself: what acpbox was doing, how the agent ended,
//! its last words, and what to try. Becomes a JSON-RPC error with ACP's codes.

use std::fmt;

use jsonrpsee_types::ErrorObjectOwned;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ACP: the client must authenticate first.
pub const AUTH_REQUIRED: i32 = -32000;
/// ACP: a session, file or other resource does not exist.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// ACP: the request was cancelled.
pub const REQUEST_CANCELLED: i32 = -32800;
pub const INVALID_REQUEST: i32 = -32600;
pub const METHOD_NOT_FOUND: i32 = -32601;
pub const INVALID_PARAMS: i32 = -32602;
pub const INTERNAL_ERROR: i32 = -32603;

/// What acpbox was doing when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading the client's request.
    Request,
    /// Booting the VM.
    Boot,
    /// Finding the agent's program and starting it.
    Spawn,
    /// Waiting for the agent's answer to `initialize`.
    Initialize,
    /// Creating or restoring the agent's session.
    Session,
    /// A prompt turn.
    Turn,
    /// Reading or writing the transcript.
    Store,
}

/// `error.data` of errors that acpbox makes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureData {
    pub phase: Phase,
    /// How the agent's process ended, in words, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// The last lines of the agent's stderr.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stderr: Vec<String>,
    /// What to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether nothing was begun because acpbox ends: the next server can be asked the same.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub ending: bool,
}

#[derive(Debug, Clone)]
pub struct Failure {
    pub code: i32,
    pub message: String,
    pub data: Box<FailureData>,
}

impl Failure {
    pub fn new(phase: Phase, code: i32, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            data: Box::new(FailureData {
                phase,
                exit: None,
                stderr: Vec::new(),
                hint: None,
                ending: false,
            }),
        }
    }

    /// The client's own mistake in a request's parameters; `what` names the field and the fix.
    pub fn invalid_params(what: impl Into<String>) -> Failure {
        Failure::new(
            Phase::Request,
            INVALID_PARAMS,
            format!("Invalid params: {}", what.into()),
        )
    }

    pub fn internal(phase: Phase, message: impl Into<String>) -> Failure {
        Failure::new(phase, INTERNAL_ERROR, message)
    }

    pub fn unknown_session(id: &str) -> Failure {
        Failure::new(
            Phase::Request,
            RESOURCE_NOT_FOUND,
            format!(
                "Resource not found: there is no session `{id}`; session/list names those there are"
            ),
        )
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.data.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn exit(mut self, exit: impl Into<String>) -> Failure {
        self.data.exit = Some(exit.into());
        self
    }

    #[must_use]
    pub fn stderr(mut self, lines: Vec<String>) -> Failure {
        self.data.stderr = lines;
        self
    }

    pub fn to_error_object(&self) -> ErrorObjectOwned {
        ErrorObjectOwned::owned(self.code, self.message.clone(), Some(&self.data))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.message)?;
        if let Some(exit) = &self.data.exit {
            write!(formatter, " ({exit})")?;
        }
        if let Some(hint) = &self.data.hint {
            write!(formatter, "\n{hint}")?;
        }
        for line in &self.data.stderr {
            write!(formatter, "\n  | {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
