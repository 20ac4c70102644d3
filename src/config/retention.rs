//! `[retention]`: how long sessions are kept.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// What is over one of these is deleted, longest unused first; a live session
/// never. Without any, everything is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Since a session was last used, such as `90d`.
    #[serde(deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<String>")]
    pub max_age: Option<Duration>,
    /// How many sessions are kept.
    pub max_sessions: Option<u64>,
    /// What the database may use, such as `10GiB`.
    #[serde(deserialize_with = "units::optional_size")]
    #[schemars(with = "Option<String>")]
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Whether everything is kept.
    pub fn is_unlimited(&self) -> bool {
        *self == Retention::default()
    }
}
