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
mod words;

use std::{
    fs,
    io::{Read, Write, stdin},
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
        "-o {}: name the page NAME.html: 'vmentry survey -o host.html' writes host.html and host.json",
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
    let look = words::unknown_words(&survey.host.cpu);
    if !look.is_empty() {
        say!("look at these words of the CPU before you send it: {}", output::printable(&look.join(" "), 100));
    }
    say!("{}", next_step(&survey, &json));
    Ok(ExitCode::SUCCESS)
}

/// What to do with the JSON: to send it, if its figures are of a real CPU.
fn next_step(survey: &Survey, json: &Path) -> String {
    if survey.host.emulated {
        return "EMULATED: these files show what a survey has; 'vmentry help hosts' says why its table takes real CPUs only"
            .into();
    }
    format!(
        "please send the JSON: 'vmentry help hosts' says how, and 'vmentry survey --check {}' checks it",
        shown(json)
    )
}

/// Prints a survey's row of docs/hosts.md, if the survey is whole, consistent, of a real CPU and without names.
fn print_row(file: &Path) -> Result<ExitCode> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".into() } else { shown(file) };
    let text = if is_stdin { bounded(stdin().lock(), &name)? } else { text_of(file, &name)? };
    let survey = judge::read(&text).map_err(|why| anyhow!("{name}: {why}"))?;
    let source = if is_stdin { "host.json".into() } else { file.file_name().unwrap_or_default().to_string_lossy() };
    let mut findings = judge::judge(&survey, &values::today());
    if !is_link(&source) {
        findings.faults.push(format!(
            "{name}: the row links to it: name it with letters, digits, '.', '_', '-' and .json at its end"
        ));
    }
    if !findings.faults.is_empty() {
        bail!("{name} gives no row of the table of hosts:\n  {}", findings.faults.join("\n  "));
    }
    output::print(&(row::row(&survey, &source) + "\n"))?;
    findings.remarks.iter().for_each(|remark| say!("remark: {remark}"));
    if is_stdin {
        say!("remark: the row links to host.json: write the name of the file in docs/hosts there");
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of a file. A FIFO or a device may never end.
fn text_of(file: &Path, name: &str) -> Result<String> {
    let is_file = fs::metadata(file).with_context(|| format!("read {name}"))?.is_file();
    if !is_file {
        bail!("read {name}: it is no regular file: name the JSON of 'vmentry survey -o', or '-' for standard input");
    }
    bounded(fs::File::open(file).with_context(|| format!("read {name}"))?, name)
}

/// The text of a survey, of which no more is read than a survey has.
fn bounded(from: impl Read, name: &str) -> Result<String> {
    let mut text = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut text).with_context(|| format!("read {name}"))?;
    if text.len() as u64 > MOST_BYTES {
        bail!(
            "read {name}: it has more than {MOST_BYTES} bytes, as no survey has: name the JSON of 'vmentry survey -o'"
        );
    }
    String::from_utf8(text).map_err(|_| anyhow!("read {name}: it is no UTF-8: name the JSON of 'vmentry survey -o'"))
}

/// Whether a link of Markdown to a JSON file of this name works.
fn is_link(name: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.strip_suffix(".json").is_some_and(|stem| !stem.is_empty()) && name.chars().all(is_usual)
}

#[cfg(test)]
mod tests;
