//! The manual: README.md, the pages of docs/, and `vmentry help`, which prints them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Lines of the README and of a page, at most: a reader who wants one answer should not have to search.
const README_LINES: usize = 150;
const PAGE_LINES: usize = 300;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// The names and texts of the pages in docs/.
fn pages() -> Vec<(String, String)> {
    let files = fs::read_dir(root().join("docs")).expect("read docs/").flatten().map(|entry| entry.path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages: Vec<_> =
        pages.map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), read(&path))).collect();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

fn vmentry(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmentry")).args(args).output().expect("run vmentry")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The indented names below a heading that starts like this, to the next empty line.
fn listed(help: &str, heading: &str) -> BTreeSet<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with(heading)).skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_readme_and_each_page_are_short() {
    let readme = read(&root().join("README.md")).lines().count();
    assert!(readme <= README_LINES, "README.md: {readme} lines, at most {README_LINES}");
    let long: Vec<_> = pages().into_iter().filter(|(_, page)| page.lines().count() >= PAGE_LINES).collect();
    assert!(
        long.is_empty(),
        "fewer than {PAGE_LINES} lines: {:?}",
        long.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
}

#[test]
fn the_readme_links_every_page() {
    let readme = read(&root().join("README.md"));
    let missing: Vec<_> =
        pages().into_iter().map(|(name, _)| name).filter(|n| !readme.contains(&format!("(docs/{n}.md)"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_page_is_a_topic_and_every_topic_is_printed() {
    let overview = vmentry(&["help"]);
    assert!(overview.status.success());
    let expected: BTreeSet<_> = pages().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed(&text(&overview.stdout), "Topics"), expected);
    for (name, page) in pages() {
        let output = vmentry(&["help", &name]);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(text(&output.stdout).lines().next(), page.lines().next(), "{name}");
    }
}

#[test]
fn the_help_of_a_command_is_its_own() {
    let (by_help, by_flag) = (vmentry(&["help", "record"]), vmentry(&["record", "--help"]));
    assert!(by_help.status.success());
    assert_eq!(text(&by_help.stdout), text(&by_flag.stdout));
}

#[test]
fn an_unknown_topic_gets_a_suggestion_and_the_list_and_is_a_wrong_command_line() {
    let output = vmentry(&["help", "overhed"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let error = text(&output.stderr);
    assert!(error.contains("did you mean overhead?") && error.contains("\n  erratum "), "{error}");
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmentry"))
        .args(["help", "formats"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run vmentry");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("wait for vmentry");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn every_help_that_a_text_names_exists() {
    let overview = text(&vmentry(&["help"]).stdout);
    let known: BTreeSet<_> = listed(&overview, "Topics").into_iter().chain(listed(&overview, "Commands:")).collect();
    let mut texts = pages();
    texts.push(("README.md".into(), read(&root().join("README.md"))));
    for folder in ["tracer/src", "xtask/src", "dashboards", "packaging"] {
        texts.extend(files_below(&root().join(folder)));
    }
    let mut found = 0;
    for (name, text) in texts {
        for subject in text.split("vmentry help ").skip(1) {
            let is_letter = |c: &char| c.is_ascii_lowercase() || *c == '-';
            let subject: String = subject.chars().take_while(is_letter).collect();
            found += usize::from(!subject.is_empty());
            assert!(subject.is_empty() || known.contains(&subject), "{name}: vmentry help {subject}");
        }
    }
    assert!(found > 15, "only {found} were found");
}

/// Names and texts of the files below a folder, without tests, which name what does not exist.
fn files_below(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("read a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            files.push((path.display().to_string(), code.to_owned()));
        }
    }
    files
}

#[test]
fn the_output_in_the_readme_is_an_excerpt_of_that_in_the_manual() {
    let readme = read(&root().join("README.md"));
    let page = read(&root().join("docs/pin-controls.md"));
    let (_, output) = readme.split_once("$ vmentry report --claims").expect("the output of report --claims");
    let (output, _) = output.split_once("```").expect("its end");
    let parts: Vec<_> = output.split("...").map(str::trim).filter(|part| !part.is_empty()).collect();
    assert!(parts.len() > 2, "{parts:?}");
    for part in parts {
        assert!(page.contains(part), "docs/pin-controls.md has not:\n{part}");
    }
}

/// The rows of the table of hosts.
fn host_rows(page: &str) -> Vec<&str> {
    let table = page.lines().skip_while(|line| !line.starts_with("| CPU | microcode ")).skip(2);
    table.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn each_row_of_the_table_of_hosts_is_printed_from_its_file() {
    let page = read(&root().join("docs/hosts.md"));
    let mut files: Vec<_> = fs::read_dir(root().join("docs/hosts")).into_iter().flatten().flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    let row = |file: &fs::DirEntry| {
        let path = file.path();
        let output = vmentry(&["survey", "--check", &path.display().to_string()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    };
    let printed: Vec<_> = files.iter().map(row).collect();
    assert_eq!(host_rows(&page), printed);
    assert_eq!(page.contains("The table is empty"), printed.is_empty(), "the page says whether the table is empty");
    // A row that was typed would be found.
    let typed = page.replacen("|---|\n", "|---|\n| typed |\n", 1);
    assert_eq!(host_rows(&typed).first(), Some(&"| typed |"));
}
