//! Agents: the catalogue of what can be started, and a started one as ACP peer.

pub mod process;
