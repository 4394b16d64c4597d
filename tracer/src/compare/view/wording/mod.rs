//! The words of a comparison, shared by text, HTML and the JSON's summary.

mod answer;
pub(crate) mod by_vm;
mod fail_if;
mod lack;
mod names;
mod numbers;
mod primary;
mod sides;

pub(crate) use self::{
    answer::{
        contradicting, contradiction, contradiction_mark, has_values, is_change, is_conclusive, largest_first,
        mix_differs, share, summary,
    },
    fail_if::condition,
    lack::advice,
    names::{exit_reason, footnotes, name, reason, side, title, title_of_name, verdict, verdict_of, word},
    numbers::{
        change, interval, is_carried, mde, mde_of, noise, p_value, percent, ratio, share_text, signed, size, value,
    },
    primary::{adjusted, clear, decided, gate, not_tested, place_mark, plan, primary, refusals},
    sides::{alternation, damaged, entries, is_emulated, left_out, loss, pin_writes, timer_exits},
};
