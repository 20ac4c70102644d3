//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::ToolKind;

mod server;
mod sessions;

pub(super) use server::{AttachArguments, ServeArguments, ServerAddress, StatusArguments};
pub(super) use sessions::{
    ExportFormat, SessionsCommand, SessionsDeleteArguments, SessionsExportArguments,
    SessionsImportArguments, SessionsListArguments, SessionsPruneArguments,
    SessionsReplayArguments, SessionsSearchArguments, SessionsShowArguments, StateName,
};

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
    /// How stderr is written: for people, or each line as a JSON object.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Speak ACP on stdin and stdout (what a bare `acpbox` does when piped).
    Stdio(StdioArguments),
    /// Serve any number of ACP clients on sockets.
    ///
    /// Sessions, their agents and VMs live on when a client goes. SIGTERM lets
    /// running turns end; a second one does not.
    Serve(ServeArguments),
    /// What the running server does: its sessions, VMs and clients.
    ///
    /// Exits with 1 if none runs.
    Status(StatusArguments),
    /// Follow a live session in the terminal, prompt it and answer what it asks.
    ///
    /// The session is the server's (`acpbox serve`) and goes on when you leave.
    Attach(AttachArguments),
    /// Send one prompt and print the reply.
    Run(RunArguments),
    /// List, show, replay, export, import and delete stored sessions.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// What a session's agent wrote to stderr.
    Logs(LogsArguments),
    /// The agents that acpbox knows.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// The VMs that exist.
    #[command(subcommand)]
    Vms(VmsCommand),
    /// Answers to agents' questions that are remembered.
    #[command(subcommand)]
    Permissions(PermissionsCommand),
    /// Check what acpbox, its VMs and agents need, and say how to mend it.
    ///
    /// Exits with 0 if acpbox is usable, with 1 if not.
    Doctor(DoctorArguments),
    /// JSON Schema of acpbox's own methods and of its configuration.
    Schema(SchemaArguments),
    /// A completion script for a shell, to be sourced or installed.
    Completions(CompletionsArguments),
    /// The example agent itself, on stdin and stdout.
    #[command(hide = true)]
    ExampleAgent,
}

// Without a doc comment, which would become that of the command.
#[derive(Debug, Default, Clone, Args)]
pub(super) struct ServerArguments {
    /// Do not use a server (`acpbox serve`) that runs already.
    #[arg(long)]
    pub(super) no_server: bool,
    /// Start a server if none runs, and use it; it goes on when this ends.
    #[arg(long, conflicts_with = "no_server")]
    pub(super) spawn_server: bool,
}

