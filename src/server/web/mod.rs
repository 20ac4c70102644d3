//! The page at `/`: a client of ACP in a browser. Its files are part of the binary;
//! transcripts come as HTML from [`session_html`], made as for the export.

mod follow;
mod window;
mod items;

use std::sync::Arc;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;

use crate::acp::Failure;
use crate::acp::extension::{HtmlRequest, HtmlResponse};
use crate::session::Host;
use crate::transcript::STYLE;
use follow::Follows;

/// Our own files and nothing else: no script in the page, no `eval`, nobody frames it.
/// Only what passes the policy `acpbox` of the script becomes HTML.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types acpbox",
);

/// Not yet among the names that `http` knows.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Items of one response, if nothing else is asked for, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT: usize = 500;

/// What a browser gets with a GET.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
    const SVG: &str = "image/svg+xml";
    Router::new()
        .route("/", file(HTML, include_str!("page.html")))
        .route("/page.css", file(CSS, include_str!("page.css")))
        .route("/page.js", file(JAVASCRIPT, include_str!("page.js")))
        .route("/icon.svg", file(SVG, include_str!("icon.svg")))
        .route("/transcript.css", file(CSS, STYLE))
}

fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: &'static str,
) -> axum::routing::MethodRouter<S> {
    get(async move || -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(kind)),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (OPENER_POLICY, HeaderValue::from_static("same-origin")),
            (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
            // After an update of acpbox its page and its script must fit.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, text).into_response()
    })
}

/// The handler of `_acpbox/session/html`.
pub fn session_html()
-> impl Fn(Arc<Host>, HtmlRequest) -> BoxFuture<'static, Result<HtmlResponse, Failure>>
+ Clone
+ Send
+ Sync
+ 'static {
    let follows = Arc::new(Follows::default());
    move |host, request| {
        let follows = Arc::clone(&follows);
        Box::pin(async move { html(&host, &follows, request).await })
    }
}

async fn html(
    host: &Host,
    follows: &Follows,
    request: HtmlRequest,
) -> Result<HtmlResponse, Failure> {
    let limit = match request.limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT => limit,
        other => {
            let what = format!("`limit` must be from 1 to {LIMIT}, not {other}");
            return Err(Failure::invalid_params(what));
        }
    };
    let session = request.session_id.as_str();
    let Some(row) = host.store.session(session).await? else {
        follows.forget(session);
        return Err(Failure::unknown_session(session));
    };
    let live = host.registry.live(session);
    // Before anything is read: what is committed later is news for the next request.
    let running = live.as_ref().is_some_and(|live| live.is_busy());
    if let Some(live) = &live {
        // What is stored can be read also where nothing more can be.
        let _ = live.flush().await;
    }
    let shown = match (request.after, request.before, request.from) {
        (after, None, None) => follows.news(&host.store, session, after, limit).await?,
        (None, Some(before), None) => window::before(&host.store, session, before, limit).await?,
        (None, None, Some(from)) => window::from(&host.store, session, from, limit).await?,
        _ => {
            let what = "only one of `after`, `before` and `from` can be asked for";
            return Err(Failure::invalid_params(what));
        }
    };
    Ok(HtmlResponse {
        items: shown.items,
        fresh: shown.fresh,
        older: shown.older,
        newer: shown.newer,
        last_seq: shown.last_seq,
        title: row.title,
        agent: row.agent,
        cwd: row.cwd,
        live: live.is_some(),
        running,
    })
}
