//! What an agent that does not remember is told with the next prompt, and
//! whether one that seems to remember was ever told.

use super::host::Host;
use crate::acp::extension::{PreambleNote, Restored, Tier};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::splice;
use crate::store::{Direction, EventPage, EventRow};
use crate::transcript::{PREAMBLE_KINDS, preamble, preamble_weight};

const PAGE_EVENTS: usize = 2000;
const PAGE_BYTES: usize = 4 << 20;

/// What is read of a transcript at most, in bytes, whatever the preamble's size:
/// results of tools may be large and add one line each.
const READ_BYTES: usize = 32 << 20;

/// Restores without a finished turn that are looked at.
const RESTORES: usize = 50;

/// What the agent's own session knows, where the agent restores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// No turn of it has ended: texts in front of its first prompt may have been lost.
    pub(super) is_fresh: bool,
    /// It was begun anew and was to be told the history, and no turn has ended since.
    pub(super) lacks_history: bool,
}

impl Host {
    /// What the transcript says of the agent's present session.
    pub(super) async fn knowledge(&self, session: &str) -> Result<Knowledge, Failure> {
        let page = EventPage {
            session: session.to_owned(),
            before: Some(i64::MAX),
            limit: RESTORES,
            max_bytes: PAGE_BYTES,
            kinds: vec![
                methods::SESSION_RESTORED.into(),
                methods::response_kind(methods::SESSION_PROMPT, false).into_owned(),
            ],
            ..EventPage::default()
        };
        let rows = self.store.events(page).await?;
        let mut lacks_history = false;
        for row in rows.iter().rev() {
            if row.kind != methods::SESSION_RESTORED {
                if row.direction == Direction::Acpbox {
                    // It was in the queue and never began.
                    continue;
                }
                return Ok(Knowledge {
                    is_fresh: false,
                    lacks_history,
                });
            }
            let Some(restored) = restored(row) else {
                continue;
            };
            lacks_history |= restored.preamble.is_some();
            if restored.tier == Tier::New {
                break;
            }
        }
        Ok(Knowledge {
            is_fresh: true,
            lacks_history,
        })
    }

    /// The history of a session up to now. `None` where nothing was said, or
    /// where the configuration wants none.
    pub(super) async fn history(
        &self,
        session: &str,
    ) -> Result<Option<(String, PreambleNote)>, Failure> {
        let bytes = self.config.restore.preamble_bytes;
        if bytes == 0 {
            return Ok(None);
        }
        let (events, is_whole) = self.newest(session, bytes).await?;
        let first = match is_whole {
            true => None,
            false => self.first_prompt(session).await?,
        };
        // Megabytes of JSON: not where messages wait.
        let told = tokio::task::spawn_blocking(move || preamble(first.as_ref(), &events, bytes));
        let told = told.await.map_err(|error| {
            Failure::internal(
                Phase::Session,
                format!("the history could not be made: {error}"),
            )
        })?;
        Ok(told.map(|told| {
            let note = PreambleNote {
                bytes: told.text.len(),
                from_seq: told.from_seq,
                to_seq: told.to_seq,
                omitted: told.omitted,
            };
            (told.text, note)
        }))
    }

    /// The newest events, as many as fill a preamble, and whether they are all.
    async fn newest(&self, session: &str, bytes: usize) -> Result<(Vec<EventRow>, bool), Failure> {
        let mut pages = Vec::new();
        let mut before = i64::MAX;
        let (mut weight, mut read) = (0, 0);
        let is_whole = loop {
            let page = EventPage {
                session: session.to_owned(),
                before: Some(before),
                limit: PAGE_EVENTS,
                max_bytes: PAGE_BYTES,
                kinds: PREAMBLE_KINDS.map(str::to_owned).into(),
                ..EventPage::default()
            };
            let rows = self.store.events(page).await?;
            let Some(oldest) = rows.first() else {
                break true;
            };
            before = oldest.seq;
            weight += rows.iter().map(preamble_weight).sum::<usize>();
            read += rows.iter().map(|row| row.raw.len()).sum::<usize>();
            pages.push(rows);
            if weight > 2 * bytes || read > READ_BYTES {
                break false;
            }
        };
        Ok((pages.into_iter().rev().flatten().collect(), is_whole))
    }

    async fn first_prompt(&self, session: &str) -> Result<Option<EventRow>, Failure> {
        let page = EventPage {
            session: session.to_owned(),
            after: Some(0),
            limit: 1,
            max_bytes: PAGE_BYTES,
            kinds: vec![methods::SESSION_PROMPT.into()],
            ..EventPage::default()
        };
        Ok(self.store.events(page).await?.pop())
    }
}

/// The params of an event `_acpbox/session/restored`.
pub(super) fn restored(row: &EventRow) -> Option<Restored> {
    let params = splice::member(&row.raw, "params")?;
    serde_json::from_str(params).ok()
}
