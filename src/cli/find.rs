//! Stored sessions as commands find them.

use super::exit::Usage;
use crate::store::{SessionRow, Store};

/// Sessions named when an id's beginning fits several.
const NAMED_SESSIONS: usize = 5;

/// The session of this id, or of the one id that begins so.
pub(super) async fn session(store: &Store, given: &str) -> anyhow::Result<SessionRow> {
    if let Some(row) = store.session(given).await? {
        return Ok(row);
    }
    let unknown = || {
        Usage(format!(
            "there is no session `{given}`; `acpbox sessions list` names those there are"
        ))
    };
    if given.is_empty() {
        return Err(unknown().into());
    }
    let given = given.to_ascii_lowercase();
    let mut rows = store
        .sessions_beginning_with(&given, NAMED_SESSIONS + 1)
        .await?;
    match rows.len() {
        0 => Err(unknown().into()),
        1 => Ok(rows.remove(0)),
        count => Err(ambiguous(&given, &rows, count).into()),
    }
}

fn ambiguous(given: &str, rows: &[SessionRow], count: usize) -> Usage {
    let mut text = format!("several sessions begin with `{given}`; give more of the id:");
    for row in rows.iter().take(NAMED_SESSIONS) {
        let title = row.title.as_deref().unwrap_or_default();
        text.push_str(&format!("\n  {} {title}", row.id));
    }
    if count > NAMED_SESSIONS {
        text.push_str("\n  …");
    }
    Usage(text)
}
