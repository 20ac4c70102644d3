//! The `acpbox` binary: arguments become a command, its result an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Inside a VM every millisecond counts, and nothing else must be started.
    if acpbox::vm::guest::is_guest(std::env::args_os()) {
        return acpbox::vm::guest::run();
    }
    acpbox::cli::main()
}
