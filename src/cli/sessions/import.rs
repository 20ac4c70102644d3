//! `acpbox sessions import`: a session that was exported as JSONL.
//!
//! The session is out of sight until its last line is stored: its events are
//! written under a name of its own, which one statement replaces in the end.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Desk;
use crate::acp::extension::EventDirection;
use crate::cli::args::SessionsImportArguments;
use crate::cli::exit::{self, Code, Usage};
use crate::cli::output::{self, Output};
use crate::rpc::message::Message;
use crate::store::{Direction, EventRow, SessionFilter, SessionRow};
use crate::transcript::meta::renamed;

/// The version of the format; the first line of an export names it.
const FORMAT: &str = "1";

/// Events that are stored at a time, in number and in bytes.
const BATCH_EVENTS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// A line is a message and what the export says of it.
const LINE_MARGIN: usize = 64 * 1024;

/// JSON-RPC: no JSON, or nested too deep.
const PARSE_ERROR: i32 = -32700;

pub(super) async fn run(desk: &Desk, arguments: &SessionsImportArguments) -> anyhow::Result<Code> {
    sweep(desk).await?;
    let mut lines = Lines::open(&arguments.file, desk.limits.line_bytes)?;
    let Some(first) = lines.next()? else {
        return Err(lines.wrong("the file is empty").into());
    };
    let row = match header(first) {
        Ok(row) => row,
        Err(why) => return Err(lines.wrong(&why).into()),
    };
    let id = match arguments.new_id {
        true => Uuid::now_v7().to_string(),
        false => row.id.clone(),
    };
    let exists = || {
        Usage(format!(
            "the session {id} exists already; --new-id imports it beside that one, under a new id"
        ))
    };
    if desk.store.session(&id).await?.is_some() {
        return Err(exists().into());
    }
    // Two sessions must not go on with one of the agent's, nor delete its files.
    let twins = SessionFilter {
        agent_session: row.agent_session.clone(),
        limit: 1,
        ..SessionFilter::default()
    };
    let is_shared = row.agent_session.is_some() && !desk.store.sessions(twins).await?.is_empty();
    let row = SessionRow {
        agent_session: row
            .agent_session
            .filter(|_| !is_shared && !arguments.new_id),
        ..row
    };
    let staged = format!("import-{}", Uuid::now_v7());
    // Tells this import from one that was killed.
    let _lease = desk.registry.lease(&staged)?;
    desk.store
        .create_session(&SessionRow {
            id: staged.clone(),
            state: "importing".into(),
            ..row.clone()
        })
        .await?;
    let import = Import {
        staged: staged.as_str().into(),
        old: row.id,
        new: arguments.new_id.then_some(id.as_str()),
        depth: desk.limits.depth,
    };
    let outcome = async {
        let count = import.events(desk, &mut lines).await?;
        let is_seen = desk.store.publish_session(&staged, &id, "closed");
        match is_seen.await? {
            true => Ok(count),
            false => Err(exists().into()),
        }
    }
    .await;
    let count = match outcome {
        Ok(count) => count,
        Err(error) => {
            if let Err(left) = desk.store.delete_session(&staged).await {
                tracing::warn!(error = %left, "what was imported so far goes with the next import");
            }
            return Err(error);
        }
    };
    let mut output = Output::new();
    output.line(&id)?;
    output.flush()?;
    output::say(&format!("imported session {id} ({count} events)"));
    Ok(exit::DONE)
}

/// Removes what imports that were killed have left.
async fn sweep(desk: &Desk) -> anyhow::Result<()> {
    for staged in desk.store.staged_sessions().await? {
        if let Ok(_lease) = desk.registry.lease(&staged) {
            desk.store.delete_session(&staged).await?;
        }
    }
    Ok(())
}

struct Import<'a> {
    staged: Arc<str>,
    /// The id in the file, and what replaces it.
    old: String,
    new: Option<&'a str>,
    depth: usize,
}

impl Import<'_> {
    /// Stores all events; how many there were.
    async fn events(&self, desk: &Desk, lines: &mut Lines) -> anyhow::Result<i64> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut seq = 0;
        loop {
            let event = match lines.next()? {
                Some(line) => {
                    seq += 1;
                    self.event(line, seq)
                }
                None => break,
            };
            let event = match event {
                Ok(event) => event,
                Err(why) => return Err(lines.wrong(&why).into()),
            };
            bytes += event.raw.len();
            batch.push(event);
            if batch.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES {
                let rows = std::mem::take(&mut batch);
                desk.store.reserve().await?.append(rows, false).await?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            desk.store.reserve().await?.append(batch, false).await?;
        }
        Ok(seq)
    }

    fn event(&self, line: &str, seq: i64) -> Result<EventRow, String> {
        /// As `acp::extension::Event`, read without a copy.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line<'a> {
            seq: i64,
            time: i64,
            direction: EventDirection,
            kind: String,
            #[serde(borrow)]
            message: &'a RawValue,
        }
        let line: Line = serde_json::from_str(line).map_err(|error| said(&error))?;
        if line.seq != seq {
            return Err(format!("event {} stands where {seq} should", line.seq));
        }
        let raw = line.message.get();
        if !raw.starts_with('{') {
            return Err("`message` is no object".into());
        }
        // What was recorded may be odd JSON-RPC, but is within the limits.
        if let Err(malformed) = Message::parse(raw.as_bytes(), self.depth)
            && malformed.error.code() == PARSE_ERROR
        {
            return Err(format!("`message`: {}", malformed.error.message()));
        }
        let raw = match self.new {
            Some(new) => renamed(raw, &self.old, new),
            None => Cow::Borrowed(raw),
        };
        Ok(EventRow {
            session: Arc::clone(&self.staged),
            seq,
            time: line.time,
            direction: match line.direction {
                EventDirection::Client => Direction::Client,
                EventDirection::Agent => Direction::Agent,
                EventDirection::Acpbox => Direction::Acpbox,
            },
            kind: line.kind.into(),
            raw: raw.into(),
        })
    }
}

