//! The picture of the HTML report, by a headless Chromium. Two browsers never draw the same bytes: beside the picture lies
//! the checksum of its page, which tells when it is stale.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{build, process};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const RECORDING: &str = "tracer/tests/data/known-exits.hlog";
/// Pixels of the picture: the page's beginning.
const SIZE: &str = "1000,1100";
const MOST_BYTES: u64 = 150_000;

/// Draws the page, or leaves the picture as it is where there is no browser.
pub(super) fn draw() -> Result<()> {
    let Some(browser) = browser() else {
        eprintln!("{} is left as it is: none of {} is installed", picture().display(), BROWSERS.join(", "));
        return Ok(());
    };
    let page = page()?;
    let mut command = Command::new(browser);
    command.args(["--headless", "--disable-gpu", "--hide-scrollbars", &format!("--window-size={SIZE}")]);
    if process::is_root() {
        // Chromium's sandbox refuses to run as root. The page is this project's own and has no script.
        command.arg("--no-sandbox");
    }
    command.arg(format!("--screenshot={}", picture().display())).arg(format!("file://{}", page.display()));
    process::run(command.stdout(Stdio::null()).stderr(Stdio::null()), "draw the HTML report")?;
    let bytes = fs::metadata(picture()).with_context(|| format!("read {}", picture().display()))?.len();
    ensure!(bytes < MOST_BYTES, "{} has {bytes} bytes: make it smaller than {MOST_BYTES}", picture().display());
    let sum = checksum(&page)?;
    fs::write(sum_file(), sum).with_context(|| format!("write {}", sum_file().display()))
}

/// Fails if the picture is of another page.
pub(super) fn check() -> Result<()> {
    let drawn = fs::read_to_string(sum_file()).unwrap_or_default();
    ensure!(
        picture().is_file() && checksum(&page()?)? == drawn,
        "docs/pictures/report-html.png is not what vmentry draws: run 'cargo xtask pictures' where chromium is installed, \
         and commit"
    );
    Ok(())
}

fn browser() -> Option<PathBuf> {
    let folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

fn picture() -> PathBuf {
    build::root().join("docs/pictures/report-html.png")
}

fn sum_file() -> PathBuf {
    build::root().join("docs/pictures/report-html.sum")
}

/// Writes the HTML report into the target folder.
fn page() -> Result<PathBuf> {
    let page = build::target_dir().join("pictures/report.html");
    let folder = page.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    let mut report = Command::new(build::debug_binary("vmentry")?);
    report.current_dir(build::root()).args(["report", RECORDING, "--overwrite", "-o"]).arg(&page);
    process::run(report.stderr(Stdio::null()), "write the HTML report")?;
    Ok(page)
}

/// SHA-256 in hexadecimal, with a line's end.
fn checksum(file: &Path) -> Result<String> {
    let line = process::output(Command::new("sha256sum").arg(file))?;
    let sum = line.split_whitespace().next().with_context(|| format!("sha256sum {}: no sum", file.display()))?;
    Ok(format!("{sum}\n"))
}
