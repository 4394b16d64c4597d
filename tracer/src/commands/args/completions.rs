//! The command lines of `completions` and `man`.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
The deb and the rpm have them installed. Otherwise, for this user:
  vmentry completions bash > ~/.local/share/bash-completion/completions/vmentry
  vmentry completions zsh > ~/.zfunc/_vmentry       a folder in fpath
  vmentry completions fish > ~/.config/fish/completions/vmentry.fish")]
pub struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = shells(), ignore_case = true, hide_possible_values = true)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write to
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Replace pages that are there
    #[arg(long)]
    pub overwrite: bool,
}

/// The shells whose completions are tested.
fn shells() -> impl TypedValueParser<Value = Shell> {
    PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|name| name.to_lowercase().parse::<Shell>())
}
