//! Which sessions are kept no longer, and their end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use super::leases;
use super::registry::Registry;
use super::removal;
use super::state::now;
use crate::acp::extension::DeleteMeta;
use crate::config::Retention;
use crate::store::{SessionRow, Store, StoreError};

/// How often a process looks.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Sessions read at once; the longest unused are few compared with all.
const PAGE_SESSIONS: usize = 100;

/// Why a session goes. The first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Age,
    Count,
    Size,
}

impl Reason {
    /// The key of `[retention]`.
    pub fn key(self) -> &'static str {
        match self {
            Reason::Age => "max_age",
            Reason::Count => "max_sessions",
            Reason::Size => "max_bytes",
        }
    }
}

/// A session that is over a limit.
#[derive(Debug)]
pub struct Expired {
    pub row: SessionRow,
    pub reason: Reason,
    /// What deleting it frees in the database, at most.
    pub bytes: u64,
}

/// The sessions that are over the limits, longest unused first. Nothing is
/// changed. Live ones, and those that somebody follows in any process, are left
/// out, and others go in their stead.
///
/// `max_bytes` is compared with the pages of the file that are in use. What a
/// session would free is estimated high, so that none goes too many; once these
/// are deleted, more may be over it.
pub async fn expired(
    store: &Store,
    registry: &Registry,
    limits: &Retention,
) -> Result<Vec<Expired>, StoreError> {
    let mut expired = Vec::new();
    if limits.is_unlimited() {
        return Ok(expired);
    }
    let oldest = limits.max_age.map(|age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        now().saturating_sub(age)
    });
    let mut excess_sessions = match limits.max_sessions {
        Some(most) => store.count_sessions().await?.saturating_sub(most),
        None => 0,
    };
    let mut excess_bytes = match limits.max_bytes {
        Some(most) => store.used_bytes().await?.saturating_sub(most),
        None => 0,
    };
    let live = held(registry).await;
    let mut above = None;
    loop {
        let page = store.oldest_sessions(above, PAGE_SESSIONS).await?;
        let Some(last) = page.last() else {
            return Ok(expired);
        };
        above = Some((last.updated, last.id.clone()));
        for row in page {
            let reason = if oldest.is_some_and(|oldest| row.updated < oldest) {
                Reason::Age
            } else if excess_sessions > 0 {
                Reason::Count
            } else if excess_bytes > 0 {
                Reason::Size
            } else {
                return Ok(expired);
            };
            if live.contains_key(&row.id) {
                continue;
            }
            let bytes = store.session_bytes(&row.id).await?;
            excess_sessions = excess_sessions.saturating_sub(1);
            excess_bytes = excess_bytes.saturating_sub(bytes);
            expired.push(Expired { row, reason, bytes });
        }
    }
}

/// Deletes one of them. `None` if it was used meanwhile, or is gone.
pub async fn delete(
    store: &Store,
    registry: &Registry,
    expired: &Expired,
) -> Result<Option<DeleteMeta>, StoreError> {
    let id = &expired.row.id;
    // Whoever wants it in this process waits, and then finds none.
    let slot = registry.slot(id);
    let deleted = match slot.try_lock() {
        Some(mut held) if held.is_vacant() => match registry.lease(id) {
            Ok(_lease) => match store.session(id).await? {
                Some(row) if row.updated == expired.row.updated => {
                    held.take();
                    removal::remove(store, &row, false).await
                }
                _ => Ok(None),
            },
            // Another process has it.
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    };
    drop(slot);
    registry.sweep();
    deleted
}

/// Applies the limits now and then, as long as it is polled.
pub async fn keep(host: Arc<Host>) {
    let limits = &host.config.retention;
    if limits.is_unlimited() {
        return;
    }
    loop {
        let tell = |expired: &Expired, deleted: &DeleteMeta| {
            tracing::info!(
                session = expired.row.id,
                limit = expired.reason.key(),
                events = deleted.removed.events,
                kept = ?deleted.kept,
                "a session was deleted by [retention]"
            );
        };
        if let Err(error) = apply(&host.store, &host.registry, limits, tell).await {
            tracing::warn!(%error, "[retention] could not be applied; it is tried again in an hour");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Deletes all that is over the limits, telling of each. Ends early where
/// deleting does not help, as when what is left is not the sessions'.
pub async fn apply(
    store: &Store,
    registry: &Registry,
    limits: &Retention,
    mut tell: impl FnMut(&Expired, &DeleteMeta),
) -> Result<(), StoreError> {
    let mut used = store.used_bytes().await?;
    loop {
        let mut is_done = true;
        for expired in expired(store, registry, limits).await? {
            if let Some(deleted) = delete(store, registry, &expired).await? {
                is_done = false;
                tell(&expired, &deleted);
            }
        }
        let now = store.used_bytes().await?;
        if is_done || limits.max_bytes.is_none() || now >= used {
            return Ok(());
        }
        used = now;
    }
}

async fn held(registry: &Registry) -> HashMap<String, u32> {
    let folders = [registry.leases(), registry.followed()].map(Path::to_path_buf);
    let held = tokio::task::spawn_blocking(move || {
        let held = folders.iter().map(|folder| leases::held(folder));
        held.flatten().collect()
    });
    // Whoever is overlooked still has its lease.
    held.await.unwrap_or_default()
}
