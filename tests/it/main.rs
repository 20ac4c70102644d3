//! Integration tests through the real binary.

mod render;
mod store;
mod vm;
