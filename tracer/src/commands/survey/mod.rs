//! `vmentry survey`: what a real host is and costs, in two minutes, as one page and one JSON file that name nobody. Each part is one of this
//! program's own commands, run as a child: one that fails or hangs does not end the others, and it detaches and restores by itself.

mod facts;
mod figures;
mod judge;
#[cfg(test)]
mod made_up;
mod page;
mod parts;
mod projection;
mod reason;
mod recorded;
mod row;
mod run;
mod values;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    commands::{
        args::SurveyArgs,
        child::{Endings, default_endings},
        session::runtime,
        usage::refuse,
    },
    host::facts::gather,
    output::{self, WholeFile, shown},
    say,
};
use reason::Reason;
use values::Survey;

/// A survey is smaller than this; a larger file is none.
const MOST_BYTES: u64 = 4 << 20;

/// Surveys this host, or checks a survey.
pub(super) fn run(args: &SurveyArgs) -> Result<ExitCode> {
    match (&args.check, &args.output) {
        (Some(file), _) => print_row(file),
        (None, Some(page)) => survey(page, args.overwrite),
        (None, None) => refuse("name the page to write: vmentry survey -o host.html"),
    }
}

/// The JSON file beside the page.
fn json_beside(page: &Path) -> Result<PathBuf> {
    let is_page = page.extension().is_some_and(|suffix| suffix == "html" || suffix == "htm");
    if is_page {
        return Ok(page.with_extension("json"));
    }
    refuse(format!(
        "-o {}: name a file that ends with .html; the JSON is written beside it: vmentry survey -o host.html",
        shown(page)
    ))
}

fn survey(page: &Path, overwrite: bool) -> Result<ExitCode> {
    let json = json_beside(page)?;
    let (survey, files) = runtime()?.block_on(async {
        // First of all: from here on a signal leaves whole files.
        let endings = Endings::new()?;
        // Before two minutes of work; each takes its name only when it is whole.
        let files = [WholeFile::create(page, overwrite)?, WholeFile::create(&json, overwrite)?];
        let facts = gather(true);
        let parts = parts::measure(&facts, endings).await;
        anyhow::Ok((Survey::new(facts::of(&facts), parts), files))
    })?;
    let texts = [page::render(&survey), serde_json::to_string_pretty(&survey)? + "\n"];
    for ((mut file, text), path) in files.into_iter().zip(texts).zip([page, &json]) {
        let written = file.write_all(text.as_bytes()).and_then(|()| file.take_place());
        written.with_context(|| format!("write {}", shown(path)))?;
    }
    default_endings();
    say!("wrote {} and {}: no names of VMs, users or hosts are in them", shown(page), shown(&json));
    if survey.cut {
        say!("CUT: the survey was ended before all parts were done");
    }
    if !survey.parts.has_figures() {
        let why = survey.parts.check.unavailable.unwrap_or(Reason::Silent);
        say!("vmentry: nothing could be measured here: {}", why.text());
        return Ok(ExitCode::FAILURE);
    }
    say!(
        "please send the JSON: 'vmentry help hosts' says how, and 'vmentry survey --check {}' checks it",
        shown(&json)
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints a survey's row of docs/hosts.md, if the survey is whole, consistent, of a real CPU and without names.
fn print_row(file: &Path) -> Result<ExitCode> {
    let name = shown(file);
    let size = fs::metadata(file).with_context(|| format!("read {name}"))?.len();
    if size > MOST_BYTES {
        bail!(
            "read {name}: it has {size} bytes, and a survey has at most {MOST_BYTES}: name the JSON of 'vmentry survey -o'"
        );
    }
    let text = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    let survey = judge::read(&text).map_err(|why| anyhow!("{name}: {why}"))?;
    let faults = judge::faults(&survey);
    if !faults.is_empty() {
        bail!("{name} gives no row of the table of hosts:\n  {}", faults.join("\n  "));
    }
    let source = file.file_name().unwrap_or_default().to_string_lossy();
    output::print(&(row::row(&survey, &output::name(&source)) + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
