//! `acpbox completions`: a shell's completion script.

use clap::CommandFactory;

use super::args::{Arguments, CompletionsArguments};
use super::exit::{self, Code};
use super::output::Output;

pub(super) fn run(arguments: &CompletionsArguments) -> anyhow::Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "acpbox",
        &mut script,
    );
    let mut output = Output::new();
    output.text(&String::from_utf8_lossy(&script))?;
    output.flush()?;
    Ok(exit::DONE)
}
