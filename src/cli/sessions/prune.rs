//! `acpbox sessions prune`: the limits of `[retention]`, applied now.

use super::Desk;
use super::delete::tell;
use crate::cli::args::SessionsPruneArguments;
use crate::cli::confirm::confirm;
use crate::cli::exit::{self, Code, Usage};
use crate::cli::output::{self, Output};
use crate::cli::table;
use crate::config::{Retention, parse_duration, parse_size};
use crate::session::retention::{self, Expired, Reason};

pub(super) async fn run(
    desk: &Desk,
    configured: &Retention,
    arguments: &SessionsPruneArguments,
) -> anyhow::Result<Code> {
    let limits = limits(configured, arguments)?;
    if limits.is_unlimited() {
        return Err(Usage(
            "there is no limit: write [retention] in the configuration, or use --max-age, --max-sessions or --max-bytes".into(),
        )
        .into());
    }
    let expired = retention::expired(&desk.store, &desk.registry, &limits).await?;
    if expired.is_empty() {
        output::say("no session is over the limits");
        return Ok(exit::DONE);
    }
    let mut what = match expired.len() {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    };
    if expired.last().is_some_and(|it| it.reason == Reason::Size) {
        // What deleting frees is known once it is done.
        what.push_str(", or more until the database is small enough");
    }
    if arguments.dry_run {
        print(&expired)?;
        output::say(&format!("these would be deleted: {what}"));
        return Ok(exit::DONE);
    }
    if !confirm(&format!("Delete {what}?"), arguments.yes)? {
        output::say("nothing was deleted");
        return Ok(exit::CANCELLED);
    }
    retention::apply(&desk.store, &desk.registry, &limits, |expired, deleted| {
        tell(&expired.row.id, deleted);
    })
    .await?;
    Ok(exit::DONE)
}

fn print(expired: &[Expired]) -> anyhow::Result<()> {
    let mut output = Output::new();
    let cells = expired.iter().map(|expired| {
        vec![
            expired.row.id.clone(),
            table::age(expired.row.updated),
            expired.bytes.to_string(),
            expired.reason.key().to_owned(),
            expired.row.title.clone().unwrap_or_default(),
        ]
    });
    let header = ["id", "age", "bytes", "limit", "title"];
    table::print(&mut output, &header, 4, cells)?;
    output.flush()
}

fn limits(configured: &Retention, arguments: &SessionsPruneArguments) -> Result<Retention, Usage> {
    let mut limits = configured.clone();
    if let Some(text) = &arguments.max_age {
        let age = parse_duration(text);
        let wrong = || {
            Usage(format!(
                "--max-age is `{text}`; write a duration such as 90d"
            ))
        };
        limits.max_age = Some(age.ok_or_else(wrong)?);
    }
    if let Some(text) = &arguments.max_bytes {
        let bytes = parse_size(text);
        let wrong = || {
            Usage(format!(
                "--max-bytes is `{text}`; write a size such as 10GiB"
            ))
        };
        limits.max_bytes = Some(bytes.ok_or_else(wrong)?);
    }
    limits.max_sessions = arguments.max_sessions.or(limits.max_sessions);
    Ok(limits)
}
