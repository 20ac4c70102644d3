//! Of `acpbox serve`, and of the commands that ask a running server.

use std::path::PathBuf;

use clap::Args;

use super::RUN_EXIT_CODES;

#[derive(Debug, Default, Clone, Args)]
pub(in crate::cli) struct ServeArguments {
    /// Where to listen: `unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT`; repeat for more
    /// [default: server.listen, else acpbox.sock in the runtime folder].
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) listen: Vec<String>,
    /// A file with the token that clients of TCP and HTTP must send; no other user may read it.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// A PEM file with the certificate, and its chain, for clients of TCP and HTTP: they
    /// are then spoken with by TLS alone.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's key.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) tls_key: Option<PathBuf>,
    /// Leave the terminal and the group of whoever started it.
    #[arg(long, hide = true)]
    pub(in crate::cli) detached: bool,
    /// The agent of sessions whose client names none.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// The VM of sessions whose client names none [default: one per workspace].
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) vm: Option<String>,
}

/// The server to ask.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ServerAddress {
    /// Where the server is: `unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT`, with TLS
    /// `tls:` or `https:` [default: where `acpbox serve` listens by itself].
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) server: Option<String>,
    /// A file with the token that a server on TCP asks for [default: its own, in
    /// the state folder].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// A PEM file with certificates of those who may vouch for a server with TLS, or
    /// with the server's own [default: those that this system trusts].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) certificate_authority: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StatusArguments {
    #[command(flatten)]
    pub(in crate::cli) server: ServerAddress,
    /// Print one JSON object, as `_acpbox/server/status` answers.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Each line that is typed is a prompt. Ctrl-C cancels the running turn; a second
/// one, or Ctrl-D, leaves. Without a terminal, lines are prompts too, one turn
/// after the other, and the end of the input leaves after the last answer.
#[derive(Debug, Clone, Args)]
#[command(after_help = RUN_EXIT_CODES)]
pub(in crate::cli) struct AttachArguments {
    /// A session's id, or as much of it as is unique.
    #[arg(value_name = "SESSION")]
    pub(in crate::cli) session: String,
    #[command(flatten)]
    pub(in crate::cli) server: ServerAddress,
    /// Only look on: prompt nothing, answer nothing, read no input.
    #[arg(long)]
    pub(in crate::cli) observe: bool,
    /// Begin behind the event of this number.
    #[arg(long, value_name = "N", conflicts_with = "tail", value_parser = clap::value_parser!(i64).range(0..))]
    pub(in crate::cli) after: Option<i64>,
    /// Begin with the last so many prompts and what came of them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(in crate::cli) tail: u32,
}
