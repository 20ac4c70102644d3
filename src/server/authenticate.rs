//! Methods that concern the agent rather than a session: they go to an agent
//! that runs for this client, and start one where none does.

use std::sync::Arc;

use super::connection::Connection;
use super::dispatch::{Answer, Request};
use crate::acp::extension::SessionOptions;
use crate::acp::{Failure, Phase};
use crate::session::Live;
use crate::session::create::Refusal;

impl Connection {
    /// `authenticate`, `logout`, `providers/*`, `auth/*`.
    pub(super) async fn to_agent_of_connection(
        self: Arc<Self>,
        _request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let live = self.agent_of_connection().await?;
        Ok(Answer::Forward(live))
    }

    /// The agent that asked for authentication, else the newest that runs, else
    /// a new one in the workspace that acpbox was started in.
    async fn agent_of_connection(&self) -> Result<Arc<Live>, Failure> {
        if let Some(parked) = self.client.parked() {
            return Ok(parked);
        }
        let host = &self.server.host;
        let newest = host
            .registry
            .all()
            .into_iter()
            .max_by(|one, other| one.id.cmp(&other.id));
        if let Some(live) = newest {
            return Ok(live);
        }
        let cwd = std::env::current_dir().map_err(|error| {
            Failure::internal(
                Phase::Spawn,
                format!("acpbox's own working folder: {error}"),
            )
        })?;
        let live = host.start_without_session(&self.client, cwd).await?;
        // Another request may have started one meanwhile; one is enough.
        if let Some(parked) = self.client.parked() {
            live.close().await;
            return Ok(parked);
        }
        let options = SessionOptions::default();
        if let Some(other) = self.client.park(Arc::clone(&live), options) {
            other.close().await;
        }
        Ok(live)
    }
}
