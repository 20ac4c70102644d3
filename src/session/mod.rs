//! Sessions: one conversation with one agent in one VM, and its transcript.
//!
//! Reading order: [`host`] is what all sessions share, [`vms`] the running VMs,
//! [`client`] a connected client; [`live`] a session with a running agent,
//! [`state`] what it remembers, [`relay`] the way from the agent, [`forward`]
//! the way to it, [`callbacks`] what acpbox answers an agent itself ([`roots`],
//! [`terminal`]), [`log`] what an agent says besides, [`ending`] how it ends;
//! [`asked`] what a client wants, [`handshake`] how that is put to an
//! agent, [`start`] how one is started; [`create`], [`restore`] and [`replay`] begin a session;
//! [`registry`] finds it, by its lease where another process may have it.

pub mod host;
pub mod vms;
pub mod client;
pub mod live;
pub mod ending;
pub mod log;
pub mod state;
pub mod relay;
pub mod forward;
pub mod callbacks;
pub mod roots;
pub mod terminal;
mod embedded;
pub mod asked;
pub mod handshake;
pub mod start;
pub mod create;
pub mod restore;
pub mod replay;
pub mod registry;
mod leases;

pub use client::{Client, Offer};
pub use host::Host;
pub use live::Live;
pub use registry::Registry;

impl From<crate::store::StoreError> for crate::acp::Failure {
    fn from(error: crate::store::StoreError) -> crate::acp::Failure {
        let what = format!("Internal error: {error}");
        crate::acp::Failure::internal(crate::acp::Phase::Store, what)
    }
}
