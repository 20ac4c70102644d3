//! ACP by POST and event streams: what each request of a client does.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use super::outgoing::Position;
use super::remote::{Asked, Remote, Unsent, session_of};
use super::websocket::{CONNECTION_ID, as_line};
use super::{Refused, Site, stream};
use crate::acp::methods;
use crate::rpc::message::{self, Body as Content, Message};
use crate::rpc::splice;
use crate::server::admission::Seat;
use crate::server::initialize::check_token;

/// Names the session that a request or a stream is about (ACP's remote transport).
pub const SESSION_ID: HeaderName = HeaderName::from_static("acp-session-id");

/// What a client of a broken stream has seen (HTML, server-sent events).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// What one may send who has not shown the token yet: enough for an `initialize`.
const UNKNOWN_BYTES: usize = 64 * 1024;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long acpbox may take to answer `initialize`.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn answer(site: Arc<Site>, seat: Arc<Seat>, request: Request) -> Response {
    let done = match *request.method() {
        Method::POST => post(site, &seat, request).await,
        Method::GET => get(site, request.headers()).await,
        Method::DELETE => delete(&site, request.headers()),
        _ => {
            let why = "only GET, POST and DELETE are for here";
            let mut response = Refused::new(StatusCode::METHOD_NOT_ALLOWED, why).into_response();
            let allowed = HeaderValue::from_static("GET, POST, DELETE");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
    };
    done.unwrap_or_else(|refused| refused.into_response())
}

/// A message of the client's. `initialize` is answered here, everything else on a stream.
async fn post(site: Arc<Site>, seat: &Seat, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    if !media_types(headers, CONTENT_TYPE).any(|kind| kind == JSON) {
        let why = format!("`Content-Type` must be {JSON}");
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let is_authorized = site.authorized(headers)?;
    let remote = match headers.contains_key(CONNECTION_ID) {
        true => Some(known(&site, headers)?),
        false => None,
    };
    let limits = &site.server.host.config.limits;
    let body = if is_authorized || remote.is_some() {
        let limit = limits.line_bytes;
        read(body, limit, BODY_TIMEOUT, " (limits.line_bytes)").await?
    } else {
        let _one_of_few = seat.bodies.try_acquire().map_err(|_none| {
            let why = "send one message at a time until you have shown the token";
            Refused::new(StatusCode::TOO_MANY_REQUESTS, why)
        })?;
        let limit = UNKNOWN_BYTES.min(limits.line_bytes);
        let timeout = site.settings.handshake_timeout;
        read(body, limit, timeout, " for one who has not shown the token").await?
    };
    let parsed = match Message::parse(&body, limits.depth) {
        Ok(parsed) if parsed.versioned => parsed,
        Ok(_) => {
            let why = "`jsonrpc` must be \"2.0\"";
            return Err(Refused::new(StatusCode::BAD_REQUEST, why));
        }
        Err(malformed) => {
            let error = message::error(&malformed.id, &malformed.error);
            return Ok(json(StatusCode::BAD_REQUEST, error));
        }
    };
    let line = as_line(&body);
    let Some(remote) = remote else {
        return match &parsed.body {
            Content::Request { method, params, .. } if method == methods::INITIALIZE => {
                if !is_authorized {
                    let meta = params.and_then(|params| splice::member(params, "_meta"));
                    check_token(&site.token, meta).map_err(|failure| {
                        Refused::new(StatusCode::UNAUTHORIZED, failure.message)
                    })?;
                }
                let full = |why| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
                seat.take().map_err(full)?;
                introduce(site, is_authorized, line).await
            }
            _ if !is_authorized => Err(Refused::new(
                StatusCode::UNAUTHORIZED,
                "the first message must be `initialize`, and the token must come with it",
            )),
            _ => Err(missing(&CONNECTION_ID)),
        };
    };
    remote.touch();
    let session = session_header(headers)?;
    let (asked, answered) = match &parsed.body {
        Content::Request { method, .. } if method == methods::INITIALIZE => {
            let why = "this connection is initialized already";
            return Err(Refused::new(StatusCode::BAD_REQUEST, why));
        }
        Content::Request { id, method, params } => {
            check_session(method, *params, session.as_deref())?;
            let of = session_of(*params).or_else(|| session.clone());
            let asked = asked(&remote, method, of, session);
            (Some(((*id).to_owned(), asked)), None)
        }
        Content::Notification { method, params } => {
            check_session(method, *params, session.as_deref())?;
            (None, None)
        }
        Content::Response { id, .. } => {
            // The official SDKs of Rust and Python name no session here: the id tells.
            if let (Some(header), Some(of)) = (&session, remote.session_of(id)) {
                must_be(header, &of)?;
            }
            (None, Some((*id).to_owned()))
        }
    };
    // In a task: a message that is cut off, since its sender left, would break the next.
    let sending = tokio::spawn(async move {
        let asked = asked
            .as_ref()
            .map(|(id, asked)| (id.as_str(), asked.clone()));
        remote.send(&line, asked, answered.as_deref()).await
    });
    match sending.await {
        Ok(Ok(())) => Ok(StatusCode::ACCEPTED.into_response()),
        Ok(Err(Unsent::TooMany)) => Err(Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests of this connection wait for their answers",
        )),
        Ok(Err(Unsent::Ended)) | Err(_) => Err(unknown()),
    }
}

/// Where the answer to a request goes, and what its stream must know of it: `of` is
/// the session that the request is about, `header` the one whose stream was named.
fn asked(remote: &Remote, method: &str, of: Option<String>, header: Option<String>) -> Asked {
    if method == methods::SESSION_LOAD
        && let Some(outgoing) = remote.outgoing(of.as_deref())
    {
        outgoing.told_anew();
    }
    let begins = [methods::SESSION_LOAD, methods::SESSION_RESUME].contains(&method);
    Asked {
        begins: of.clone().filter(|_| begins && header.is_none()),
        follows: of.filter(|_| method == methods::SESSION_RESUME),
        session: header.filter(|_| method != methods::SESSION_LOAD),
    }
}

async fn introduce(
    site: Arc<Site>,
    is_authorized: bool,
    line: Vec<u8>,
) -> Result<Response, Refused> {
    let unavailable = |why: &str| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
    if site.stop.is_cancelled() {
        return Err(unavailable("acpbox is about to stop"));
    }
    let Some((remote, introduction)) = site.admit(is_authorized) else {
        let why = "all connections are in use (server.connections)";
        return Err(unavailable(why));
    };
    // Unless it is told its id, nobody has it.
    let leaving = remote.end.clone().drop_guard();
    if remote.send(&line, None, None).await.is_err() {
        return Err(unavailable("acpbox is about to stop"));
    }
    let answer = match tokio::time::timeout(INTRODUCTION_TIMEOUT, introduction).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(oneshot::error::RecvError { .. })) => {
            return Err(unavailable("acpbox is about to stop"));
        }
        Err(_elapsed) => return Err(unavailable("acpbox takes too long to answer; try again")),
    };
    if splice::member(&answer, "error").is_some() {
        return Ok(json(StatusCode::BAD_REQUEST, answer));
    }
    leaving.disarm();
    let mut response = json(StatusCode::OK, answer);
    if let Ok(id) = HeaderValue::from_str(&remote.id) {
        response.headers_mut().insert(CONNECTION_ID, id);
    }
    Ok(response)
}

