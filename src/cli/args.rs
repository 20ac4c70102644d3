//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs ACP coding agents inside VMs, behind any ACP editor, and keeps every transcript.
///
/// An editor starts `acpbox` (or `acpbox stdio`) as its agent's command. A
/// person or a script uses `acpbox run`.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Default, Clone, Args)]
pub(super) struct Global {
    /// The configuration file [default: $XDG_CONFIG_HOME/acpbox/config.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The database of transcripts [default: $XDG_STATE_HOME/acpbox/acpbox.db].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) db: Option<PathBuf>,
    /// Say more on stderr; repeat for more still.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Speak ACP on stdin and stdout (what a bare `acpbox` does when piped).
    Stdio(StdioArguments),
    /// Send one prompt and print the reply.
    Run(RunArguments),
    /// The example agent itself, on stdin and stdout.
    #[command(hide = true)]
    ExampleAgent,
}

#[derive(Debug, Default, Clone, Args)]
pub(super) struct StdioArguments {
    /// The agent of sessions whose client names none.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
    /// The VM of sessions whose client names none [default: one per workspace].
    #[arg(long, value_name = "NAME")]
    pub(super) vm: Option<String>,
}

/// The prompt is the arguments, then what is piped in.
#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_EXIT_CODES)]
pub(super) struct RunArguments {
    /// The agent to ask; see `acpbox agents list`.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
    /// The VM to run it in [default: the workspace's own].
    #[arg(long, value_name = "NAME")]
    pub(super) vm: Option<String>,
    /// Go on with a stored session.
    #[arg(long, value_name = "ID")]
    pub(super) session: Option<String>,
    /// The working folder [default: this one].
    #[arg(long, value_name = "FOLDER")]
    pub(super) cwd: Option<PathBuf>,
    /// What to print: the reply as it streams, one object at the end, or every event as a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Allow, once each, what the agent asks permission for.
    #[arg(long, conflicts_with = "deny")]
    pub(super) yes: bool,
    /// Refuse what the agent asks permission for (the default without a terminal).
    #[arg(long)]
    pub(super) deny: bool,
    /// What to ask.
    #[arg(value_name = "PROMPT")]
    pub(super) prompt: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Jsonl,
}

const RUN_EXIT_CODES: &str = "\
Exit codes:
  0  the turn ended
  1  acpbox itself failed
  2  wrong usage
  3  the agent refused, or stopped at a limit
  4  the turn was cancelled
  5  the agent or its VM failed";
