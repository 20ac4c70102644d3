//! Whether a turn runs in a VM, told from the transcripts: its acpbox is not asked.

use crate::acp::methods::{SESSION_PROMPT, response_kind};
use crate::session::Registry;
use crate::store::{EventPage, EventRow, Store, StoreError};

/// How many prompts and answers are looked at, newest first: more than can wait
/// in one session.
const NEWEST: usize = 128;

/// What they may take, in bytes.
const NEWEST_BYTES: usize = 64 << 20;

/// A session of the VM with a prompt that nobody has answered yet.
pub(super) async fn session_in_turn(
    store: &Store,
    registry: &Registry,
    vm: &str,
) -> Result<Option<String>, StoreError> {
    for id in registry.live_anywhere() {
        let Some(row) = store.session(&id).await?.filter(|row| row.vm == vm) else {
            continue;
        };
        let page = EventPage {
            session: row.id,
            before: Some(i64::MAX),
            limit: NEWEST,
            max_bytes: NEWEST_BYTES,
            kinds: vec![
                SESSION_PROMPT.to_owned(),
                response_kind(SESSION_PROMPT, false).into_owned(),
                response_kind(SESSION_PROMPT, true).into_owned(),
            ],
            ..EventPage::default()
        };
        if is_unanswered(&store.events(page).await?) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether, seen from the end, there ever are more prompts than answers: each
/// answer comes behind its prompt.
fn is_unanswered(rows: &[EventRow]) -> bool {
    let mut surplus = 0_i64;
    rows.iter().rev().any(|row| {
        surplus += if row.kind == SESSION_PROMPT { 1 } else { -1 };
        surplus > 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Direction;

    #[test]
    fn a_prompt_without_its_answer_is_found_among_others() {
        let check = |kinds: &str, expected| {
            let row = |kind| EventRow {
                session: "s".into(),
                seq: 1,
                time: 0,
                direction: Direction::Client,
                kind: match kind {
                    'p' => SESSION_PROMPT.into(),
                    'r' => response_kind(SESSION_PROMPT, false),
                    _ => response_kind(SESSION_PROMPT, true),
                },
                raw: "{}".into(),
            };
            let rows: Vec<EventRow> = kinds.chars().map(row).collect();
            assert_eq!(is_unanswered(&rows), expected, "{kinds}");
        };
        check("", false);
        check("p", true);
        check("prpe", false);
        check("prp", true);
        check("pprr", false);
        check("ppr", true);
        check("rrp", true);
        check("rrpr", false);
    }
}
