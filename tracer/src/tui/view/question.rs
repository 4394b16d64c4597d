//! The question before something is done that cannot be undone, or that concerns others.

use super::pen::Pen;
use crate::{
    output,
    tui::{App, keys::Question},
};

const WIDTH: u16 = 58;
const HEIGHT: u16 = 7;

/// Draws it over the middle.
pub(super) fn draw(pen: &mut Pen, app: &App, question: Question) {
    let p = pen.palette;
    let (title, text, yes, no) = match question {
        Question::Policy(policy) => (
            format!("Switch the policy from {} to {}?", app.info.policy.name(), policy.name()),
            "It applies to every VM of this host from its next entry on. The previous policy is restored at the end.",
            "switch",
            "keep it",
        ),
        Question::Forget => (
            "Forget everything seen so far?".to_owned(),
            "All intervals in memory are dropped; the baseline stays. Recordings and reports that were saved stay, too.",
            "forget",
            "keep it",
        ),
    };
    let (width, height) = (WIDTH.min(pen.width()), HEIGHT.min(pen.height()));
    let (x, y) = ((pen.width() - width) / 2, (pen.height() - height) / 2);
    let mut pen = pen.part(x, y, width, height);
    pen.clear();
    pen.rule(0, &title);
    let text = output::wrap(text, "", usize::from(width.saturating_sub(3)));
    // Of its five lines, two are usual.
    let from = if text.lines().count() > 2 { 1 } else { 2 };
    for (y, line) in (from..5).zip(text.lines()) {
        pen.put(2, y, line, p.plain());
    }
    let end = pen.put(2, 5, "y", p.accent());
    let end = pen.put(end + 1, 5, yes, p.quiet());
    let end = pen.put(end + 3, 5, "n", p.accent());
    pen.put(end + 1, 5, no, p.quiet());
    pen.rule(6, "");
}
