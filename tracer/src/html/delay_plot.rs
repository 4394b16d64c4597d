//! Draws docs/erratum.svg, the delay of a soft-disabled timer over the TSC's frequency, from the model of the erratum.
//! UPDATE_SNAPSHOTS=1 writes it anew.

use std::{env, fs, num::NonZeroU32, path::Path};

use super::{
    STYLE,
    axis::Axis,
    chart::{Chart, Look, Scale},
};
use crate::model::{
    figures::Unit,
    soft_timer::{TimerSetup, TscRatio},
};

/// kHz of the crystal clock of Xeons.
const CRYSTAL_KHZ: u32 = 25_000;
/// KVM's shortest delay, ns.
const LEAST_NS: f64 = 10e9;

/// A Xeon whose TSC is `ratio` times the crystal clock.
fn xeon(ratio: u32, capped: bool) -> TimerSetup {
    TimerSetup {
        rate: 7,
        tsc_khz: NonZeroU32::new(ratio * CRYSTAL_KHZ).unwrap(),
        ratio: TscRatio::new(ratio, 1),
        hypervisor: false,
        capped: Some(capped),
        test_value: None,
    }
}

/// Hz of a TSC.
fn hz(ratio: u32) -> f64 {
    f64::from(ratio * CRYSTAL_KHZ) * 1e3
}

/// The picture. The values at some frequencies are written beside their dots.
fn chart() -> Chart {
    let ratios = 68..=132;
    let x = Scale {
        axis: Axis::linear(hz(64), hz(136)),
        unit: Unit::Count,
        title: "TSC frequency, crystal clock of 25 MHz",
    };
    let y = Scale { axis: Axis::log(0.7e9, 500e9), unit: Unit::Ns, title: "delay of a soft-disabled timer" };
    let mut chart = Chart::new("delay", "Delay of a soft-disabled VMX-preemption timer", x, y)
        .label_x(|hz| format!("{:.1} GHz", hz / 1e9));
    let mut words = Vec::new();
    chart.level(LEAST_NS);
    let (left, level) = (chart.x(hz(65)), chart.y(LEAST_NS));
    chart.text(left, level - 6.0, "tick", "KVM needs 10 s");
    let promised: Vec<_> =
        ratios.clone().map(|r| (hz(r), xeon(r, false).promised_ns().ok().map(|ns| ns as f64))).collect();
    let mut expires: Vec<_> = ratios.map(|r| (hz(r), xeon(r, false).expires_ns().ok().map(|ns| ns as f64))).collect();
    // From a ratio of 128 on, no value reaches the limit.
    expires.insert(expires.partition_point(|(x, _)| *x < hz(128)), (hz(128), None));
    chart.line(Look::B, &promised);
    chart.line(Look::A, &expires);
    let cap = xeon(80, true).promised_ns().unwrap() as f64;
    let (from, to, y) = (chart.x(hz(68)), chart.x(hz(127)), chart.y(cap));
    chart.path("mark dark", &format!("M{from:.1} {y:.1}H{to:.1}"));
    chart.text(chart.x(hz(92)), y + 15.0, "tick", &format!("with the cap of Linux 7.3: {:.1} s", cap / 1e9));
    for ratio in [80, 96, 112, 124, 127] {
        let ns = xeon(ratio, false).expires_ns().unwrap() as f64;
        chart.dot(Look::A, hz(ratio), ns);
        let (x, y) = (chart.x(hz(ratio)), chart.y(ns));
        chart.text(x - 8.0, y + 14.0, "end", &format!("{:.1} s", ns / 1e9));
        words.push(format!("{:.1} s at {:.3} GHz", ns / 1e9, hz(ratio) / 1e9));
    }
    chart.legend(Look::B, "promised");
    chart.legend(Look::A, "by the model");
    chart.describe(format!("Before Linux 7.3 it expires after {}.", words.join(", ")))
}

/// The picture as a file of its own, with its part of the pages' style.
fn svg() -> String {
    let figure = chart().render().into_string();
    let start = figure.find("<svg ").unwrap();
    let end = figure.find("</svg>").unwrap();
    let (head, body) = figure[start..end].split_once('>').unwrap();
    let variables = STYLE.split_once("* {").unwrap().0;
    let rules = STYLE.lines().filter(|line| line.starts_with("svg ")).collect::<Vec<_>>().join("\n");
    format!(
        "{head} xmlns=\"http://www.w3.org/2000/svg\" style=\"font-family: system-ui, sans-serif; background: var(--page)\">\n\
         <style>\n{variables}{rules}\n</style>{body}</svg>\n"
    )
}

#[test]
fn the_picture_of_the_documentation_is_the_models() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/erratum.svg");
    let drawn = svg();
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &drawn).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == committed, "docs/erratum.svg is not what the model draws: UPDATE_SNAPSHOTS=1 writes it anew");
}
