//! Text attributes of a terminal, for text that people read.

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
    /// a warning that no reader may miss
    Red,
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
        };
        format!("\x1b[{code}m{text}\x1b[0m")
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
}
