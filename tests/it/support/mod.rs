//! What the integration tests stand on: peers that do as they are told.

pub mod bare;
pub mod browser;
pub mod client;
pub mod clients;
pub mod endings;
pub mod inside;
pub mod model;
pub mod older;
pub mod peers;
pub mod raw;
pub mod scripted;
pub mod setup;
pub mod site;
pub mod steps;
pub mod transcripts;
