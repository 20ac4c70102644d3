//! `_acpbox/session/search`, for clients and for the command line.

use std::time::Duration;

use crate::acp::Failure;
use crate::acp::extension::{SearchHit, SearchRequest, SearchResponse, SnippetPart};
use crate::session::index;
use crate::session::state::now;
use crate::store::{SearchCursor, SearchFilter, SearchQuery, Store, TITLE};
use crate::transcript::documents::{MESSAGE, PROMPT, THOUGHT, TOOL};

/// The largest page.
const PAGE_LIMIT: usize = 100;
const PAGE_DEFAULT: usize = 20;

/// How long a search waits for what is not indexed yet.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a hit of each kind counts. A guess: what somebody wrote or called it is
/// remembered better than what an agent thought by the way.
const WEIGHTS: &[(&str, f64)] = &[
    (TITLE, 1.6),
    (PROMPT, 1.3),
    (MESSAGE, 1.0),
    (TOOL, 0.8),
    (THOUGHT, 0.6),
];

/// Answers from the database alone.
///
/// # Errors
/// A query without words or over a bound, an unknown session, a wrong `limit` or
/// `cursor`; and what goes wrong in the database.
pub async fn search(store: &Store, request: SearchRequest) -> Result<SearchResponse, Failure> {
    let query = SearchQuery::parse(&request.query)
        .map_err(|error| Failure::invalid_params(error.to_string()))?;
    let limit = match request.limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_LIMIT => limit,
        other => {
            let what = format!("`limit` must be from 1 to {PAGE_LIMIT}, not {other}");
            return Err(Failure::invalid_params(what));
        }
    };
    let cursor = request.cursor.as_deref().map(parse_cursor).transpose()?;
    if let Some(session) = &request.session_id
        && store.session(session).await?.is_none()
    {
        return Err(Failure::unknown_session(session));
    }
    // A full disk does not keep anybody from finding what was indexed before.
    let is_complete = index::catch_up(store, CATCH_UP)
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "not all transcripts could be made searchable");
            false
        });
    let page = store
        .search(SearchFilter {
            query,
            session: request.session_id,
            cwd: request.cwd,
            agent: request.agent,
            weights: WEIGHTS,
            now: now(),
            limit,
            cursor,
        })
        .await?;
    let hits = page.hits.into_iter().map(|hit| SearchHit {
        session_id: hit.session.id,
        seq: hit.seq,
        kind: hit.kind,
        time: hit.time,
        title: hit.session.title,
        agent: hit.session.agent,
        cwd: hit.session.cwd,
        snippet: hit
            .snippet
            .into_iter()
            .map(|part| SnippetPart {
                text: part.text,
                is_match: part.is_match,
            })
            .collect(),
    });
    Ok(SearchResponse {
        hits: hits.collect(),
        next_cursor: page
            .next
            .map(|next| format!("{}:{}", next.below, next.offset)),
        incomplete: !is_complete,
    })
}

fn parse_cursor(cursor: &str) -> Result<SearchCursor, Failure> {
    let parsed = cursor.split_once(':').and_then(|(below, offset)| {
        Some(SearchCursor {
            below: below.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| {
        Failure::invalid_params("`cursor` is none of acpbox's; leave it out for the first page")
    })
}
