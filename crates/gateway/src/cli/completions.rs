//! `tickcast completions`: what a shell needs to complete command lines of this program.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use super::{Cli, Failure, finish};

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Flags of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tickcast completions bash > ~/.local/share/bash-completion/completions/tickcast
  tickcast completions zsh > ~/.zfunc/_tickcast
  tickcast completions fish > ~/.config/fish/completions/tickcast.fish

It completes verbs, flags and the words that a flag may have. A shell that is started afterwards reads the script.")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: CompletionShell,
}

impl CompletionsArgs {
    /// Runs `tickcast completions`.
    pub fn run(&self) -> ExitCode {
        finish(print(self.shell))
    }
}

fn print(shell: CompletionShell) -> Result<(), Failure> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    // In memory first: the generator takes a closed standard output for a mistake of the program.
    let mut script = Vec::new();
    generate(shell, &mut <Cli as CommandFactory>::command(), "tickcast", &mut script);
    let printed = stdout().write_all(&script);
    printed.map_err(|error| Failure::Failed(format!("cannot print the script: {error}")))
}
