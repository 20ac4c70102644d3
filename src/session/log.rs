//! What an agent writes besides the protocol: kept, and sent to those who asked.

use super::live::Live;
use super::state::now;
use crate::acp::extension::AgentStderr;
use crate::acp::methods;
use crate::rpc::message;
use crate::store::LogLine;

/// Lines of an agent's log that are kept until its session has a row; each is
/// 8 KiB at most.
const EARLY_LINES: usize = 1000;

impl Live {
    /// Keeps lines for `_acpbox/agent/logs` and sends them to clients that asked for them.
    pub(super) async fn log(&self, stream: &'static str, lines: Vec<String>) {
        let time = now();
        let clients = {
            let state = self.state();
            let clients = state.clients.iter().filter(|known| known.is_live());
            let clients = clients.map(|attached| &attached.client);
            clients
                .filter(|client| client.offer().options.agent_notifications)
                .cloned()
                .collect::<Vec<_>>()
        };
        if !clients.is_empty() && stream == "stderr" {
            let params = AgentStderr {
                session_id: self.id.to_string(),
                lines: lines.clone(),
            };
            let params = serde_json::to_string(&params).unwrap_or_default();
            let line = message::notification(methods::AGENT_STDERR, &params);
            let is_only_one = self.state().clients.len() == 1;
            for client in clients {
                if !is_only_one {
                    // One that lags behind does without: the log has them.
                    let _ = client.outbox.try_send(&line);
                    continue;
                }
                tokio::select! {
                    biased;
                    _ = client.outbox.send(&line) => {}
                    () = self.unheard.cancelled() => {}
                }
            }
        }
        let rows = lines.into_iter().map(|text| LogLine { time, stream, text });
        {
            let mut state = self.state();
            if !state.is_stored {
                state.early_log.extend(rows);
                let over = state.early_log.len().saturating_sub(EARLY_LINES);
                state.early_log.drain(..over);
                return;
            }
        }
        self.keep_log(rows.collect()).await;
    }

    /// Keeps the lines that came before the session had its row.
    pub(super) async fn open_log(&self) {
        let early = std::mem::take(&mut self.state().early_log);
        if !early.is_empty() {
            self.keep_log(early.into()).await;
        }
    }

    async fn keep_log(&self, rows: Vec<LogLine>) {
        let kept = self
            .store
            .append_log(&self.id, rows, self.bounds.stderr_bytes)
            .await;
        if let Err(error) = kept {
            tracing::debug!(%error, "lines of the agent's log were not kept");
        }
    }
}
