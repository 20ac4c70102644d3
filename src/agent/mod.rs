//! The catalogue of agents, and how each is told where it runs.

pub mod catalog;
pub mod instructions;
