//! The way to a server that runs already: a thin shim between a client and the
//! server's socket, which outlives the connection to it.
//!
//! Lines pass both ways as they are. What the shim remembers of them is enough to
//! go on with another connection: a client never notices but by a prompt that
//! ends with a reason, where the server that ran it is gone.
//!
//! - `choice`: whether to use a server. `place`: where it must be and what it must
//!   say of itself. `link`: a connection to it. `spawn`: starting one.
//! - `relay`: both ways, and what becomes of a connection. `restore`: what is said
//!   on a new one. `book`: what is remembered; `requests` and `followed` are its
//!   parts. `edits`: the few changes to messages.

mod choice;
mod place;
mod link;
mod spawn;
mod relay;
mod restore;
mod book;
mod requests;
mod followed;
mod edits;

pub(super) use choice::{Choice, find};
pub(super) use link::Link;
pub(super) use relay::Shim;
