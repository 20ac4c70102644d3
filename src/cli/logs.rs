//! `acpbox logs`: what a session's agent wrote to stderr, and to stdout where
//! it should have spoken ACP.

use std::time::Duration;

use super::args::{Global, LogsArguments};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output::Output;
use super::{find, locks, table};
use crate::acp::extension::LogEntry;
use crate::session::Registry;
use crate::store::{LogRow, Store};
use crate::transcript::printable;

/// How often a session that is being followed is looked at.
const TICK: Duration = Duration::from_millis(300);

/// Lines read at a time: more than an agent may leave, whose bytes are bounded.
const PAGE_LINES: usize = 1_000_000;

pub(super) fn run(global: &Global, arguments: &LogsArguments) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    let lease = Registry::new(&context.config.paths.state_dir);
    context::runtime()?.block_on(async {
        let store = context.store()?;
        let row = find::session(&store, &arguments.session).await?;
        let lease = lease.lease_path(&row.id);
        let mut output = Output::new();
        let mut after = 0;
        loop {
            // Looked at first: what is written before the end is then read after it.
            let is_live = !locks::holders(&lease).is_empty();
            after = print_new(&store, &row.id, after, arguments.json, &mut output).await?;
            output.flush()?;
            if !(arguments.follow && is_live) {
                break;
            }
            tokio::time::sleep(TICK).await;
        }
        store.close().await?;
        Ok(exit::DONE)
    })
}

async fn print_new(
    store: &Store,
    session: &str,
    mut after: i64,
    json: bool,
    output: &mut Output,
) -> anyhow::Result<i64> {
    let rows = store.log(session, after, PAGE_LINES).await?;
    for row in rows {
        after = row.number;
        if json {
            output.json_line(&entry(row))?;
        } else {
            output.line(&line(&row, output))?;
        }
    }
    Ok(after)
}

fn line(row: &LogRow, output: &Output) -> String {
    let time = table::local_time(row.time);
    let noise = if row.stream == "stdout" {
        "stdout: "
    } else {
        ""
    };
    if output.is_terminal {
        format!("{time}  {noise}{}", printable(&row.text))
    } else {
        format!("{time}  {noise}{}", row.text)
    }
}

fn entry(row: LogRow) -> LogEntry {
    LogEntry {
        number: row.number,
        time: row.time,
        stream: row.stream,
        text: row.text,
    }
}
