//! The `acpbox` binary: arguments become a command, its result an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|it| it == "example-agent")
    {
        return acpbox::agent::example::run();
    }
    acpbox::cli::main()
}
