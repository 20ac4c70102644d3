//! What acpbox adds to ACP: `_meta.acpbox` on its messages and the `_acpbox/*`
//! methods. JSON Schema and the OpenRPC document in `schema/` are made from
//! these types.

mod meta;
mod requests;
mod notices;
mod server;

pub use meta::*;
pub use notices::*;
pub use requests::*;
pub use server::*;
