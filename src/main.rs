//! The `acpbox` binary: arguments become a command, its result an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    if acpbox::vm::guest::is_guest(std::env::args_os()) {
        return acpbox::vm::guest::run();
    }
    acpbox::cli::main()
}
