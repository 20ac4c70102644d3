//! Integration tests through the real binary.

// Helpers of tests may end a test by panicking, as the tests themselves do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
// The support is shared, and not every test file uses all of it.
#![allow(dead_code, unreachable_pub)]

mod support;
mod example;
mod peers;
mod cli;
mod clients;
mod schema;
mod durability;
mod isolation;
mod real_agents;
mod real_clients;
mod remote_clients;
mod relay;
mod framing;
mod rpc;
mod turns;
mod races;
mod callbacks;
mod permissions;
mod serve;
mod shim;
mod attach;
mod status;
mod attach_command;
mod hooks;
mod logging;
mod http;
mod tls;
mod web;
mod sessions;
mod comeback;
mod preamble;
mod fork;
mod sleep;
mod secrets;
mod crash;
mod faults;
mod leaks;
mod scripted;
mod search;
mod store;
mod vm;
mod render;
mod html;
mod import;
mod replay_command;
mod tidy;
mod editors;
mod keeping;
