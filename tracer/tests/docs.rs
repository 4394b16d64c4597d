//! The repository's Markdown files: line length, relative links, and the commands in their examples against `--help`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Characters of a line, but for tables and lines that are only a link.
const MAX_WIDTH: usize = 120;

#[test]
fn no_line_of_markdown_is_too_long() {
    no_faults(pages().into_iter().flat_map(|page| page.faults(long_lines(&page.text))).collect());
}

#[test]
fn every_error_that_the_manual_explains_is_a_text_of_the_program() {
    let sources = rust_sources(&root().join("tracer/src"));
    let page = read(&root().join("docs/troubleshooting.md"));
    let rows = page.lines().skip_while(|l| !l.starts_with("|---")).skip(1).take_while(|l| l.starts_with('|'));
    let errors: Vec<_> = rows.filter_map(|row| row.split('|').nth(1)).flat_map(quoted).collect();
    assert!(errors.len() > 20, "{errors:?}");
    let missing: Vec<_> = errors.iter().filter(|error| !sources.contains(&longest_literal(error))).collect();
    assert!(missing.is_empty(), "not in tracer/src: {missing:?}");
}

#[test]
fn no_text_of_the_program_names_a_page_that_may_not_be_installed() {
    let mut named = Vec::new();
    for (path, source) in sources_below(&root().join("tracer/src")) {
        let code =
            source.split("#[cfg(test)]").next().and_then(|code| code.split("#[test]").next()).unwrap_or_default();
        // Of the arguments, comments are the help.
        let is_text = |line: &str| !line.trim_start().starts_with("//") || path.ends_with("commands/args.rs");
        let lines = code.lines().enumerate().filter(|(_, line)| is_text(line));
        let names_page = |line: &str| {
            let has_suffix = line.match_indices(".md").any(|(at, _)| line[..at].ends_with(char::is_alphanumeric));
            has_suffix || line.contains("README") || line.contains("docs/")
        };
        named.extend(lines.filter(|(_, l)| names_page(l)).map(|(n, l)| format!("{}:{}: {l}", path.display(), n + 1)));
    }
    assert!(named.is_empty(), "name a topic, 'vmentry help TOPIC':\n{}", named.join("\n"));
}

/// The texts between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The longest run of words of an error that holds no placeholder (a word in capitals, a number, or "...").
fn longest_literal(error: &str) -> String {
    let is_placeholder = |word: &&str| {
        word.contains("...")
            || word.contains(char::is_numeric)
            || (word.len() < 10 && word.chars().all(|c| c.is_ascii_uppercase() || c == ':'))
    };
    let words: Vec<_> = error.split(' ').collect();
    words.split(is_placeholder).map(|run| run.join(" ")).max_by_key(String::len).unwrap_or_default()
}

/// All Rust sources below a folder.
fn sources_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).expect("read a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources.extend(sources_below(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let source = read(&path);
            sources.push((path, source));
        }
    }
    sources
}

