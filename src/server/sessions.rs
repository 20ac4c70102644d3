//! The session methods that acpbox answers itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::connection::Connection;
use super::dispatch::{Answer, Request};
use crate::acp::extension::{ListOptions, ListedSession, SessionState};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::config::parse_moment;
use crate::rpc::{message, splice};
use crate::session::create::Refusal;
use crate::session::kept::forked_from;
use crate::session::sleep::SLEEPING;
use crate::session::state::now;
use crate::session::{leases, removal, usage};
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
        // From then on a cancel comes too late: the answer is on its way.
        let decided = || self.end(request.id());
        host.reconnect(&self.client, request.id(), params, with_replay, decided)
            .await?;
        Ok(Answer::Sent)
    }

    pub(super) async fn session_fork(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let params = request.params();
        let host = &self.server.host;
        host.fork_session(&self.client, &request.text, request.id(), params)
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
        let host = &self.server.host;
        let folder = host.registry.leases().to_path_buf();
        let live = tokio::task::spawn_blocking(move || leases::held(&folder));
        let live = live.await.unwrap_or_default();
        let options = list_options(params)?;
        let filter = SessionFilter {
            cwd: text("cwd")?.map(PathBuf::from),
            agent: options.agent,
            vm: options.vm,
            since: moment("since", options.since.as_deref())?,
            until: moment("until", options.until.as_deref())?,
            below,
            limit: PAGE_SESSIONS + 1,
            ..SessionFilter::default()
        };
        let filter = in_state(filter, options.state, &live);
        let mut rows = host.store.sessions(filter).await.map_err(Failure::from)?;
        let has_more = rows.len() > PAGE_SESSIONS;
        rows.truncate(PAGE_SESSIONS);
        let cursor = rows
            .last()
            .filter(|_| has_more)
            .map(|last| format!("{}:{}", last.updated, last.id));
        let sessions: Vec<Value> = rows.iter().map(|row| session_info(row, &live)).collect();
        let mut result = json!({ "sessions": sessions });
        if let Some(cursor) = cursor {
            result["nextCursor"] = cursor.into();
        }
        Ok(Answer::Result(result.to_string()))
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
        if let Some(live) = slot.live() {
            live.check_control(&self.client)?;
        }
        if let Some(live) = slot.take() {
            live.close().await;
        }
        // Another process may drive it, and would go on; also where its agent
        // ended here. Until all is written nobody brings it back.
        let lease = host.lease(&id).await?;
        let ended = host.end_interrupted(&id).await;
        ended.map_err(Failure::from)?;
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
        drop(lease);
        drop(slot);
        host.registry.sweep();
        Ok(Answer::Result("{}".into()))
    }

    /// Ends the agent and removes all that is stored of the session, here and by
    /// the agent.
    pub(super) async fn session_delete(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let id = required_session(&request)?;
        let host = &self.server.host;
        let slot = host.registry.slot(&id);
        let mut slot = slot.lock().await;
        let mut agent_session = false;
        if let Some(live) = slot.live() {
            live.check_control(&self.client)?;
        }
        if let Some(live) = slot.take() {
            agent_session = live.delete_own().await;
            live.close().await;
        }
        let row = host.store.session(&id).await.map_err(Failure::from)?;
        let Some(row) = row else {
            return Err(Failure::unknown_session(&id).into());
        };
        let _lease = host.lease(&id).await?;
        let deleted = removal::remove(&host.store, &row, agent_session)
            .await
            .map_err(Failure::from)?;
        drop(slot);
        host.registry.sweep();
        let Some(deleted) = deleted else {
            return Err(Failure::unknown_session(&id).into());
        };
        Ok(Answer::Result(
            json!({ "_meta": { "acpbox": deleted } }).to_string(),
        ))
    }
}

fn session_info(row: &SessionRow, live: &HashMap<String, u32>) -> Value {
    let ours = ListedSession {
        agent: row.agent.clone(),
        vm: row.vm.clone(),
        state: state(row, live),
        created_at: timestamp(row.created),
        usage: usage::shown(&row.usage),
        forked_from: forked_from(row),
    };
    let mut info = json!({
        "sessionId": row.id,
        "cwd": row.cwd,
        "updatedAt": timestamp(row.updated),
        "_meta": { "acpbox": ours },
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

/// A session's state, `live` being those that are driven now.
pub fn state(row: &SessionRow, live: &HashMap<String, u32>) -> SessionState {
    match row.state.as_str() {
        _ if live.contains_key(&row.id) => SessionState::Live,
        "closed" => SessionState::Closed,
        SLEEPING => SessionState::Sleeping,
        _ => SessionState::Open,
    }
}

/// Narrows a filter to one state, so that pages and limits count what is left.
pub fn in_state(
    filter: SessionFilter,
    state: Option<SessionState>,
    live: &HashMap<String, u32>,
) -> SessionFilter {
    let ids = || live.keys().cloned().collect();
    match state {
        None => filter,
        Some(SessionState::Live) => SessionFilter {
            among: Some(ids()),
            ..filter
        },
        Some(stored) => SessionFilter {
            state: Some(match stored {
                SessionState::Closed => "closed".into(),
                SessionState::Sleeping => SLEEPING.into(),
                _ => "open".into(),
            }),
            except: ids(),
            ..filter
        },
    }
}

fn list_options(params: Option<&str>) -> Result<ListOptions, Failure> {
    let ours = params
        .and_then(|params| splice::member(params, "_meta"))
        .and_then(|meta| splice::member(meta, "acpbox"))
        .filter(|ours| *ours != "null");
    match ours {
        None => Ok(ListOptions::default()),
        Some(ours) => serde_json::from_str(ours)
            .map_err(|error| Failure::invalid_params(format!("`_meta.acpbox`: {error}"))),
    }
}

fn moment(key: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let moment = parse_moment(text, now());
    moment.map(Some).ok_or_else(|| {
        Failure::invalid_params(format!(
            "`_meta.acpbox.{key}` is {text:?}; write a time such as 2026-11-01T10:00:00Z, a date such as 2026-11-01, or a duration before now such as 7d"
        ))
    })
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
