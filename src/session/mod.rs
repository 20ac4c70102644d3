//! Sessions: one conversation with one agent in one VM, and its transcript.
//!
//! Reading order: [`host`] is what all sessions share, [`vms`] the running VMs,
//! [`client`] a connected client and [`attached`] the same as one session sees it; [`live`] a session with a running agent,
//! [`state`] what it remembers, `commit` how that is stored, [`followers`] who follows it, [`relay`] the way
//! from the agent, [`forward`] the way to it ([`prompts`], [`repeat`], [`cancel`]),
//! [`turns`] how a turn ends, [`callbacks`] what acpbox answers an agent itself
//! ([`roots`], [`terminal`]) and by the [`policy`] for a [`permission`], [`asking`] what it asks
//! its clients, [`delivery`] how all of it gets to them and `catch_up` to those who are slow,
//! [`log`] what an agent says besides, [`ending`] how it
//! ends; [`asked`] what a client wants, [`handshake`] how that is put to an agent,
//! [`start`] how one is started, [`restarts`] how often; [`create`], [`restore`],
//! `stored` (which starts nothing), [`fork`] and [`replay`] begin a session, [`interrupted`] what was left of it;
//! [`comeback`] gives an agent its conversation back, with what was [`kept`] of its
//! creation, its [`settings`] (from what is [`offered`]; the `selection` for one that comes later) and, where it does not
//! remember, a [`preamble`]; [`registry`] finds it, [`leases`] and [`locks`] tell who
//! drives it; [`sleep`] ends what is idle until it is needed; [`index`] lets its
//! words be found, [`usage`] adds up what it used; [`status`] says what it does,
//! `news` what somebody may wait for, and [`hooks`] runs the user's commands then;
//! [`removal`] deletes it, and [`retention`] decides when.

pub mod host;
pub mod vms;
pub mod client;
pub mod attached;
pub mod live;
mod commit;
mod unclaimed;
pub mod followers;
pub mod ending;
pub mod log;
pub mod state;
pub mod relay;
pub mod forward;
pub mod prompts;
pub mod repeat;
pub mod cancel;
pub mod turns;
pub mod callbacks;
pub mod policy;
pub mod permission;
pub mod rules;
mod unanswered;
pub mod asking;
pub mod delivery;
mod catch_up;
pub mod roots;
pub mod terminal;
mod embedded;
pub mod asked;
pub mod handshake;
pub mod start;
pub mod restarts;
pub mod create;
pub mod restore;
mod stored;
pub mod fork;
pub mod comeback;
pub mod kept;
pub mod settings;
mod selection;
pub mod offered;
pub mod preamble;
pub mod replay;
pub mod interrupted;
pub mod locks;
pub mod registry;
pub mod sleep;
pub mod index;
pub mod leases;
pub mod usage;
pub mod status;
mod news;
pub mod hooks;
pub mod removal;
pub mod retention;

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
