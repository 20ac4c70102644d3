//! `acpbox sessions delete`.

use super::Desk;
use crate::acp::extension::DeleteMeta;
use crate::cli::args::SessionsDeleteArguments;
use crate::cli::confirm::confirm;
use crate::cli::exit::{self, Code};
use crate::cli::find;
use crate::cli::output;
use crate::session::removal;
use crate::store::SessionRow;
use crate::transcript::printable_line;

pub(super) async fn run(desk: &Desk, arguments: &SessionsDeleteArguments) -> anyhow::Result<Code> {
    // All are looked up before any is deleted: a wrong id then costs nothing.
    let mut rows: Vec<SessionRow> = Vec::new();
    for id in &arguments.ids {
        let row = find::session(&desk.store, id).await?;
        if let Some(holder) = desk.holder(&row.id) {
            anyhow::bail!(
                "session {} is live in process {holder}; end that one first",
                row.id
            );
        }
        if !rows.iter().any(|known| known.id == row.id) {
            rows.push(row);
        }
    }
    let named = rows.iter().map(|row| {
        let title = printable_line(row.title.as_deref().unwrap_or_default());
        format!("\n  {} {title}", row.id)
    });
    let what = if rows.len() == 1 {
        "this session and its"
    } else {
        "these sessions and their"
    };
    let question = format!("Delete {what} transcript?{}", named.collect::<String>());
    if !confirm(&question, arguments.yes)? {
        output::say("nothing was deleted");
        return Ok(exit::CANCELLED);
    }
    for row in rows {
        let _lease = desk.registry.lease(&row.id)?;
        if let Some(deleted) = removal::remove(&desk.store, &row, false).await? {
            tell(&row.id, &deleted);
        }
    }
    Ok(exit::DONE)
}

/// Says what went, and what is left.
pub(super) fn tell(id: &str, deleted: &DeleteMeta) {
    let removed = &deleted.removed;
    output::say(&format!(
        "deleted session {id} ({} events, {} log lines, {} of the agent's files)",
        removed.events, removed.log_lines, removed.agent_files
    ));
    for kept in &deleted.kept {
        output::say(&printable_line(&format!("  left: {kept}")));
    }
}
