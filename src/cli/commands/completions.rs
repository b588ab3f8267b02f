//! `s3vault completions`

use clap::{Command, CommandFactory};
use clap_complete::aot;

use crate::cli::args::{Arguments, CompletionsArgs, Shell};
use crate::cli::exit::CliResult;
use crate::cli::output;

/// Prints the completion script for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> CliResult {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut text = Vec::new();
    aot::generate(shell, &mut visible(), "s3vault", &mut text);
    output::show(String::from_utf8_lossy(&text).trim_end())
}

/// The command line without internal commands, which clap hides in `--help` only.
pub(super) fn visible() -> Command {
    let full = Arguments::command();
    let commands = full.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let about = full.get_about().cloned().unwrap_or_default();
    Command::new("s3vault")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .subcommand_required(true)
        .args(full.get_arguments().cloned())
        .subcommands(commands)
}
