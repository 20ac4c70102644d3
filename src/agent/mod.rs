//! agent

pub mod example;
