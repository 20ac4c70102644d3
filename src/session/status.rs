//! What sessions do right now, for whoever watches.

use std::sync::Arc;

use tokio::time::Instant;

use super::catch_up::Lag;
use super::client::Client;
use super::host::Host;
use super::live::Live;
use super::state::now;
use crate::acp::extension::{Activity, Following, SessionStatus};
use crate::store::{SessionFilter, SessionRow, StoreError};

impl Live {
    /// What this session does right now.
    pub fn status(&self) -> SessionStatus {
        let state = self.state();
        let pending_requests = state.questions.len();
        let activity = match () {
            () if state.is_leaving || state.ended.is_some() => Activity::Asleep,
            () if pending_requests > 0 => Activity::WaitingForPermission,
            () if state.is_busy() => Activity::Prompting,
            () => Activity::Idle,
        };
        SessionStatus {
            session_id: self.id.to_string(),
            agent: self.agent_name.clone(),
            vm: self.vm_name.clone(),
            cwd: state.row.cwd.clone(),
            title: state.row.title.clone(),
            state: activity,
            clients: state.clients.len(),
            queued_prompts: state.queue.len(),
            pending_requests,
            last_activity: milliseconds(state.active),
        }
    }

    /// How a client follows the session, if it does.
    pub fn following(&self, client: &Arc<Client>) -> Option<Following> {
        let state = self.state();
        let mut clients = state.clients.iter();
        let attached = clients.find(|known| Arc::ptr_eq(&known.client, client))?;
        let lag = attached.lag();
        let behind = lag.map_or(0, |lag| state.shown.saturating_sub(lag.cursor()));
        Some(Following {
            session_id: self.id.to_string(),
            role: attached.role,
            behind: u64::try_from(behind).unwrap_or(0),
            kept_bytes: lag.map_or(0, Lag::kept_bytes),
        })
    }
}

impl Host {
    /// Every session that this process drives or put to sleep, the newest first.
    pub async fn sessions_status(&self) -> Result<Vec<SessionStatus>, StoreError> {
        self.registry.sweep();
        let mut all: Vec<_> = (self.registry.all().iter())
            .map(|live| live.status())
            .collect();
        let asleep = self.registry.asleep();
        if !asleep.is_empty() {
            let filter = SessionFilter {
                limit: asleep.len(),
                among: Some(asleep),
                ..SessionFilter::default()
            };
            let rows = self.store.sessions(filter).await?;
            // One may have woken meanwhile.
            let is_live = |row: &SessionRow| all.iter().any(|it| it.session_id == row.id);
            let asleep: Vec<_> = rows.into_iter().filter(|row| !is_live(row)).collect();
            all.extend(asleep.into_iter().map(sleeping));
        }
        // Ids begin with the time at which they were made.
        all.sort_by(|one, other| other.session_id.cmp(&one.session_id));
        Ok(all)
    }
}

fn sleeping(row: SessionRow) -> SessionStatus {
    SessionStatus {
        session_id: row.id,
        agent: row.agent,
        vm: row.vm,
        cwd: row.cwd,
        title: row.title,
        state: Activity::Asleep,
        clients: 0,
        queued_prompts: 0,
        pending_requests: 0,
        last_activity: row.updated,
    }
}

/// A moment as milliseconds since 1970.
pub fn milliseconds(at: Instant) -> i64 {
    now() - i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)
}
