//! `acpbox sessions list`.

use super::Desk;
use crate::cli::args::SessionsListArguments;
use crate::cli::exit::{self, Code};
use crate::cli::output::{self, Output};
use crate::cli::table;
use crate::store::SessionFilter;

pub(super) async fn run(desk: &Desk, arguments: &SessionsListArguments) -> anyhow::Result<Code> {
    let limit = arguments.limit as usize;
    let cwd = match &arguments.cwd {
        Some(folder) => Some(std::path::absolute(folder)?),
        None => None,
    };
    let filter = SessionFilter {
        cwd,
        agent: arguments.agent.clone(),
        limit: limit.saturating_add(1),
        ..SessionFilter::default()
    };
    let mut rows = desk.store.sessions(filter).await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let mut output = Output::new();
    if arguments.json {
        let all: Vec<_> = rows.iter().map(|row| desk.info(row)).collect();
        output.json(&all)?;
        output.flush()?;
        return Ok(exit::DONE);
    }
    if rows.is_empty() {
        output::say("there are no such sessions; `acpbox run` or an editor makes them");
        return Ok(exit::DONE);
    }
    let cells = rows.iter().map(|row| {
        let info = desk.info(row);
        vec![
            row.id.clone(),
            table::age(row.updated),
            info.state.to_owned(),
            row.agent.clone(),
            row.title.clone().unwrap_or_default(),
            row.cwd.display().to_string(),
        ]
    });
    let header = ["id", "age", "state", "agent", "title", "folder"];
    table::print(&mut output, &header, 4, cells)?;
    output.flush()?;
    if has_more {
        output::say(&format!("there are more than {limit}; see --limit"));
    }
    Ok(exit::DONE)
}
