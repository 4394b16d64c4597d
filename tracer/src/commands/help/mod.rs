//! `vmentry help`: the help of a command, or a page of the manual, which is docs/ of the source and travels in the binary.

mod links;
mod markdown;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use super::{
    args::{Cli, HelpArgs, commands},
    topics::{self, Topic},
    usage::{print_help, refuse},
};
use crate::{
    model::suggestion::did_you_mean,
    output::{Ink, MAX_NAME, Paint, page, print, printable, wrap},
    tui::terminal,
};

/// Columns of a page, at most: longer lines are hard to read. Examples and wide terminals' tables may be wider.
const TEXT_WIDTH: usize = 100;

/// Prints, on a terminal through the pager.
pub(super) fn run(args: &HelpArgs) -> Result<ExitCode> {
    let topics = topics::all()?;
    let paint = terminal::paint();
    let lower = args.subject.as_deref().map(str::to_lowercase);
    let text = match lower.as_deref() {
        None => overview(&topics, paint),
        Some(name) => match topics.iter().find(|topic| topic.name == name) {
            Some(topic) => {
                let is_topic = |name: &str| topics.iter().any(|topic| topic.name == name);
                markdown::render(&topic.text, is_topic, terminal::width(), paint)
            }
            None if commands().iter().any(|command| command == name) => return Ok(help_of(name)),
            None => return refuse(fitted(&unknown(name, &topics), terminal::message_width())),
        },
    };
    if terminal::is_output() {
        page(&text)?
    } else {
        print(&text)?
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what `vmentry COMMAND --help` prints.
fn help_of(command: &str) -> ExitCode {
    Cli::try_parse_from(["vmentry", command, "--help"]).map_or_else(|help| print_help(&help), |_| ExitCode::SUCCESS)
}

/// The help of the program, and the topics.
fn overview(topics: &[Topic], paint: Paint) -> String {
    let help = Cli::command().render_help();
    let help = if paint.on { help.ansi().to_string() } else { help.to_string() };
    format!("{help}\n{} ('vmentry help TOPIC' prints one):\n{}", paint.ink(Ink::Bold, "Topics"), list(topics))
}

/// A line of each topic, as clap lists commands.
fn list(topics: &[Topic]) -> String {
    let longest = topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let width = terminal::width().min(TEXT_WIDTH);
    let indent = " ".repeat(longest + 4);
    let line = |topic: &Topic| wrap(&format!("  {:longest$}  {}", topic.name, topic.summary()), &indent, width);
    topics.iter().map(line).collect()
}

/// The error of a name that is neither a command nor a topic.
fn unknown(name: &str, topics: &[Topic]) -> String {
    let commands = commands();
    let known = topics.iter().map(|topic| &topic.name).chain(&commands);
    format!(
        "help {}: there is no such command or topic\n  -> {}there are the commands {}, and these topics:\n{}",
        printable(name, MAX_NAME),
        did_you_mean(name, known),
        commands.join(", "),
        list(topics).trim_end()
    )
}

/// The lines of a message as a terminal has room for them.
fn fitted(message: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return message.to_owned() };
    message.lines().map(|line| wrap(line, "    ", width)).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest_one_and_the_list() {
        let topics = topics::all().unwrap();
        let error = unknown("overhed", &topics);
        assert!(error.starts_with("help overhed: there is no such"), "{error}");
        assert!(error.contains("did you mean overhead?") && error.contains("\n  figures "), "{error}");
        assert!(unknown("recrod", &topics).contains("did you mean record?"));
        assert!(!unknown("xyz", &topics).contains("did you mean"));
        assert_eq!(unknown("a\nFORGED", &topics).lines().filter(|line| line.starts_with("FORGED")).count(), 0);
    }

    #[test]
    fn no_topic_has_the_name_of_a_command() {
        let commands = commands();
        assert!(commands.iter().any(|name| name == "help"));
        let both: Vec<_> =
            topics::all().unwrap().into_iter().map(|t| t.name).filter(|n| commands.contains(n)).collect();
        assert_eq!(both, [""; 0]);
    }

    #[test]
    fn the_list_of_topics_fits_a_narrow_terminal() {
        let text = fitted(&unknown("nosuch", &topics::all().unwrap()), Some(40));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.lines().count() > 20, "{text}");
    }

    #[test]
    fn the_overview_lists_commands_and_topics() {
        let text = overview(&topics::all().unwrap(), Paint::default());
        assert!(text.contains("\n  record ") && text.contains("\n  figures "), "{text}");
    }
}
