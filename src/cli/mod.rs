//! The command line: one file per subcommand.

mod args;
mod context;
pub mod exit;
mod output;
mod client;
mod shim;
mod remote;
mod find;
mod confirm;
mod table;

mod stdio;
mod serve;
mod status;
mod attach;
mod run;
mod sessions;
mod logs;
mod agents;
mod vms;
mod permissions;
mod doctor;
mod boot_check;
pub mod schema;
mod completions;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command, LogFormat};

use crate::session::locks;

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging(&arguments.global);
    let is_piped = !std::io::stdin().is_terminal();
    let command = match arguments.command {
        Some(command) => command,
        // Editors name just `acpbox` as their agent's command.
        None if is_piped => Command::Stdio(args::StdioArguments::default()),
        None => {
            eprintln!("acpbox: a terminal is no ACP client; name a command (see `acpbox --help`)");
            return exit::USAGE.into();
        }
    };
    let outcome = match command {
        Command::ExampleAgent => return crate::agent::example::run(),
        Command::Stdio(stdio) => stdio::run(&arguments.global, &stdio),
        Command::Serve(serve) => serve::run(&arguments.global, &serve),
        Command::Status(status) => status::run(&arguments.global, &status),
        Command::Attach(attach) => attach::run(&arguments.global, &attach),
        Command::Run(run) => run::run(&arguments.global, &run),
        Command::Sessions(command) => sessions::run(&arguments.global, &command),
        Command::Logs(logs) => logs::run(&arguments.global, &logs),
        Command::Agents(command) => agents::run(&arguments.global, &command),
        Command::Vms(command) => vms::run(&arguments.global, &command),
        Command::Permissions(command) => permissions::run(&arguments.global, &command),
        Command::Doctor(doctor) => doctor::run(&arguments.global, &doctor),
        Command::Schema(schema) => schema::run(&schema),
        Command::Completions(completions) => completions::run(&completions),
    };
    match outcome {
        Ok(code) => code.into(),
        // Whoever read has read enough.
        Err(error) if error.is::<output::Closed>() => exit::DONE.into(),
        Err(error) => {
            output::say(&output::reasons(&error));
            exit::of(&error).into()
        }
    }
}

/// Logs go to stderr: stdout belongs to the protocol.
fn logging(global: &args::Global) {
    use tracing_subscriber::EnvFilter;
    let default = match global.verbose {
        0 => "acpbox=warn",
        1 => "acpbox=info",
        2 => "acpbox=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("ACPBOX_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call, as from a test, changes nothing.
    let _ = match global.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => {
            output::say_in_json();
            let subscriber = subscriber.json().flatten_event(true);
            subscriber.with_current_span(false).try_init()
        }
    };
}
