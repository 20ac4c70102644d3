//! The `acpbox` binary: arguments become a command, its result an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    acpbox::cli::main()
}
