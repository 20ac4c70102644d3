//! `acpbox sessions list`.

use super::{Desk, SessionInfo};
use crate::acp::extension::SessionState;
use crate::cli::args::{SessionsListArguments, StateName};
use crate::cli::exit::{self, Code, Usage};
use crate::cli::output::{self, Output};
use crate::cli::table;
use crate::config::parse_moment;
use crate::server::sessions::in_state;
use crate::session::leases;
use crate::session::state::now;
use crate::store::SessionFilter;

pub(super) async fn run(desk: &Desk, arguments: &SessionsListArguments) -> anyhow::Result<Code> {
    let limit = arguments.limit as usize;
    let cwd = match &arguments.cwd {
        Some(folder) => Some(std::path::absolute(folder)?),
        None => None,
    };
    let live = leases::held(desk.registry.leases());
    let filter = SessionFilter {
        cwd,
        agent: arguments.agent.clone(),
        vm: arguments.vm.clone(),
        title: arguments.title.clone(),
        since: moment("--since", arguments.since.as_deref())?,
        until: moment("--until", arguments.until.as_deref())?,
        limit: limit.saturating_add(1),
        ..SessionFilter::default()
    };
    let state = arguments.state.map(|state| match state {
        StateName::Live => SessionState::Live,
        StateName::Open => SessionState::Open,
        StateName::Closed => SessionState::Closed,
    });
    let filter = in_state(filter, state, &live);
    let mut rows = desk.store.sessions(filter).await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let info = |row| SessionInfo::new(row, live.get(&row.id).copied());
    let mut output = Output::new();
    if arguments.json {
        let all: Vec<_> = rows.iter().map(info).collect();
        output.json(&all)?;
        output.flush()?;
        return Ok(exit::DONE);
    }
    if rows.is_empty() {
        output::say("there are no such sessions; `acpbox run` or an editor makes them");
        return Ok(exit::DONE);
    }
    let cells = rows.iter().map(|row| {
        let info = info(row);
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

fn moment(flag: &str, text: Option<&str>) -> Result<Option<i64>, Usage> {
    let Some(text) = text else { return Ok(None) };
    let moment = parse_moment(text, now());
    moment.map(Some).ok_or_else(|| {
        Usage(format!(
            "{flag} is `{text}`; write a duration before now such as 7d, a date such as 2026-11-01, or a time such as 2026-11-01T10:00:00Z"
        ))
    })
}
