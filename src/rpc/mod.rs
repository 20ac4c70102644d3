//! JSON-RPC 2.0 over any byte stream, as ACP and LSP libraries write it.
//!
//! Reading order: [`message`] borrows one message's envelope from its text,
//! [`splice`] edits such text in place, [`codec`] finds messages in bytes,
//! [`connection`] reads and writes them with bounds, [`pending`] remembers who
//! waits for which response, [`stdio`] opens this process's own streams.

pub mod message;
pub mod splice;
pub mod codec;
pub mod connection;
pub mod pending;
pub mod stdio;

pub use codec::{Framing, Limits};
pub use connection::{BatchReader, Outbox, OutboxClosed, Room, write_loop};
pub use message::{Body, Malformed, Message, Outcome};
pub use pending::Pending;
