//! `acpbox permissions`: answers for always that are remembered, and how to take
//! them back. Works beside other acpbox processes, which look anew each time.

mod trial;

use std::path::Path;

use serde::Serialize;

use super::args::{Global, JsonArguments, PermissionsCommand, PermissionsRevokeArguments};
use super::confirm::confirm;
use super::context::{self, Context};
use super::exit::{self, Code, Usage};
use super::output::{self, Output};
use super::table;
use crate::server::sessions::timestamp;
use crate::store::{PermissionRow, Store};

pub(super) fn run(global: &Global, command: &PermissionsCommand) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    context::runtime()?.block_on(async {
        let store = context.store()?;
        let code = match command {
            PermissionsCommand::List(arguments) => list(&store, arguments).await?,
            PermissionsCommand::Revoke(arguments) => revoke(&store, arguments).await?,
            PermissionsCommand::Test(arguments) => trial::run(&context, &store, arguments).await?,
        };
        store.close().await?;
        Ok(code)
    })
}

/// A remembered answer as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PermissionInfo<'a> {
    id: i64,
    /// `allow` or `deny`.
    decision: &'a str,
    agent: &'a str,
    workspace: &'a Path,
    /// The tool's kind.
    kind: &'a str,
    /// What `subject` is: `command`, `folder` or `title`.
    scope: &'a str,
    subject: &'a str,
    /// ISO 8601.
    created_at: String,
    session_id: &'a str,
}

async fn list(store: &Store, arguments: &JsonArguments) -> anyhow::Result<Code> {
    let rows = store.permissions().await?;
    let mut output = Output::new();
    if arguments.json {
        let infos: Vec<PermissionInfo> = rows.iter().map(info).collect();
        output.json(&infos)?;
    } else if rows.is_empty() {
        output::say("no answers are remembered");
    } else {
        let cells = rows.iter().map(|row| {
            vec![
                row.id.to_string(),
                row.decision.clone(),
                table::age(row.created),
                row.agent.clone(),
                row.kind.clone(),
                row.session.clone(),
                row.workspace.display().to_string(),
                subject(row),
            ]
        });
        let header = [
            "id", "answer", "age", "agent", "kind", "session", "folder", "for",
        ];
        table::print(&mut output, &header, 6, cells)?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

async fn revoke(store: &Store, arguments: &PermissionsRevokeArguments) -> anyhow::Result<Code> {
    let Some(id) = arguments.id else {
        let count = store.permissions().await?.len();
        let question = format!("Revoke all remembered answers ({count})?");
        if count > 0 && !confirm(&question, arguments.yes)? {
            output::say("nothing was revoked");
            return Ok(exit::CANCELLED);
        }
        let count = store.revoke_permissions(None).await?;
        let plural = if count == 1 { "" } else { "s" };
        output::say(&format!("revoked {count} remembered answer{plural}"));
        return Ok(exit::DONE);
    };
    let rows = store.permissions().await?;
    let Some(row) = rows.iter().find(|row| row.id == id) else {
        return Err(Usage(format!(
            "there is no remembered answer {id}; `acpbox permissions list` names those there are"
        ))
        .into());
    };
    store.revoke_permissions(Some(id)).await?;
    output::say(&format!(
        "revoked {id}: {} {} {}",
        row.decision,
        row.kind,
        crate::transcript::printable_line(&subject(row))
    ));
    Ok(exit::DONE)
}

fn info(row: &PermissionRow) -> PermissionInfo<'_> {
    PermissionInfo {
        id: row.id,
        decision: &row.decision,
        agent: &row.agent,
        workspace: &row.workspace,
        kind: &row.kind,
        scope: &row.scope,
        subject: &row.subject,
        created_at: timestamp(row.created),
        session_id: &row.session,
    }
}

/// What an answer is for, for a person.
fn subject(row: &PermissionRow) -> String {
    match row.scope.as_str() {
        "folder" => format!("files in {}", row.subject),
        _ => row.subject.clone(),
    }
}
