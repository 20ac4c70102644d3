//! Integration tests through the real binary.

mod store;
mod render;
