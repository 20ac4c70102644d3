//! Integration tests through the real binary.

mod vm;
