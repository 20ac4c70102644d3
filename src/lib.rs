//! acpbox: an ACP agent to the editor, an ACP client to the agent, a VM and a
//! durable transcript in between.
//!
//! Rooms, lowest first; imports run downwards only (a test holds this):
//!
//! - [`rpc`]: JSON-RPC 2.0 over any byte stream. Does not know sessions.
//! - [`vm`]: drivers that boot VMs and start processes in them. Does not know ACP.
//! - [`store`]: the SQLite transcript. Does not know message types.
//! - [`acp`]: ACP's words and our own `_acpbox` types (the source of `schema/`).
//! - [`config`]: files, flags and environment become one `Config`.
//! - [`agent`]: the catalogue of agents, and an agent process as ACP peer.
//! - [`transcript`]: stored events become what people and programs read.
//! - [`session`]: the state machine, relay, permission policy and terminals.
//! - [`server`]: dispatch and handlers for connected clients.
//! - [`cli`]: one file per subcommand.

pub mod rpc;
pub mod vm;
pub mod store;
pub mod acp;
pub mod config;
pub mod agent;
pub mod transcript;
pub mod session;
pub mod server;
pub mod cli;
