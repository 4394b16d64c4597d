//! The words of a comparison, shared by text, HTML and the JSON's summary.

mod answer;
pub(crate) mod by_vm;
mod fail_if;
mod lack;
mod names;
mod numbers;
mod sides;

pub(crate) use self::{
    answer::{
        contradicting, contradiction, contradiction_mark, is_change, is_conclusive, largest_first, mix_differs, share,
        summary,
    },
    fail_if::condition,
    lack::advice,
    names::{exit_reason, footnotes, name, side, title, title_of_name, verdict, word},
    numbers::{change, interval, is_carried, mde, noise, p_value, percent, ratio, share_text, signed, size, value},
    sides::{alternation, damaged, entries, is_emulated, left_out, loss, pin_writes, timer_exits},
};
