//! The session methods that acpbox answers itself.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::connection::Connection;
use super::dispatch::{Answer, Request};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::session::create::Refusal;
use crate::store::{SessionFilter, SessionRow};

/// Sessions on one page of `session/list`.
const PAGE_SESSIONS: usize = 100;

impl Connection {
    pub(super) async fn session_new(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let params = request.params();
        let host = &self.server.host;
        host.new_session(&self.client, &request.text, request.id(), params)
            .await?;
        Ok(Answer::Sent)
    }

    /// `session/load` and `session/resume`.
    pub(super) async fn session_reconnect(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let with_replay = &*request.method == methods::SESSION_LOAD;
        let params = request.params();
        let host = &self.server.host;
        host.reconnect(&self.client, request.id(), params, with_replay)
            .await?;
        Ok(Answer::Sent)
    }

    pub(super) async fn session_list(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let params = request.params();
        let text = |key: &str| -> Result<Option<String>, Failure> {
            match params.and_then(|params| splice::member(params, key)) {
                None | Some("null") => Ok(None),
                Some(raw) => message::string(raw)
                    .map(|text| Some(text.into_owned()))
                    .ok_or_else(|| Failure::invalid_params(format!("`{key}` must be a string"))),
            }
        };
        let below = text("cursor")?
            .map(|cursor| parse_cursor(&cursor))
            .transpose()?;
        let filter = SessionFilter {
            cwd: text("cwd")?.map(PathBuf::from),
            below,
            limit: PAGE_SESSIONS + 1,
            ..SessionFilter::default()
        };
        let host = &self.server.host;
        let mut rows = host.store.sessions(filter).await.map_err(Failure::from)?;
        let has_more = rows.len() > PAGE_SESSIONS;
        rows.truncate(PAGE_SESSIONS);
        let cursor = rows
            .last()
            .filter(|_| has_more)
            .map(|last| format!("{}:{}", last.updated, last.id));
        let sessions: Vec<Value> = rows.iter().map(|row| self.session_info(row)).collect();
        let mut result = json!({ "sessions": sessions });
        if let Some(cursor) = cursor {
            result["nextCursor"] = cursor.into();
        }
        Ok(Answer::Result(result.to_string()))
    }

    fn session_info(&self, row: &SessionRow) -> Value {
        let is_live = self.server.host.registry.live(&row.id).is_some();
        let mut info = json!({
            "sessionId": row.id,
            "cwd": row.cwd,
            "updatedAt": timestamp(row.updated),
            "_meta": { "acpbox": {
                "agent": row.agent,
                "vm": row.vm,
                "state": if is_live { "live" } else { row.state.as_str() },
                "createdAt": timestamp(row.created),
            } },
        });
        if let Some(title) = &row.title {
            info["title"] = title.as_str().into();
        }
        let options: Value = serde_json::from_str(&row.options).unwrap_or_default();
        if let Some(folders) = options
            .get("additionalDirectories")
            .filter(|folders| !folders.as_array().is_none_or(Vec::is_empty))
        {
            info["additionalDirectories"] = folders.clone();
        }
        info
    }

    /// Ends the agent; the transcript stays.
    pub(super) async fn session_close(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let id = required_session(&request)?;
        let host = &self.server.host;
        let slot = host.registry.slot(&id);
        let mut slot = slot.lock().await;
        let row = host.store.session(&id).await.map_err(Failure::from)?;
        let Some(row) = row else {
            return Err(Failure::unknown_session(&id).into());
        };
        // Another process may drive it, and would go on.
        let _lease = match slot.take() {
            Some(live) => {
                live.close().await;
                None
            }
            None => {
                let lease = host.lease(&id).await?;
                let ended = host.end_interrupted(&id).await;
                ended.map_err(Failure::from)?;
                Some(lease)
            }
        };
        drop(slot);
        host.registry.sweep();
        let row = SessionRow {
            state: "closed".into(),
            ..host
                .store
                .session(&id)
                .await
                .map_err(Failure::from)?
                .unwrap_or(row)
        };
        host.store
            .update_session(&row)
            .await
            .map_err(Failure::from)?;
        Ok(Answer::Result("{}".into()))
    }

    /// Ends the agent and removes all that is stored of the session.
    pub(super) async fn session_delete(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let id = required_session(&request)?;
        let host = &self.server.host;
        let slot = host.registry.slot(&id);
        let mut slot = slot.lock().await;
        if let Some(live) = slot.take() {
            live.close().await;
        }
        if host
            .store
            .session(&id)
            .await
            .map_err(Failure::from)?
            .is_none()
        {
            return Err(Failure::unknown_session(&id).into());
        }
        let _lease = host.lease(&id).await?;
        let deleted = host
            .store
            .delete_session(&id)
            .await
            .map_err(Failure::from)?;
        drop(slot);
        host.registry.sweep();
        let Some(deleted) = deleted else {
            return Err(Failure::unknown_session(&id).into());
        };
        let removed = json!({ "events": deleted.events, "logLines": deleted.log_lines });
        Ok(Answer::Result(
            json!({ "_meta": { "acpbox": { "removed": removed } } }).to_string(),
        ))
    }
}

fn required_session(request: &Request) -> Result<String, Failure> {
    let raw = request
        .params()
        .and_then(|params| splice::member(params, "sessionId"));
    raw.and_then(message::string)
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| Failure::invalid_params("`sessionId` is missing, a string"))
}

fn parse_cursor(cursor: &str) -> Result<(i64, String), Failure> {
    let parts = cursor
        .split_once(':')
        .and_then(|(updated, id)| Some((updated.parse().ok()?, id.to_owned())));
    parts.ok_or_else(|| {
        Failure::new(
            Phase::Request,
            crate::acp::failure::INVALID_PARAMS,
            "Invalid params: `cursor` is none of acpbox's; leave it out for the first page",
        )
    })
}

/// ISO 8601, as ACP has it.
pub fn timestamp(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| String::new(), |time| time.to_string())
}
