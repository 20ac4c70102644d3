//! `acpbox sessions search`.

use super::Desk;
use crate::acp::extension::{SearchHit, SearchRequest};
use crate::cli::args::SessionsSearchArguments;
use crate::cli::exit::{self, Code};
use crate::cli::find;
use crate::cli::output::{self, Output};
use crate::cli::table;
use crate::server::search;
use crate::transcript::{printable, printable_line};

/// As much of an id as says when the session was made, to the millisecond.
const SHORT_ID: usize = 13;

pub(super) async fn run(desk: &Desk, arguments: &SessionsSearchArguments) -> anyhow::Result<Code> {
    let session_id = match &arguments.session {
        Some(given) => Some(find::session(&desk.store, given).await?.id),
        None => None,
    };
    let cwd = match &arguments.cwd {
        Some(folder) => Some(std::path::absolute(folder)?),
        None => None,
    };
    let request = SearchRequest {
        query: arguments.words.join(" "),
        session_id,
        cwd,
        agent: arguments.agent.clone(),
        limit: Some(arguments.limit as usize),
        cursor: None,
    };
    let found = search::search(&desk.store, request).await?;
    let mut output = Output::new();
    if arguments.json {
        output.json(&found)?;
    } else {
        for hit in &found.hits {
            print(&mut output, hit)?;
        }
    }
    output.flush()?;
    if !arguments.json {
        if found.hits.is_empty() {
            output::say("nothing was found; `word*` finds all that begins so");
        } else if found.next_cursor.is_some() {
            output::say(&format!(
                "there are more than {}; see --limit",
                arguments.limit
            ));
        }
        if let Some(best) = found.hits.first() {
            let id = short(&best.session_id);
            output::say(&format!("read one with: acpbox sessions show {id}"));
        }
    }
    if found.incomplete {
        output::say("not all transcripts are searchable yet; search again for the rest");
    }
    Ok(exit::DONE)
}

/// Two lines: which session, then what was found in it.
fn print(output: &mut Output, hit: &SearchHit) -> anyhow::Result<()> {
    let (faint, strong) = match output.color {
        true => (anstyle::Style::new().dimmed(), anstyle::Style::new().bold()),
        false => (anstyle::Style::new(), anstyle::Style::new()),
    };
    let title = printable_line(hit.title.as_deref().unwrap_or_default());
    let place = match hit.seq {
        0 => hit.kind.clone(),
        seq => format!("{} {seq}", hit.kind),
    };
    let head = format!(
        "{}  {}  {}  {}",
        short(&hit.session_id),
        table::age(hit.time),
        printable_line(&hit.agent),
        printable_line(&place)
    );
    output.line(&format!("{faint}{head}{faint:#}  {title}"))?;
    output.text("  ")?;
    for part in &hit.snippet {
        let text = printable(&part.text);
        match part.is_match {
            true => output.text(&format!("{strong}{text}{strong:#}"))?,
            false => output.text(&text)?,
        }
    }
    output.text("\n")
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}
