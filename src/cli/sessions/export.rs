//! `acpbox sessions export`: a transcript to keep or to pass on.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use serde_json::value::RawValue;

use super::Desk;
use crate::cli::args::{ExportFormat, SessionsExportArguments};
use crate::cli::exit::{self, Code, Usage};
use crate::cli::find;
use crate::cli::output::{self, Output};
use crate::cli::table::local_time;
use crate::server::extension;
use crate::store::SessionRow;
use crate::transcript::Follower;
use crate::transcript::{HtmlRenderer, MarkdownRenderer, Page, printable_line};

pub(super) async fn run(desk: &Desk, arguments: &SessionsExportArguments) -> anyhow::Result<Code> {
    let row = find::session(&desk.store, &arguments.id).await?;
    let mut target = match &arguments.output {
        Some(path) => Target::file(path)?,
        None => Target::Stdout(Output::new()),
    };
    match arguments.format {
        ExportFormat::Jsonl => jsonl(desk, &row, &mut target).await?,
        ExportFormat::Markdown => markdown(desk, &row, &mut target).await?,
        ExportFormat::Html => html(desk, &row, &mut target).await?,
    }
    target.finish()?;
    if let Some(holder) = desk.holder(&row.id) {
        output::say(&format!(
            "the session is live in process {holder}; it will go on after what was exported"
        ));
    }
    Ok(exit::DONE)
}

enum Target {
    Stdout(Output),
    File(BufWriter<std::fs::File>, String),
}

impl Target {
    /// Transcripts are their owner's: a file that is made is readable to nobody else.
    fn file(path: &Path) -> Result<Target, Usage> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let name = path.display().to_string();
        let file = options
            .open(path)
            .map_err(|error| Usage(format!("--output {name}: {error}")))?;
        Ok(Target::File(BufWriter::new(file), name))
    }

    fn text(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Target::Stdout(output) => output.text(text),
            Target::File(file, name) => file
                .write_all(text.as_bytes())
                .with_context(|| format!("cannot write {name}")),
        }
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Target::Stdout(output) => output.flush(),
            Target::File(file, name) => {
                file.flush().with_context(|| format!("cannot write {name}"))
            }
        }
    }
}

/// The session's row on the first line, then one event per line, each message
/// byte for byte.
async fn jsonl(desk: &Desk, row: &SessionRow, target: &mut Target) -> anyhow::Result<()> {
    let options = RawValue::from_string(row.options.clone()).ok();
    let mut header = serde_json::to_value(desk.info(row))?;
    if let Some(members) = header.as_object_mut() {
        // Of this moment and machine only.
        members.shift_remove("holder");
        members.insert("state".to_owned(), json!(row.state));
        members.insert("agentSessionId".to_owned(), json!(row.agent_session));
        members.insert("options".to_owned(), json!(options));
    }
    target.text(&format!("{}\n", json!({ "acpbox": 1, "session": header })))?;
    let mut follower = Follower::new(&row.id, 0);
    loop {
        let events = follower.next(&desk.store).await?;
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            let line = serde_json::to_string(&extension::event(event)?)?;
            target.text(&line)?;
            target.text("\n")?;
        }
    }
}

fn title(row: &SessionRow) -> String {
    match row.title.as_deref().map(printable_line) {
        Some(title) if !title.is_empty() => title,
        _ => "Session".to_owned(),
    }
}

/// One page that needs nothing else, written as it is read.
async fn html(desk: &Desk, row: &SessionRow, target: &mut Target) -> anyhow::Result<()> {
    let zone = jiff::tz::TimeZone::system();
    let fact = |value: &str| printable_line(value);
    let page = Page {
        title: &title(row),
        facts: &[
            ("Agent", fact(&row.agent)),
            ("VM", fact(&row.vm)),
            ("Folder", fact(&row.cwd.to_string_lossy())),
            ("Session", fact(&row.id)),
        ],
        times: &[("Begun", row.created), ("Last activity", row.updated)],
        zone: &zone,
    };
    target.text(&page.head())?;
    let mut renderer = HtmlRenderer::new(zone.clone());
    let mut follower = Follower::new(&row.id, 0);
    loop {
        let events = follower.next(&desk.store).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            for fragment in renderer.feed(event) {
                target.text(&fragment.html)?;
            }
        }
    }
    for fragment in renderer.finish() {
        target.text(&fragment.html)?;
    }
    target.text(&page.foot())
}

async fn markdown(desk: &Desk, row: &SessionRow, target: &mut Target) -> anyhow::Result<()> {
    target.text(&format!(
        "# {}\n\n- Session: `{}`\n- Agent: `{}` in VM `{}`\n- Folder: `{}`\n- Begun: {}\n\n",
        title(row),
        row.id,
        row.agent,
        row.vm,
        row.cwd.display(),
        local_time(row.created),
    ))?;
    let mut renderer = MarkdownRenderer::new();
    let mut follower = Follower::new(&row.id, 0);
    let mut written = String::new();
    loop {
        let events = follower.next(&desk.store).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            renderer.feed(event, &mut written)?;
        }
        target.text(&std::mem::take(&mut written))?;
    }
    renderer.finish(&mut written)?;
    target.text(&written)
}
