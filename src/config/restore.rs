//! `[restore]`: how stored sessions come back.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::limits::Size;
use super::units;

/// Shorter ones would be little but their frame.
const LEAST_PREAMBLE_BYTES: usize = 1024;
/// No model reads more; a prompt must stay below `limits.line_bytes` too.
const MOST_PREAMBLE_BYTES: usize = 16 << 20;

/// How sessions come back that their agent does not remember.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Restore {
    /// The most of the transcript that an agent is told in front of the next prompt
    /// when it cannot bring the conversation back itself: 0 for nothing, else
    /// 1 KiB to 16 MiB.
    #[serde(deserialize_with = "preamble_bytes")]
    #[schemars(with = "Size")]
    pub preamble_bytes: usize,
}

impl Default for Restore {
    fn default() -> Restore {
        Restore {
            // About 16,000 tokens: a small part of what models read today.
            preamble_bytes: 64 << 10,
        }
    }
}

fn preamble_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match units::count(deserializer)? {
        bytes @ (0 | LEAST_PREAMBLE_BYTES..=MOST_PREAMBLE_BYTES) => Ok(bytes),
        other => Err(D::Error::custom(format!(
            "{other} bytes; it must be 0 or from 1KiB to 16MiB"
        ))),
    }
}