/// All Rust sources below a folder as one text, with strings that continue on the next line joined.
fn rust_sources(folder: &Path) -> String {
    let mut text = String::new();
    for (_, source) in sources_below(folder) {
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            match line.strip_suffix('\\') {
                Some(head) => {
                    text += head;
                    text += lines.next().unwrap_or_default().trim_start();
                }
                None => text += line,
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let folders = ["", "tracer/src", "tracer-ebpf/src", "tracer-ebpf"].map(|folder| root().join(folder));
    let page = read(&root().join("ARCHITECTURE.md"));
    let is_path = |text: &&str| (text.ends_with('/') || text.ends_with(".rs")) && !text.contains(['*', '{', ' ']);
    let paths: Vec<_> = page.lines().flat_map(quoted).filter(is_path).collect();
    assert!(paths.len() > 30, "{paths:?}");
    let missing: Vec<_> =
        paths.iter().filter(|path| !folders.iter().any(|folder| folder.join(path).exists())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_relative_link_points_to_a_file_and_a_heading_of_it() {
    let mut faults = Vec::new();
    for page in pages() {
        let folder = page.path.parent().unwrap_or(Path::new("")).to_owned();
        let headings = |path: &str| match path {
            "" => Some(headings(&page.text)),
            path if path.ends_with(".md") => fs::read_to_string(folder.join(path)).ok().map(|text| headings(&text)),
            path => folder.join(path).exists().then(Vec::new),
        };
        faults.extend(page.faults(broken_links(&page.text, headings)));
    }
    no_faults(faults);
}

#[test]
fn every_command_in_the_examples_is_one_of_the_program() {
    let mut help = HashMap::new();
    let mut faults = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let found = invocations(&page.text);
        checked += found.len();
        for (line, invocation) in found {
            let complaints =
                invocation.unknown(|sub| help.entry(sub.to_owned()).or_insert_with(|| help_of(sub)).clone());
            faults.extend(page.faults(complaints.into_iter().map(|text| (line, text)).collect()));
        }
    }
    no_faults(faults);
    assert!(checked > 50, "only {checked} commands were found: the examples are not recognised any more");
}

/// A Markdown file of the repository.
struct Page {
    /// relative to the repository
    name: String,
    path: PathBuf,
    text: String,
}

impl Page {
    fn faults(&self, found: Vec<(usize, String)>) -> Vec<String> {
        found.into_iter().map(|(line, text)| format!("{}:{line}: {text}", self.name)).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn no_faults(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// All Markdown files, but for build output, hidden folders and licences.
fn pages() -> Vec<Page> {
    let mut folders = vec![root()];
    let mut pages = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display()));
        for entry in entries.map(|entry| entry.unwrap_or_else(|e| panic!("read {}: {e}", folder.display()))) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().unwrap_or_else(|e| panic!("look at {}: {e}", path.display()));
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".md") && !name.starts_with("LICENSE") {
                let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
                pages.push(Page { text: read(&path), name, path });
            }
        }
    }
    assert!(pages.iter().any(|page| page.name == "README.md"), "the repository's README.md was not found");
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}

/// A line of a page: its number from 1, its text, and the info string of the code fence that it stands in.
struct Line<'a> {
    number: usize,
    text: &'a str,
    fence: Option<&'a str>,
}

/// The lines of a page without those that open and close a fence.
fn lines(text: &str) -> Vec<Line<'_>> {
    let mut fence = None;
    let mut lines = Vec::new();
    for (at, text) in text.lines().enumerate() {
        match (text.trim_start().strip_prefix("```"), fence) {
            (Some(info), None) => fence = Some(info.trim()),
            (Some(_), Some(_)) => fence = None,
            (None, _) => lines.push(Line { number: at + 1, text, fence }),
        }
    }
    lines
}

/// Lines above [`MAX_WIDTH`] characters that are neither of a table nor only a link.
fn long_lines(text: &str) -> Vec<(usize, String)> {
    let is_table = |line: &Line| line.fence.is_none() && line.text.trim_start().starts_with('|');
    lines(text)
        .iter()
        .filter(|line| !is_table(line) && !is_only_a_link(line.text))
        .map(|line| (line.number, line.text.chars().count()))
        .filter(|&(_, width)| width > MAX_WIDTH)
        .map(|(number, width)| (number, format!("{width} characters, at most {MAX_WIDTH}")))
        .collect()
}

