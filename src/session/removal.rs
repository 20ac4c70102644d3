//! Deleting a session for good: its transcript and log, and what its agent left.

use std::time::Duration;

use super::live::Live;
use crate::acp::extension::{DeleteMeta, RemovedSession};
use crate::acp::methods;
use crate::agent::remains;
use crate::rpc::splice;
use crate::store::{SessionFilter, SessionRow, Store, StoreError};

/// How long an agent may take to delete its own session. A guess: it has a few
/// files to remove.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deletes a session, which the caller must hold the lease of. `agent_session`
/// says whether the agent deleted its own already. `None` if there is none.
pub async fn remove(
    store: &Store,
    row: &SessionRow,
    agent_session: bool,
) -> Result<Option<DeleteMeta>, StoreError> {
    // While the row is there, what fails can be tried again.
    let left = remove_remains(store, row).await?;
    let Some(deleted) = store.delete_session(&row.id).await? else {
        return Ok(None);
    };
    Ok(Some(DeleteMeta {
        removed: RemovedSession {
            events: deleted.events,
            log_lines: deleted.log_lines,
            agent_files: left.files,
            agent_session,
        },
        kept: left.kept,
    }))
}

async fn remove_remains(store: &Store, row: &SessionRow) -> Result<remains::Removed, StoreError> {
    // A name alone leads nowhere: it must be a VM that acpbox has made.
    let vms = store.vms().await?;
    let Some(vm) = vms.into_iter().find(|vm| vm.name == row.vm) else {
        return Ok(remains::Removed::default());
    };
    if vm.driver == "host" {
        let kept = format!(
            "driver `host` isolates nothing: what `{}` keeps is in your own home",
            row.agent
        );
        return Ok(remains::Removed {
            files: 0,
            kept: vec![kept],
        });
    }
    let mut agent_session = row.agent_session.clone();
    let mut shared = None;
    if agent_session.is_some() {
        let filter = SessionFilter {
            agent_session: agent_session.clone(),
            vm: Some(row.vm.clone()),
            limit: 2,
            ..SessionFilter::default()
        };
        let others = store.sessions(filter).await?;
        if let Some(other) = others.into_iter().find(|other| other.id != row.id) {
            agent_session = None;
            shared = Some(format!(
                "the agent's own files: session {} goes on with them",
                other.id
            ));
        }
    }
    let (session, agent) = (row.id.clone(), row.agent.clone());
    let removed = tokio::task::spawn_blocking(move || {
        remains::remove(&vm.state_dir, &session, &agent, agent_session.as_deref())
    });
    let mut removed = removed.await.unwrap_or_else(|error| remains::Removed {
        files: 0,
        kept: vec![format!("the agent's own files: {error}")],
    });
    removed.kept.extend(shared);
    Ok(removed)
}

impl Live {
    /// Has the agent delete its own session, if it offers that. Whether it did.
    pub async fn delete_own(&self) -> bool {
        let initialized = self.initialized();
        let offer = splice::member(&initialized, "agentCapabilities")
            .and_then(|all| splice::member(all, "sessionCapabilities"))
            .and_then(|sessions| splice::member(sessions, "delete"));
        let own = self.state().row.agent_session.clone();
        let (Some(own), true) = (own, offer.is_some_and(|it| it != "null" && it != "false")) else {
            return false;
        };
        let params = serde_json::json!({ "sessionId": own }).to_string();
        let answer = self
            .request(methods::SESSION_DELETE, &params, PATIENCE)
            .await;
        if let Err(error) = &answer {
            tracing::info!(?error, "the agent did not delete its own session");
        }
        answer.is_ok()
    }
}
