//! What happened that somebody may wait for, found among the events that were just
//! written: the end of a turn, a question, the end of an agent. Replays write
//! nothing, so that nothing is news twice.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::policy::ToolCalls;
use super::state::State;
use crate::acp::methods;
use crate::rpc::{message, splice};
use crate::store::{Direction, EventRow, SessionRow};
use crate::transcript::printable_line;

/// The longest text in a piece of news, in characters.
const TEXT_CHARACTERS: usize = 500;

/// Options of a question that are told.
const OPTIONS: usize = 16;

/// What a piece of news is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    TurnEnded,
    PermissionAsked,
    AgentExited,
}

/// Something that happened in a session.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) occasion: Occasion,
    pub(super) session: Arc<str>,
    /// The number of the event.
    pub(super) seq: i64,
    pub(super) agent: String,
    /// In a few words: how the turn ended, what is asked for, how the agent ended.
    pub(super) summary: String,
    /// The session's title; empty before it has one.
    pub(super) title: String,
    /// What a hook gets. All text in it is printable and short.
    pub(super) params: Value,
}

impl Occasion {
    /// Its name in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Occasion::TurnEnded => "turn_ended",
            Occasion::PermissionAsked => "permission_asked",
            Occasion::AgentExited => "agent_exited",
        }
    }
}

/// The news among a session's events that are written together. A session that
/// does not come about is none: its client is told, and nothing is kept.
pub(super) fn of(state: &State, events: &[EventRow]) -> Vec<News> {
    match state.is_stored {
        true => among(&state.row, &state.tool_calls, events),
        false => Vec::new(),
    }
}

fn among(row: &SessionRow, calls: &ToolCalls, events: &[EventRow]) -> Vec<News> {
    let mut news = Vec::new();
    // Prompts that never had a turn end too; nobody waited for a turn of theirs.
    let mut reason = None;
    for (index, event) in events.iter().enumerate() {
        let found = match &*event.kind {
            methods::TURN_END => {
                reason = Some(text(params(event), "reason"));
                None
            }
            "session/prompt:result" | "session/prompt:error" => {
                let reason = reason.take();
                let is_turn = event.direction == Direction::Agent || reason.is_some();
                is_turn.then(|| turn_ended(event, reason))
            }
            methods::REQUEST_PERMISSION if !is_answered(event, &events[index..]) => {
                Some(permission_asked(event, calls))
            }
            methods::AGENT_EXIT => agent_exited(event),
            _ => None,
        };
        if let Some((occasion, summary, extra)) = found {
            news.push(about(row, event, occasion, summary, extra));
        }
    }
    news
}

type Found = (Occasion, String, Value);

fn turn_ended(event: &EventRow, reason: Option<String>) -> Found {
    let result = splice::member(&event.raw, "result");
    let error = splice::member(&event.raw, "error");
    let mut extra = Map::new();
    let summary = match error {
        Some(error) => {
            let message = text(Some(error), "message");
            extra.insert("error".into(), message.as_str().into());
            format!("failed: {message}")
        }
        None => {
            let stop = text(result, "stopReason");
            extra.insert("stopReason".into(), stop.as_str().into());
            match stop.as_str() {
                "end_turn" => "has finished".to_owned(),
                other => format!("stopped: {}", other.replace('_', " ")),
            }
        }
    };
    if let Some(reason) = reason {
        extra.insert("reason".into(), reason.into());
    }
    (Occasion::TurnEnded, summary, extra.into())
}

/// Some agents say what a tool call is when they tell of it, and not when they ask.
fn permission_asked(event: &EventRow, calls: &ToolCalls) -> Found {
    let params = params(event);
    let call = params.and_then(|params| splice::member(params, "toolCall"));
    let id = call.and_then(|call| splice::member(call, "toolCallId"));
    let told = id.and_then(message::string).and_then(|id| calls.get(&id));
    let options: Vec<&serde_json::value::RawValue> = params
        .and_then(|params| splice::member(params, "options"))
        .and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default();
    let options = options.iter().take(OPTIONS).map(|option| {
        let option = Some(option.get());
        json!({ "name": text(option, "name"), "kind": text(option, "kind") })
    });
    let (mut title, mut kind) = (text(call, "title"), text(call, "kind"));
    if title.is_empty()
        && let Some(told) = told.and_then(|told| told.title.known())
    {
        title = short(told);
    }
    if kind.is_empty()
        && let Some(told) = told.and_then(|told| told.kind.known())
    {
        kind = told.name().to_owned();
    }
    let summary = match title.is_empty() {
        true => "asks for permission".to_owned(),
        false => format!("asks: {title}"),
    };
    let extra = json!({
        "toolCall": { "title": title, "kind": kind },
        "options": options.collect::<Vec<_>>(),
    });
    (Occasion::PermissionAsked, summary, extra)
}

