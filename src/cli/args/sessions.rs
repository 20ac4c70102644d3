//! Of `acpbox sessions`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum SessionsCommand {
    /// List sessions, the most recent first.
    List(SessionsListArguments),
    /// Find words in all transcripts, the best and most recent first.
    Search(SessionsSearchArguments),
    /// Print a session's transcript for reading.
    Show(SessionsShowArguments),
    /// Play a session's transcript as it happened.
    Replay(SessionsReplayArguments),
    /// Write a session's transcript to a file or to stdout.
    Export(SessionsExportArguments),
    /// Read a session that was exported as JSONL.
    Import(SessionsImportArguments),
    /// Delete sessions with all that is stored of them.
    Delete(SessionsDeleteArguments),
    /// Delete the longest unused sessions, down to the limits of `[retention]`.
    Prune(SessionsPruneArguments),
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsListArguments {
    /// Print a JSON array.
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Only sessions whose working folder this is.
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) cwd: Option<PathBuf>,
    /// Only sessions with this agent.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// Only sessions in this VM.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) vm: Option<String>,
    /// Only sessions in this state.
    #[arg(long, value_enum)]
    pub(in crate::cli) state: Option<StateName>,
    /// Only sessions last used at or after this: `7d` ago, `2026-11-01` or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Only sessions last used before this.
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    /// Only sessions with this in their title.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) title: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) limit: u32,
}

/// All words must occur in one message, tool call or title; case and accents do
/// not matter. `"two words"` in quotes of their own stand together, as do the
/// words of src/main.rs; `word*` finds all that begins so.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsSearchArguments {
    /// What to look for.
    #[arg(value_name = "WORDS", required = true)]
    pub(in crate::cli) words: Vec<String>,
    /// Print one JSON object, as `_acpbox/session/search` answers.
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Only in this session: its id, or as much of it as is unique.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) session: Option<String>,
    /// Only in sessions whose working folder this is.
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) cwd: Option<PathBuf>,
    /// Only in sessions with this agent.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(in crate::cli) limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StateName {
    /// Its agent runs, in some acpbox process.
    Live,
    /// Its client or its process ended without closing it.
    Open,
    /// Its agent was idle and ended; it goes on when it is used.
    Sleeping,
    Closed,
}

/// The limits are those of `[retention]` in the configuration, and of the flags
/// over them. Live sessions stay.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsPruneArguments {
    /// Only say what would be deleted.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
    /// Delete sessions that were not used for so long, such as `90d`.
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) max_age: Option<String>,
    /// Keep at most so many sessions.
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_sessions: Option<u64>,
    /// Let the database use at most so much, such as `10GiB`.
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) max_bytes: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsShowArguments {
    /// A session's id, or as much of it as is unique.
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// Print one JSON object: the session and its events.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsExportArguments {
    /// A session's id, or as much of it as is unique.
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// `jsonl` has everything, message by message; `markdown` and `html` (one
    /// page that needs nothing else) are for reading.
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(in crate::cli) format: ExportFormat,
    /// Where to write it [default: stdout]; an existing file is replaced.
    #[arg(long, short, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    Jsonl,
    Markdown,
    Html,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsImportArguments {
    /// What `sessions export --format jsonl` wrote; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// Give the session a new id, also in its messages.
    #[arg(long)]
    pub(in crate::cli) new_id: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsReplayArguments {
    /// A session's id, or as much of it as is unique.
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// So many times as fast as it happened [default: 1; at once where standard
    /// output is no terminal].
    #[arg(long, value_name = "N", value_parser = speed, conflicts_with = "instant")]
    pub(in crate::cli) speed: Option<f64>,
    /// Without any pause.
    #[arg(long)]
    pub(in crate::cli) instant: bool,
    /// The longest pause, before --speed divides it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    pub(in crate::cli) max_pause: Duration,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.01..=10_000.0).contains(&speed) => Ok(speed),
        _ => Err("a number from 0.01 to 10000, such as 4".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0 to 86400, such as 0.5".to_owned()),
    }
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SessionsDeleteArguments {
    /// Sessions' ids, or as much of each as is unique.
    #[arg(value_name = "ID", required = true)]
    pub(in crate::cli) ids: Vec<String>,
    /// Do not ask.
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
}
