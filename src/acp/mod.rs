//! The Agent Client Protocol's words, and acpbox's own extension of it.
//!
//! Typed ACP messages come from `agent-client-protocol-schema`; they are used
//! only for what acpbox itself says. [`extension`] is the source of `schema/`.

pub mod methods;
pub mod extension;
pub mod schema;
pub mod failure;

pub use failure::{Failure, Phase};
