//! Text attributes of a terminal, for text that people read: the one list of words that have a colour.

/// An attribute of a piece of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ink {
    /// none
    #[default]
    Plain,
    /// stands out
    Bold,
    /// stands back
    Dim,
    /// an alarm that no reader may miss
    Red,
    /// a warning, or a question that is open
    Yellow,
    /// good news
    Green,
}

/// The words that begin a line, and its ink.
const LINES: [(&str, Ink); 13] = [
    ("LOST", Ink::Red),
    ("DAMAGED", Ink::Red),
    ("ALARM", Ink::Red),
    ("ERROR:", Ink::Red),
    ("not ready:", Ink::Red),
    ("EMULATED", Ink::Yellow),
    ("DISTURBED", Ink::Yellow),
    ("SHARED", Ink::Yellow),
    ("UNSEEN", Ink::Yellow),
    ("WARNING", Ink::Yellow),
    ("warning:", Ink::Yellow),
    ("not proven", Ink::Yellow),
    ("ready", Ink::Green),
];

/// Verdicts, and their ink.
const VERDICTS: [(&str, Ink); 6] = [
    ("WORSE", Ink::Red),
    ("DIFFERS", Ink::Red),
    ("better", Ink::Green),
    ("agrees", Ink::Green),
    ("open", Ink::Yellow),
    ("undecided", Ink::Yellow),
];

impl Ink {
    /// That of a line, by the words that begin it.
    pub(crate) fn of_line(line: &str) -> Self {
        LINES.iter().find(|(word, _)| line.starts_with(word)).map_or(Self::Plain, |(_, ink)| *ink)
    }

    /// That of a verdict, which may have the mark of a footnote.
    pub(crate) fn of_verdict(verdict: &str) -> Self {
        let word = verdict.trim_end_matches('*');
        VERDICTS.iter().find(|(known, _)| *known == word).map_or(Self::Plain, |(_, ink)| *ink)
    }
}

/// Puts escape sequences around text, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paint {
    /// whether the text goes to a terminal that shows attributes
    pub(crate) on: bool,
}

impl Paint {
    /// The text in an ink; as it is where there is none to show.
    pub(crate) fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.on || text.is_empty() => return text.into(),
            Ink::Plain => return text.into(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Red => "1;31",
            Ink::Yellow => "33",
            Ink::Green => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The lines of a text, each in its ink. A line that is indented by three or more spaces goes on with the one above.
    pub(crate) fn lines(self, text: &str) -> String {
        let mut ink = Ink::Plain;
        let line = |line: &str| {
            if !line.starts_with("   ") {
                ink = Ink::of_line(line);
            }
            self.ink(ink, line) + "\n"
        };
        text.lines().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_attributes_only_where_they_are_wanted() {
        let on = Paint { on: true };
        assert_eq!(on.ink(Ink::Bold, "a"), "\x1b[1ma\x1b[0m");
        assert_eq!((on.ink(Ink::Plain, "a"), on.ink(Ink::Red, "")), ("a".into(), String::new()));
        assert_eq!(Paint::default().ink(Ink::Red, "a"), "a");
    }

    #[test]
    fn an_alarm_is_red_to_its_last_line_and_the_line_below_is_not() {
        let text = "LOST in A: 7\n         of 9\nA  soft\n   x\nwarning: w\n  -> fix\n";
        let painted = "\x1b[1;31mLOST in A: 7\x1b[0m\n\x1b[1;31m         of 9\x1b[0m\nA  soft\n   x\n\x1b[33mwarning: w\x1b[0m\n  -> fix\n";
        assert_eq!(Paint { on: true }.lines(text), painted);
        assert_eq!(Paint::default().lines(text), text);
    }

    #[test]
    fn a_verdict_keeps_its_ink_with_the_mark_of_a_footnote() {
        assert_eq!(["WORSE", "WORSE*", "~"].map(Ink::of_verdict), [Ink::Red, Ink::Red, Ink::Plain]);
    }
}