/// Whether a line has nothing but one link: a URL, `<URL>`, `[text](target)` or `[name]: target`, as a list item or
/// not.
fn is_only_a_link(line: &str) -> bool {
    let line = line.trim().trim_start_matches(['-', '*', '+']).trim_start().trim_end_matches(['.', ',', ';', ':']);
    let is_target = |s: &str| !s.is_empty() && !s.contains(char::is_whitespace);
    let is_url = |s: &str| is_target(s) && s.contains("://");
    if is_url(line) && !line.contains("](") {
        return true;
    }
    let Some((_, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return false };
    rest.strip_prefix(": ").is_some_and(is_target)
        || rest.strip_prefix('(').and_then(|target| target.strip_suffix(')')).is_some_and(is_target)
}

/// Prose between code fences, paragraph by paragraph, in pieces: code spans (true) and the text between them. A piece
/// has the number of the line in which it begins.
fn prose(text: &str) -> Vec<(usize, bool, String)> {
    let mut pieces: Vec<(usize, bool, String)> = Vec::new();
    let mut is_code = false;
    for line in lines(text) {
        let is_row = line.text.trim_start().starts_with('|');
        if line.fence.is_some() || line.text.trim().is_empty() || is_row {
            is_code = false;
        }
        for (at, part) in line.text.split('`').enumerate().filter(|_| line.fence.is_none()) {
            is_code ^= at > 0;
            match pieces.last_mut() {
                Some((_, true, span)) if is_code && at == 0 => *span += &format!(" {}", part.trim_start()),
                _ => pieces.push((line.number, is_code, part.to_owned())),
            }
        }
    }
    pieces
}

/// The anchors of a page's headings: lower case, dashes for spaces, other punctuation left out.
fn headings(text: &str) -> Vec<String> {
    let lines = lines(text).into_iter().filter(|line| line.fence.is_none() && line.text.starts_with('#'));
    let anchor = |title: &str| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
    };
    lines.map(|line| anchor(line.text.trim_start_matches('#').trim())).collect()
}

/// Relative links outside of examples to no file, or to no heading of it. `headings` of a path: none for a missing
/// file; of "", those of the page itself.
fn broken_links(text: &str, headings: impl Fn(&str) -> Option<Vec<String>>) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    for (line, _, prose) in prose(text).iter().filter(|(_, is_code, _)| !is_code) {
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let defined = prose.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        for link in inline.chain(defined.map(|(_, target)| target.trim())) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            match headings(path) {
                None => broken.push((*line, format!("no such file: {path}"))),
                Some(known) if !anchor.is_empty() && !known.iter().any(|heading| heading == anchor) => {
                    broken.push((*line, format!("no such heading: {link}")));
                }
                Some(_) => {}
            }
        }
    }
    broken
}

/// `vmentry` as an example calls it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Invocation {
    /// none: `vmentry` alone or with flags only
    subcommand: Option<String>,
    /// with their dashes, without values
    flags: Vec<String>,
}

impl Invocation {
    /// Returns the flags and the command that `help` (of a subcommand; of the program for "") does not list.
    fn unknown(&self, mut help: impl FnMut(&str) -> String) -> Vec<String> {
        let name = self.subcommand.as_deref().unwrap_or_default();
        if !name.is_empty() && !listed_commands(&help("")).iter().any(|known| known == name) {
            return vec![format!("vmentry has no command '{name}'")];
        }
        let known = listed_flags(&help(name));
        let unknown = self.flags.iter().filter(|flag| !known.contains(flag));
        unknown.map(|flag| format!("'vmentry {name}' has no {flag}")).collect()
    }
}

