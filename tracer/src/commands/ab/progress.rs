//! Progress and summary of an experiment, on standard error.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    commands::{args::AbArgs, progress::ProgressLine, session::look_again},
    compare::{
        schedule,
        wording::{counted, time},
    },
    model::totals::Totals,
    output::{cells, grouped},
    recording::{Experiment, Label},
    say,
    tui::terminal,
};

/// "1 whole round of 12, 6 windows".
fn rounds_text(whole: u32, of: u32, windows: u32) -> String {
    let round = if whole == 1 { "round" } else { "rounds" };
    let is_all = windows == whole * u32::from(schedule::PLACES);
    let windows = if is_all { String::new() } else { format!(", {}", counted(windows.into(), "window")) };
    format!("{whole} whole {round} of {of}{windows}")
}

/// An experiment's progress.
pub(super) struct Progress<'a> {
    experiment: &'a Experiment,
    pub(super) line: ProgressLine,
    pub(super) totals: Totals,
    pub(super) window: Option<Label>,
    /// whole windows
    pub(super) done: u32,
    /// how far the primary figures are
    pub(super) standing: String,
}

impl<'a> Progress<'a> {
    /// `alone`: no command writes to the same terminal.
    pub(super) fn new(experiment: &'a Experiment, alone: bool) -> Self {
        let line = ProgressLine::new(alone);
        Self { experiment, line, totals: Totals::default(), window: None, done: 0, standing: String::new() }
    }

    /// Sleeps, and shows the progress every second. `then` is the rest of the window after that.
    pub(super) async fn sleep(&self, time: Duration, then: Duration) {
        let until = Instant::now() + time;
        loop {
            self.show(until.saturating_duration_since(Instant::now()) + then);
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::time::sleep_until(until.min(now + Duration::from_secs(1))).await;
        }
    }

    fn show(&self, of_window: Duration) {
        let (Some(width), Some(window)) = (self.line.width(), self.window) else { return };
        let Experiment { arms, window_ns, washout_ns, rounds, .. } = self.experiment;
        let [window_time, washout] = [window_ns, washout_ns].map(|ns| Duration::from_nanos(*ns));
        let left = of_window + schedule::time_left(self.done + 1, *rounds, window_time, washout);
        let arm = usize::from(window.arm);
        let Totals { entries, dropped, .. } = self.totals;
        let of_dropped = if dropped == 0 { String::new() } else { format!("{} DROPPED", grouped(dropped)) };
        self.line.show(&fitted(
            &[
                format!("round {} of {rounds}, {} ({})", window.round + 1, ["A", "B"][arm], arms[arm]),
                format!("{} left", time(left)),
                of_dropped,
                self.standing.clone(),
                "Ctrl-C compares now".to_owned(),
                counted(entries, "entry"),
            ],
            width,
        ));
    }

    /// Rounds of which every window is recorded.
    pub(super) fn whole_rounds(&self) -> u32 {
        self.done / u32::from(schedule::PLACES)
    }

    pub(super) fn summary(&self, args: &AbArgs, reason: &str) {
        let Totals { entries, dropped, .. } = self.totals;
        let text = format!(
            "recorded {}; {}, {} dropped (ended by {reason}); seed {}",
            rounds_text(self.whole_rounds(), self.experiment.rounds, self.done),
            counted(entries, "entry"),
            grouped(dropped),
            self.experiment.seed
        );
        say!("{}", terminal::fitted(&text));
        if let Some(look) = compare_again(args) {
            say!("compare again: {look}");
        }
    }
}

/// The parts that fit into a line, the first ones first.
fn fitted(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let longer = if line.is_empty() { part.clone() } else { format!("{line}; {part}") };
        if line.is_empty() || cells(&longer) <= width {
            line = longer;
        }
    }
    line
}

/// The command line that compares the recording again as it is compared here; none where it cannot be read again.
pub(super) fn compare_again(args: &AbArgs) -> Option<String> {
    let look = look_again("compare", &args.output)?;
    let percent = format!("{:.9}", args.ignore_below * 100.0);
    let ignored = match percent.trim_end_matches('0').trim_end_matches('.') {
        "0" => String::new(),
        percent => format!(" --ignore-below {percent}%"),
    };
    Some(look + &ignored)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::args::{Cli, Command};

    #[test]
    fn the_summary_says_how_many_rounds_are_whole() {
        assert_eq!(rounds_text(12, 12, 48), "12 whole rounds of 12");
        assert_eq!(rounds_text(1, 12, 6), "1 whole round of 12, 6 windows");
        assert_eq!(rounds_text(0, 12, 1), "0 whole rounds of 12, 1 window");
    }

    #[test]
    fn the_line_has_as_many_parts_as_fit() {
        let parts =
            ["round 1 of 12, A (soft)", "", "4 min left", "x: still between 1 and 2", "900 entries"].map(str::to_owned);
        assert_eq!(fitted(&parts, 80), "round 1 of 12, A (soft); 4 min left; x: still between 1 and 2; 900 entries");
        assert_eq!(fitted(&parts, 50), "round 1 of 12, A (soft); 4 min left; 900 entries");
        assert_eq!(fitted(&parts, 9), parts[0], "which the line itself cuts");
    }

    #[test]
    fn the_next_comparison_has_the_options_of_this_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let again = |more: &[&str]| {
            let line = [&["vmentry", "ab", "-o", file.path().to_str().unwrap()], more].concat();
            let Some(Command::Ab(args)) = Cli::try_parse_from(line).unwrap().command else { panic!() };
            compare_again(&args).unwrap()
        };
        assert!(again(&[]).ends_with(file.path().to_str().unwrap()));
        assert!(again(&["--ignore-below", "7%"]).ends_with(" --ignore-below 7%"));
        assert!(again(&["--ignore-below", "0.25%"]).ends_with(" --ignore-below 0.25%"));
    }
}