/// An agent that ended with its session is no news.
fn agent_exited(event: &EventRow) -> Option<Found> {
    let params = params(event);
    let member = |key: &str| params.and_then(|params| splice::member(params, key));
    if member("closed") == Some("true") {
        return None;
    }
    let exit = text(params, "exit");
    let mut extra = json!({ "exit": exit });
    for key in ["code", "signal"] {
        if let Some(number) = member(key).and_then(|raw| raw.parse::<i32>().ok()) {
            extra[key] = number.into();
        }
    }
    let reason = text(params, "reason");
    if !reason.is_empty() {
        extra["reason"] = reason.into();
    }
    Some((Occasion::AgentExited, format!("has ended: {exit}"), extra))
}

fn about(
    row: &SessionRow,
    event: &EventRow,
    occasion: Occasion,
    summary: String,
    extra: Value,
) -> News {
    let title = short(row.title.as_deref().unwrap_or_default());
    let mut params = json!({
        "event": occasion.name(),
        "sessionId": &*event.session,
        "seq": event.seq,
        "time": event.time,
        "agent": row.agent,
        "vm": row.vm,
        "cwd": short(&row.cwd.to_string_lossy()),
        "title": title,
    });
    if let (Value::Object(params), Value::Object(extra)) = (&mut params, extra) {
        params.extend(extra);
    }
    News {
        occasion,
        session: Arc::clone(&event.session),
        seq: event.seq,
        agent: row.agent.clone(),
        summary,
        title,
        params,
    }
}

/// Whether a rule, or the want of anybody to ask, answered it at once.
fn is_answered(request: &EventRow, later: &[EventRow]) -> bool {
    let id = |event: &EventRow| splice::member(&event.raw, "id").map(str::to_owned);
    let asked = id(request);
    later.iter().any(|event| {
        event.direction == Direction::Acpbox
            && matches!(
                &*event.kind,
                "session/request_permission:result" | "session/request_permission:error"
            )
            && id(event) == asked
    })
}

fn params(event: &EventRow) -> Option<&str> {
    splice::member(&event.raw, "params")
}

/// A member that is a string, short and printable; empty if there is none.
fn text(object: Option<&str>, key: &str) -> String {
    let raw = object.and_then(|object| splice::member(object, key));
    short(&raw.and_then(message::string).unwrap_or_default())
}

fn short(text: &str) -> String {
    let mut characters = text.chars();
    let mut kept: String = characters.by_ref().take(TEXT_CHARACTERS).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    printable_line(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(direction: Direction, kind: &'static str, raw: &str) -> EventRow {
        EventRow {
            session: "s".into(),
            seq: 7,
            time: 1,
            direction,
            kind: kind.into(),
            raw: raw.into(),
        }
    }

    fn found(events: &[EventRow]) -> Vec<(Occasion, String)> {
        let row = SessionRow {
            id: "s".into(),
            agent: "a".into(),
            vm: "v".into(),
            agent_session: None,
            cwd: "/w".into(),
            title: None,
            created: 0,
            updated: 0,
            state: "open".into(),
            options: "{}".into(),
            usage: "{}".into(),
        };
        let news = among(&row, &ToolCalls::default(), events).into_iter();
        news.map(|news| (news.occasion, news.summary)).collect()
    }

    #[test]
    fn a_turns_end_is_news_and_that_of_a_prompt_without_one_is_not() {
        let end = event(
            Direction::Acpbox,
            methods::TURN_END,
            r#"{"params":{"reason":"agent_exit"}}"#,
        );
        let error = || {
            event(
                Direction::Acpbox,
                "session/prompt:error",
                r#"{"error":{"message":"gone"}}"#,
            )
        };
        assert_eq!(found(&[error()]), []);
        let failed = (Occasion::TurnEnded, "failed: gone".to_owned());
        assert_eq!(found(&[end, error(), error()]), [failed]);
        let result = event(
            Direction::Agent,
            "session/prompt:result",
            r#"{"result":{"stopReason":"max_tokens"}}"#,
        );
        let stopped = (Occasion::TurnEnded, "stopped: max tokens".to_owned());
        assert_eq!(found(&[result]), [stopped]);
    }

    #[test]
    fn a_question_that_is_answered_at_once_is_no_news() {
        let asked = |id| {
            let raw =
                format!(r#"{{"id":{id},"params":{{"toolCall":{{"title":"rm \u001b[1m"}}}}}}"#);
            event(Direction::Agent, methods::REQUEST_PERMISSION, &raw)
        };
        let answer = event(
            Direction::Acpbox,
            "session/request_permission:result",
            r#"{"id":1,"result":{}}"#,
        );
        let found = found(&[asked("1"), asked("2"), answer]);
        let [(Occasion::PermissionAsked, summary)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(summary, "asks: rm");
    }

    #[test]
    fn odd_events_make_no_news_and_no_panic() {
        for raw in [
            "{}",
            "[]",
            r#"{"params":7}"#,
            r#"{"params":{"exit":[],"code":"x"}}"#,
            "",
        ] {
            for kind in [
                methods::AGENT_EXIT,
                methods::REQUEST_PERMISSION,
                "session/prompt:result",
            ] {
                assert_eq!(found(&[event(Direction::Agent, kind, raw)]).len(), 1);
            }
        }
        let closed = event(
            Direction::Acpbox,
            methods::AGENT_EXIT,
            r#"{"params":{"closed":true}}"#,
        );
        assert_eq!(found(&[closed]), []);
    }
}
