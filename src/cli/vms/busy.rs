//! Whether a turn runs in a VM, told from the transcripts: its acpbox is not asked.

use crate::session::Registry;
use crate::store::{Store, StoreError};

/// A live session of the VM with a turn that has no end yet.
pub(super) async fn session_in_turn(
    store: &Store,
    registry: &Registry,
    vm: &str,
) -> Result<Option<String>, StoreError> {
    for id in registry.live_anywhere() {
        let row = store.session(&id).await?;
        if row.is_some_and(|row| row.vm == vm) && !store.open_turns(&id).await?.is_empty() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
