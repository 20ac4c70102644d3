//! What acpbox adds to ACP: `_meta.acpbox` on its messages and the `_acpbox/*`
//! methods. JSON Schema and the OpenRPC document in `schema/` are made from
//! these types.

mod meta;
mod requests;
mod html;
mod notices;
mod server;
mod status;

pub use html::*;
pub use meta::*;
pub use notices::*;
pub use requests::*;
pub use server::*;
pub use status::*;