/// The session of the first line, or what is wrong with it.
fn header(line: &str) -> Result<SessionRow, String> {
    #[derive(Deserialize)]
    struct First<'a> {
        #[serde(borrow)]
        acpbox: Option<&'a RawValue>,
        #[serde(borrow)]
        session: Option<&'a RawValue>,
    }
    // Further members are of later versions that changed nothing else.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Session {
        session_id: String,
        agent: String,
        vm: String,
        cwd: PathBuf,
        title: Option<String>,
        created_at: jiff::Timestamp,
        updated_at: jiff::Timestamp,
        agent_session_id: Option<String>,
        options: Option<Box<RawValue>>,
    }
    let foreign = "this is no session that `acpbox sessions export --format jsonl` wrote";
    let first: First = serde_json::from_str(line).map_err(|_| foreign.to_owned())?;
    let (Some(version), Some(session)) = (first.acpbox, first.session) else {
        return Err(foreign.into());
    };
    if version.get() != FORMAT {
        return Err(format!(
            "the file is of version {:.20}, and this acpbox reads version {FORMAT}; update acpbox",
            version.get()
        ));
    }
    let session: Session = serde_json::from_str(session.get())
        .map_err(|error| format!("`session`: {}", said(&error)))?;
    // It becomes a file's name, among others.
    let id = Uuid::parse_str(&session.session_id).map(|id| id.to_string());
    if id.as_ref() != Ok(&session.session_id) {
        return Err("`session.sessionId` is no UUID in lower case".into());
    }
    if !session.cwd.is_absolute() {
        return Err("`session.cwd` is no absolute path".into());
    }
    let options = session.options.as_deref().map_or("{}", RawValue::get);
    Ok(SessionRow {
        id: session.session_id,
        agent: session.agent,
        vm: session.vm,
        agent_session: session.agent_session_id,
        cwd: session.cwd,
        title: session.title,
        created: session.created_at.as_millisecond(),
        updated: session.updated_at.as_millisecond(),
        state: String::new(),
        options: match options {
            "null" => "{}".into(),
            options => options.into(),
        },
        usage: "{}".into(),
    })
}

/// What serde says, without its place: a line of a line.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (at column {})", error.column()),
        None => text,
    }
}

/// The lines of a file, one in memory at a time.
struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    limit: usize,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path, line_bytes: usize) -> Result<Lines, Usage> {
        let (name, reader): (String, Box<dyn BufRead>) = if path == Path::new("-") {
            ("standard input".into(), Box::new(std::io::stdin().lock()))
        } else {
            let name = path.display().to_string();
            if path.is_dir() {
                return Err(Usage(format!(
                    "{name} is a folder; name a file that `acpbox sessions export SESSION --format jsonl` wrote"
                )));
            }
            let file = File::open(path).map_err(|error| Usage(format!("{name}: {error}")))?;
            (name, Box::new(BufReader::new(file)))
        };
        Ok(Lines {
            name,
            reader,
            limit: line_bytes.saturating_add(LINE_MARGIN),
            number: 0,
            line: Vec::new(),
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<&str>> {
        self.line.clear();
        self.number += 1;
        let limit = u64::try_from(self.limit).unwrap_or(u64::MAX);
        let mut reader = (&mut self.reader).take(limit.saturating_add(1));
        let read = reader
            .read_until(b'\n', &mut self.line)
            .with_context(|| format!("cannot read {}", self.name))?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.len() > self.limit {
            let what = format!(
                "longer than {} bytes; raise limits.line_bytes in the configuration if the file is to be trusted",
                self.limit
            );
            return Err(self.wrong(&what).into());
        }
        match std::str::from_utf8(&self.line) {
            Ok(line) => Ok(Some(line.trim_end_matches(['\n', '\r']))),
            Err(error) => {
                let what = format!("not UTF-8 at column {}", error.valid_up_to() + 1);
                Err(self.wrong(&what).into())
            }
        }
    }

    /// What is wrong with the line that was read last; nothing of the file is imported.
    fn wrong(&self, why: &str) -> Usage {
        Usage(format!(
            "{}, line {}: {why}; nothing was imported",
            self.name, self.number
        ))
    }
}