/// An event stream: the connection's own, or that of the session in the headers.
async fn get(site: Arc<Site>, headers: &HeaderMap) -> Result<Response, Refused> {
    if !media_types(headers, ACCEPT).any(|kind| kind == EVENT_STREAM) {
        let why = format!("`Accept` must have {EVENT_STREAM}; or ask for a WebSocket");
        return Err(Refused::new(StatusCode::NOT_ACCEPTABLE, why));
    }
    let remote = known(&site, headers)?;
    remote.touch();
    let session = session_header(headers)?;
    let from = match headers.get(LAST_EVENT_ID) {
        None => None,
        Some(value) => {
            let position = value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<Position>().ok());
            let wrong = || {
                let why = "`Last-Event-ID` must be the `id` of an event of this stream";
                Refused::new(StatusCode::BAD_REQUEST, why)
            };
            Some(position.ok_or_else(wrong)?)
        }
    };
    let stored = match (&session, from) {
        (Some(session), Some(_)) => {
            let last = site.server.host.store.last_seq(session).await;
            last.map_err(|error| {
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            })?
        }
        _ => 0,
    };
    let Some(outgoing) = remote.outgoing(session.as_deref()) else {
        let why = "this connection has too many streams";
        return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, why));
    };
    let Some(receiver) = outgoing.receive(from, stored) else {
        let why = "this stream is read already; with `Last-Event-ID` you take it over";
        return Err(Refused::new(StatusCode::CONFLICT, why));
    };
    Ok(stream::response(
        site,
        remote,
        receiver,
        session.unwrap_or_default(),
    ))
}

