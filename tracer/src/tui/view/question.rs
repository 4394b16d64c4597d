//! The question before the policy is switched.

use super::pen::Pen;
use crate::{model::policy::Policy, tui::App};

const WIDTH: u16 = 58;
const HEIGHT: u16 = 7;

/// Draws it over the middle.
pub(super) fn draw(pen: &mut Pen, app: &App, policy: Policy) {
    let p = pen.palette;
    let (width, height) = (WIDTH.min(pen.width()), HEIGHT.min(pen.height()));
    let (x, y) = ((pen.width() - width) / 2, (pen.height() - height) / 2);
    let mut pen = pen.part(x, y, width, height);
    pen.clear();
    pen.rule(0, &format!("Switch the timer policy from {} to {}?", app.info.policy.name(), policy.name()));
    pen.put(2, 2, "It applies to every VM of this host from its next entry", p.plain());
    pen.put(2, 3, "on. The previous policy is restored at the end.", p.plain());
    let end = pen.put(2, 5, "y", p.accent());
    let end = pen.put(end + 1, 5, "switch", p.quiet());
    let end = pen.put(end + 3, 5, "n", p.accent());
    pen.put(end + 1, 5, "keep it", p.quiet());
    pen.rule(6, "");
}
