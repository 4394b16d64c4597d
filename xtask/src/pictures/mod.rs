//! `cargo xtask pictures`: writes the documentation's pictures, docs/pictures, from committed recordings, and checks them.

mod page;

use anyhow::Result;
use clap::Args;

use crate::{build, process};

/// Arguments of `pictures`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Compare with the committed pictures instead of replacing them
    #[arg(long)]
    check: bool,
}

/// Writes the pictures, or compares them with the committed ones. vmentry's test `pictures` draws them, because it has the
/// live view's cells and the binary.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut test = build::cargo(["test", "--quiet", "--package", "vmentry", "--test", "pictures"]);
    if arguments.check {
        test.env_remove("UPDATE_SNAPSHOTS");
    } else {
        test.env("UPDATE_SNAPSHOTS", "1");
    }
    process::run(&mut test, "draw docs/pictures")?;
    if arguments.check {
        page::check()?
    } else {
        page::draw()?
    }
    println!("docs/pictures is {}", if arguments.check { "up to date" } else { "written: look at it, and commit it" });
    Ok(())
}
