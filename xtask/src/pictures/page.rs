//! The pictures of HTML pages, by a headless Chromium. Two browsers never draw the same bytes: beside each picture lies the
//! checksum of its page, which tells when it is stale.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{build, process};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const MOST_BYTES: u64 = 150_000;

/// A page of which the beginning is drawn.
struct Page {
    /// name of its files, without suffix
    name: &'static str,
    /// the command that writes it, and its recording below tracer/tests/data
    command: [&'static str; 2],
    /// pixels of the picture
    size: &'static str,
}

const PAGES: [Page; 2] = [
    Page { name: "report-html", command: ["report", "known-exits.hlog"], size: "1000,1100" },
    Page { name: "comparison-html", command: ["compare", "soft-hard.hlog"], size: "1000,900" },
];

/// Draws the pages, or leaves the pictures as they are where there is no browser.
pub(super) fn draw() -> Result<()> {
    match browser() {
        Some(browser) => PAGES.iter().try_for_each(|page| page.draw(&browser)),
        None => {
            eprintln!("the pictures of pages are left as they are: none of {} is installed", BROWSERS.join(", "));
            Ok(())
        }
    }
}

/// Fails if a picture is of another page.
pub(super) fn check() -> Result<()> {
    PAGES.iter().try_for_each(Page::check)
}

fn browser() -> Option<PathBuf> {
    let folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

impl Page {
    fn draw(&self, browser: &Path) -> Result<()> {
        let (page, picture) = (self.write()?, self.file("png"));
        let mut command = Command::new(browser);
        command.args(["--headless", "--disable-gpu", "--hide-scrollbars", &format!("--window-size={}", self.size)]);
        if process::is_root() {
            // Chromium's sandbox refuses to run as root. The page is this project's own and has no script.
            command.arg("--no-sandbox");
        }
        command.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{}", page.display()));
        process::run(command.stdout(Stdio::null()).stderr(Stdio::null()), "draw an HTML page")?;
        let bytes = fs::metadata(&picture).with_context(|| format!("read {}", picture.display()))?.len();
        ensure!(bytes < MOST_BYTES, "{} has {bytes} bytes: make it smaller than {MOST_BYTES}", picture.display());
        let sum = self.file("sum");
        fs::write(&sum, checksum(&page)?).with_context(|| format!("write {}", sum.display()))
    }

    fn check(&self) -> Result<()> {
        let drawn = fs::read_to_string(self.file("sum")).unwrap_or_default();
        ensure!(
            self.file("png").is_file() && checksum(&self.write()?)? == drawn,
            "docs/pictures/{}.png is not what vmentry draws: run 'cargo xtask pictures' where chromium is installed, and commit",
            self.name
        );
        Ok(())
    }

    fn file(&self, suffix: &str) -> PathBuf {
        build::root().join("docs/pictures").join(self.name).with_extension(suffix)
    }

    /// Writes the page into the target folder.
    fn write(&self) -> Result<PathBuf> {
        let page = build::target_dir().join("pictures").join(self.name).with_extension("html");
        let folder = page.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
        let mut vmentry = Command::new(build::debug_binary("vmentry")?);
        vmentry.current_dir(build::root().join("tracer/tests/data")).args(self.command);
        process::run(vmentry.args(["--overwrite", "-o"]).arg(&page).stderr(Stdio::null()), "write an HTML page")?;
        Ok(page)
    }
}

/// SHA-256 in hexadecimal, with a line's end.
fn checksum(file: &Path) -> Result<String> {
    let line = process::output(Command::new("sha256sum").arg(file))?;
    let sum = line.split_whitespace().next().with_context(|| format!("sha256sum {}: no sum", file.display()))?;
    Ok(format!("{sum}\n"))
}
