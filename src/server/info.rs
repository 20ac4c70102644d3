//! Which server this is.

use std::sync::{Arc, LazyLock};

use super::status::Observed;
use crate::acp::Failure;
use crate::acp::extension::{SHIM_PROTOCOL, ServerInfo, ServerInfoRequest};
use crate::session::Host;

static INSTANCE: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().simple().to_string());

pub(super) async fn info(
    host: Arc<Host>,
    observed: Arc<Observed>,
    _: ServerInfoRequest,
) -> Result<ServerInfo, Failure> {
    let paths = &host.config.paths;
    Ok(ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        instance: INSTANCE.clone(),
        database: paths.database.clone(),
        config: paths.config_file.clone(),
        protocol: SHIM_PROTOCOL,
        spawned: observed.retirement.get().is_some(),
    })
}