fn help_of(subcommand: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
    let output = command.args(Some(subcommand).filter(|s| !s.is_empty())).arg("--help").output();
    let output = output.unwrap_or_else(|e| panic!("run vmentry: {e}"));
    assert!(output.status.success(), "vmentry {subcommand} --help: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The names below "Commands:" in a help text.
fn listed_commands(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    commands.map_while(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The flags of a help text, short ones too: `-o` and `--output` of "  -o, --output <FILE>  File to write".
fn listed_flags(help: &str) -> Vec<String> {
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    options
        .flat_map(|line| line.split(", ").map_while(|name| name.split_whitespace().next()))
        .filter(|name| name.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

/// The calls of `vmentry` in fences and in inline code that begins with it. A fence marked `text` is output; in one
/// marked `console`, commands begin with `$ `. A line that ends in a backslash goes on in the next.
fn invocations(text: &str) -> Vec<(usize, Invocation)> {
    let spans = prose(text).into_iter().filter(|(_, is_code, span)| *is_code && span.starts_with("vmentry "));
    let mut commands: Vec<_> = spans.map(|(number, _, span)| (number, span)).collect();
    let mut goes_on = false;
    for Line { number, text, fence } in lines(text) {
        let code = match fence {
            None | Some("text") => continue,
            Some("console") if !goes_on => text.strip_prefix("$ "),
            Some(_) => Some(text),
        };
        let Some(code) = code else { continue };
        match commands.last_mut() {
            Some((_, command)) if goes_on => *command += code,
            _ => commands.push((number, code.to_owned())),
        }
        goes_on = false;
        if let Some((_, command)) = commands.last_mut().filter(|_| code.ends_with('\\')) {
            goes_on = true;
            command.pop();
        }
    }
    commands.iter().flat_map(|(number, command)| calls(command).into_iter().map(|call| (*number, call))).collect()
}

/// The calls of `vmentry` in a shell line: at its beginning, and after `sudo`, `--`, `&&`, `;` and `|`.
fn calls(line: &str) -> Vec<Invocation> {
    let mut found: Vec<Invocation> = Vec::new();
    let (mut at_start, mut inside) = (true, false);
    for (word, is_quoted) in words(line) {
        match word.as_str() {
            "--" | "&&" | "|" | ";" if !is_quoted => (at_start, inside) = (true, false),
            "sudo" if at_start => {}
            "vmentry" if at_start => {
                found.push(Invocation::default());
                (at_start, inside) = (false, true);
            }
            script if at_start && is_quoted && script.contains(' ') => found.extend(calls(script)),
            _ => {
                at_start = false;
                let Some(call) = found.last_mut().filter(|_| inside) else { continue };
                if word.starts_with('-') && word.len() > 1 && !is_quoted {
                    call.flags.push(word.split('=').next().unwrap_or_default().to_owned());
                } else if call.subcommand.is_none() && call.flags.is_empty() {
                    call.subcommand = Some(word);
                }
            }
        }
    }
    found
}

/// Words of a shell line up to a comment or a redirection, and whether they had quotes.
fn words(line: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut was_quoted) = (String::new(), None, false);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => (quote, was_quoted) = (Some(c), true),
            (None, '#' | '>') if word.is_empty() && !was_quoted => break,
            (None, ' ' | ';') => {
                if !word.is_empty() || was_quoted {
                    words.push((std::mem::take(&mut word), std::mem::take(&mut was_quoted)));
                }
                if c == ';' {
                    words.push((";".into(), false));
                }
            }
            _ => word.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Does it.\n\nUsage: vmentry [COMMAND]\n\nCommands:\n  record  Record it\n  policy  Switch it\n\n\
        Options:\n  -o, --output <FILE>  File, not --input\n      --by <DIM,..>  Rows\n  -h, --help  Print help\n";

    fn numbers<T>(found: Vec<(usize, T)>) -> Vec<usize> {
        found.into_iter().map(|(line, _)| line).collect()
    }

    fn unknown(text: &str) -> Vec<String> {
        invocations(text).into_iter().flat_map(|(_, call)| call.unknown(|_| HELP.into())).collect()
    }

    #[test]
    fn a_long_line_is_found_in_prose_and_in_examples() {
        let long = "word ".repeat(25);
        assert_eq!(numbers(long_lines(&format!("short\n{long}\n```\n{long}\n| {long}\n```\n"))), [2, 4, 5]);
        assert_eq!(long_lines(&"ä".repeat(MAX_WIDTH)), [], "characters count, not bytes");
        assert_eq!(long_lines(&"ä".repeat(MAX_WIDTH + 1)), [(1, "121 characters, at most 120".into())]);
    }

    #[test]
    fn tables_and_lines_that_are_only_a_link_may_be_long() {
        let url = format!("https://example.org/{}", "a".repeat(MAX_WIDTH));
        for line in [
            format!("| {url} | b |"),
            format!("{url}."),
            format!("- <{url}>"),
            format!("* [text of it]({url}),"),
            format!("[name]: {url}"),
        ] {
            assert_eq!(long_lines(&line), [], "{line}");
        }
        for line in [format!("see {url}"), format!("[text]({url}) and more"), format!("[a](b) [c]({url})")] {
            assert_eq!(numbers(long_lines(&line)), [1], "{line}");
        }
    }

    #[test]
    fn a_link_to_a_missing_file_is_found() {
        let text = "[a](there.md), [b](gone.md#part), [c](docs/gone.md \"title\")\n\n[d]: gone.png\n\
                    [f](https://example.org/gone#part)\n`[g](gone.md)`\n\n\
                    `code\n[i](gone.md)` [j](gone.md)\n```\n[h](gone.md)\n```\n";
        let broken = broken_links(text, |path| (path == "there.md").then(Vec::new));
        let expected = [(1, "gone.md"), (1, "docs/gone.md"), (3, "gone.png"), (8, "gone.md")];
        assert_eq!(broken, expected.map(|(line, path)| (line, format!("no such file: {path}"))));
    }

    #[test]
    fn a_link_to_a_missing_heading_is_found() {
        let text = "# A/B: `is` it so?\n\n[a](#ab-is-it-so) [b](#gone) [c](x.md#two-words) [d](x.md#gone) [e](x.md)\n";
        let broken = broken_links(text, |path| Some(headings(if path.is_empty() { text } else { "## Two words\n" })));
        assert_eq!(broken, ["#gone", "x.md#gone"].map(|link| (3, format!("no such heading: {link}"))));
        assert_eq!(headings("```\n# comment\n```\n"), [""; 0]);
    }

    #[test]
    fn a_command_or_flag_that_the_help_lacks_is_found() {
        assert_eq!(unknown("```\nvmentry recrd -o a\n```\n"), ["vmentry has no command 'recrd'"]);
        assert_eq!(
            unknown("```\nsudo vmentry record --out=a -x\n```\n"),
            ["'vmentry record' has no --out", "'vmentry record' has no -x"]
        );
        assert_eq!(unknown("```\nvmentry record --input\n```\n"), ["'vmentry record' has no --input"]);
        assert_eq!(unknown("use `vmentry record --gone`, or not\n"), ["'vmentry record' has no --gone"]);
        assert_eq!(
            unknown("`a` or `vmentry record\n--gone`, not `vmentry-x --gone`"),
            ["'vmentry record' has no --gone"]
        );
        assert_eq!(unknown("```\nvmentry record --output a --by vm -h\n```\n"), [""; 0]);
    }

    #[test]
    fn commands_are_found_wherever_a_shell_line_has_them() {
        for (line, expected) in [
            ("git clone ... vmentry && cd vmentry", 0),
            ("vmentry policy hard -- vmentry gone   # vmentry gone", 1),
            ("sudo true; vmentry gone > /tmp/vmentry", 1),
            ("cat a | vmentry gone", 1),
            ("cargo xtask lab -- 'vmentry gone; vmentry gone'", 2),
            ("vmentry record -- echo --gone 'vmentry gone'", 0),
            ("vmentry record --by '--gone # no comment' --gone", 1),
            ("vmentry", 0),
            ("vmentry record \\\n  --gone", 1),
        ] {
            assert_eq!(unknown(&format!("```\n{line}\n```\n")).len(), expected, "{line}");
        }
    }

    #[test]
    fn a_fault_is_reported_with_the_line_in_which_its_command_begins() {
        let text = "`vmentry gone`\n\n```\ntrue\nvmentry record \\\n  --gone\nvmentry gone\n```\n";
        assert_eq!(numbers(invocations(text)), [1, 5, 7]);
    }

    #[test]
    fn output_in_an_example_is_no_command() {
        assert_eq!(unknown("```text\nvmentry gone\n```\n"), [""; 0]);
        assert_eq!(unknown("```console\n$ vmentry record\nvmentry gone\n$ vmentry gone\n```\n").len(), 1);
    }

    #[test]
    fn a_help_text_lists_its_commands_and_flags() {
        assert_eq!(listed_commands(HELP), ["record", "policy"]);
        assert_eq!(listed_flags(HELP), ["-o", "--output", "--by", "-h", "--help"]);
    }
}