fn delete(site: &Site, headers: &HeaderMap) -> Result<Response, Refused> {
    known(site, headers)?.end.cancel();
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The connection in the headers, for one who knows the token.
fn known(site: &Site, headers: &HeaderMap) -> Result<Arc<Remote>, Refused> {
    let is_authorized = site.authorized(headers)?;
    let id = headers
        .get(CONNECTION_ID)
        .map(|id| id.to_str().unwrap_or_default());
    let remote = id.and_then(|id| site.remotes.get(id));
    match (remote, id) {
        (Some(remote), _) if is_authorized || remote.is_trusted => {
            match remote.end.is_cancelled() {
                false => Ok(remote),
                true => Err(unknown()),
            }
        }
        _ if !is_authorized => {
            site.must_be_authorized(headers)?;
            Err(unknown())
        }
        (_, None) => Err(missing(&CONNECTION_ID)),
        (_, Some(_)) => Err(unknown()),
    }
}

fn unknown() -> Refused {
    let why =
        "this `Acp-Connection-Id` is unknown, or its connection has ended: begin with `initialize`";
    Refused::new(StatusCode::NOT_FOUND, why)
}

fn missing(header: &HeaderName) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, format!("`{header}` is missing"))
}

fn session_header(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(SESSION_ID) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(id) if !id.is_empty() && id.len() <= 256 => Ok(Some(id.to_owned())),
        _ => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "`Acp-Session-Id` is none",
        )),
    }
}

/// What is about a session says so in its headers too. What begins with a session may
/// leave it out, as the official Python SDK does, and so may extensions: the answer
/// then comes on the connection's own stream.
fn check_session(method: &str, params: Option<&str>, header: Option<&str>) -> Result<(), Refused> {
    match (session_of(params), header) {
        (Some(session), Some(header)) => must_be(header, &session),
        (_, None) if is_in_a_session(method) => Err(missing(&SESSION_ID)),
        _ => Ok(()),
    }
}

fn must_be(header: &str, session: &str) -> Result<(), Refused> {
    match header == session {
        true => Ok(()),
        false => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "`Acp-Session-Id` is not the session of the message",
        )),
    }
}

fn is_in_a_session(method: &str) -> bool {
    let begins = [
        methods::SESSION_NEW,
        methods::SESSION_LIST,
        methods::SESSION_LOAD,
        methods::SESSION_RESUME,
        methods::SESSION_FORK,
    ];
    method.starts_with("session/") && !begins.contains(&method)
}

/// The types in a header, without their parameters, in small letters.
fn media_types(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let kinds = texts.flat_map(|text| text.split(','));
    kinds.map(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().to_ascii_lowercase()
    })
}

async fn read(
    mut body: Body,
    limit: usize,
    timeout: Duration,
    name: &str,
) -> Result<Vec<u8>, Refused> {
    let too_large = || {
        let why = format!("the message is over the limit of {limit} bytes{name}");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refused::new(
                    StatusCode::BAD_REQUEST,
                    format!("the body broke off: {error}"),
                )
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if read.len() + data.len() > limit {
                return Err(too_large());
            }
            read.extend_from_slice(data);
        }
        Ok(read)
    };
    tokio::time::timeout(timeout, reading)
        .await
        .unwrap_or_else(|_elapsed| {
            let why = "the body did not come in time";
            Err(Refused::new(StatusCode::REQUEST_TIMEOUT, why))
        })
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], text).into_response()
}
