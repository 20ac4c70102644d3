//! Agents: the catalogue of what can be started, a started one as ACP peer, and
//! the example agent.

pub mod catalog;
pub mod instructions;
pub mod process;
pub mod remains;
pub mod example;