#[derive(Debug, Default, Clone, Args)]
pub(super) struct StdioArguments {
    #[command(flatten)]
    pub(super) server: ServerArguments,
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
    #[command(flatten)]
    pub(super) server: ServerArguments,
    /// The agent to ask; see `acpbox agents list`.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
    /// The VM to run it in [default: the workspace's own].
    #[arg(long, value_name = "NAME")]
    pub(super) vm: Option<String>,
    /// Go on with a stored session: its id, or as much of it as is unique.
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
    /// What to ask; standard input is added to it when it is no terminal.
    #[arg(value_name = "PROMPT")]
    pub(super) prompt: Vec<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum PermissionsCommand {
    /// List the answers that were given for always.
    List(JsonArguments),
    /// Forget an answer, so that the next question is asked again.
    Revoke(PermissionsRevokeArguments),
    /// What would be answered to a request, and why: no agent is started or asked.
    ///
    /// Exits with 0 if the request is allowed, with 3 if it is refused, and with 6 if
    /// you are asked; with 0 for all requests of a session together.
    Test(PermissionsTestArguments),
}

#[derive(Debug, Clone, Args)]
pub(super) struct PermissionsTestArguments {
    /// The agent that asks; the configured default if left out.
    #[arg(long, value_name = "NAME", conflicts_with = "session")]
    pub(super) agent: Option<String>,
    /// The folder that the session works in; the current one if left out.
    #[arg(long, value_name = "FOLDER", conflicts_with = "session")]
    pub(super) cwd: Option<PathBuf>,
    /// The VM that it runs in, where that is not the folder's own.
    #[arg(long, value_name = "NAME", conflicts_with = "session")]
    pub(super) vm: Option<String>,
    /// The kind of the tool call; `execute` if left out where there is a command, else
    /// not said.
    #[arg(long, value_name = "KIND", conflicts_with = "session", value_parser = tool_kind)]
    pub(super) kind: Option<ToolKind>,
    /// Its title.
    #[arg(long, value_name = "TEXT", conflicts_with = "session")]
    pub(super) title: Option<String>,
    /// Its command line.
    #[arg(long, value_name = "LINE", conflicts_with = "session")]
    pub(super) command: Option<String>,
    /// A file that it names, absolute or in the folder; may be repeated.
    #[arg(long, value_name = "PATH", conflicts_with = "session")]
    pub(super) path: Vec<String>,
    /// Take each request that the agent of this stored session made instead, as if
    /// it came now. Its id, or as much of it as is unique.
    #[arg(long, value_name = "ID")]
    pub(super) session: Option<String>,
    /// Take its last request only.
    #[arg(long, requires = "session")]
    pub(super) last: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

fn tool_kind(name: &str) -> Result<ToolKind, String> {
    ToolKind::named(name).ok_or_else(|| {
        "the kinds are read, edit, delete, move, search, execute, think, fetch, switch_mode, other"
            .to_owned()
    })
}

#[derive(Debug, Clone, Args)]
pub(super) struct PermissionsRevokeArguments {
    /// The answer's number; see `acpbox permissions list`.
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(super) id: Option<i64>,
    /// Revoke all of them.
    #[arg(long, conflicts_with = "id")]
    pub(super) all: bool,
    /// Do not ask first.
    #[arg(long, short)]
    pub(super) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct LogsArguments {
    /// A session's id, or as much of it as is unique.
    #[arg(value_name = "SESSION")]
    pub(super) session: String,
    /// Print each line as a JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Go on with what is written, until the session ends.
    #[arg(long, short)]
    pub(super) follow: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum AgentsCommand {
    /// List the agents, built-in and configured, and whether each is installed.
    List(JsonArguments),
    /// Show how an agent is started and what it is told in the present folder.
    Show(AgentsShowArguments),
}

#[derive(Debug, Clone, Args)]
pub(super) struct AgentsShowArguments {
    /// An agent's name.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Print a JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct JsonArguments {
    /// Print a JSON array.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum VmsCommand {
    /// List the VMs that exist, running or not.
    List(JsonArguments),
    /// End a running VM and all that runs in it; its disk stays.
    Stop(VmsStopArguments),
    /// Delete a stopped VM with its disk.
    Delete(VmsDeleteArguments),
    /// A shell, or a command, in a VM.
    Shell(VmsShellArguments),
}

#[derive(Debug, Clone, Args)]
pub(super) struct VmsStopArguments {
    /// A VM's name.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Stop it though a turn runs in it, which then ends unfinished.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct VmsDeleteArguments {
    /// A VM's name.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Do not ask.
    #[arg(long, short)]
    pub(super) yes: bool,
}

/// The exit code is the command's; 128 and the signal's number when a signal ended it.
#[derive(Debug, Clone, Args)]
pub(super) struct VmsShellArguments {
    /// A VM's name [default: the one of this folder].
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    /// What to run instead of a shell.
    #[arg(value_name = "COMMAND", last = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArguments {
    /// Print a JSON array of checks.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct SchemaArguments {
    /// Which one to print.
    #[arg(value_enum, default_value_t = SchemaName::Acpbox)]
    pub(super) name: SchemaName,
    /// Write all of them into this folder instead.
    #[arg(long, short, value_name = "FOLDER", conflicts_with = "name")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaName {
    /// Types of `_meta.acpbox` and of the `_acpbox/*` methods.
    Acpbox,
    /// The `_acpbox/*` methods, as an OpenRPC document.
    Openrpc,
    /// The configuration file.
    Config,
}

#[derive(Debug, Clone, Args)]
pub(super) struct CompletionsArguments {
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
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
