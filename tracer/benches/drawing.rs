//! Time of drawing the live screen: 200 VMs of 32 vCPUs on a terminal of 200x50, 4 frames and an interval per second.

use std::{hint::black_box, sync::Arc, time::Instant};

use ratatui::{Terminal, backend::TestBackend};
use tracer_common::{Event, Flags};
use vmentry::{
    host::{clock::Anchor, machine::Host},
    model::{
        interval::{Interval, Vm},
        knowledge::Knowledge,
        measurement::{Aggregation, PinSource},
        policy::Policy,
    },
    tui::{App, Colors, Info, Origin, Palette, app::Window, keys::Action, view},
};

const VMS: u32 = 200;
const VCPUS: u32 = 32;
const FRAMES: u32 = 200;
const INTERVALS: u64 = 70;

/// A second in which every vCPU made three kinds of exits.
fn interval(n: u64) -> Interval {
    let flags = Flags::LEVEL_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN | Flags::REASON_KNOWN;
    let flags = flags | Flags::PIN_READ | Flags::PIN_WRITES_KNOWN;
    let mut interval = Interval::starting(n * 1_000_000_000);
    interval.length_ns = 1_000_000_000;
    let vms: Vec<_> = (0..VMS)
        .map(|id| Arc::new(Vm { id, name: format!("vm{id}"), tgid: id, start_ticks: 1, ..Vm::default() }))
        .collect();
    for (at, vm) in vms.iter().enumerate() {
        for vcpu in 0..VCPUS {
            for round in 0..30u64 {
                let spread = (round * round * 37 + n * 11 + at as u64 * u64::from(vcpu)) % 4000;
                let reason = [10, 12, 52][round as usize % 3];
                let pin_writes = u8::from(reason == 52);
                let mut event = Event { exit_ns: 900 + spread, exit_to_entry_ns: 700 + spread / 3, ..Event::default() };
                (event.exit_reason, event.vcpu, event.flags, event.isa) = (reason, vcpu, flags, 1);
                event.pin_writes = pin_writes;
                event.previous = event.outline();
                interval.record(&event, vm);
            }
        }
    }
    interval.totals.entries = u64::from(VMS * VCPUS * 30);
    interval
}

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let frames = if std::env::args().any(|a| a == "--bench") { FRAMES } else { 2 };
    let info = Info {
        host: Host::default(),
        policy: Policy::Soft,
        pin_writes_source: PinSource::Shadow,
        aggregation: Aggregation::Records,
        switchable: false,
        max_delay_s: None,
        tsc_khz: None,
        stopwatch: false,
        knowledge: Knowledge::complete(),
        other_tracers: Vec::new(),
        origin: Origin::Live,
        anchor: Anchor::default(),
    };
    let mut app = App::new(info, Palette { color: Colors::True, ascii: false });
    let intervals: Vec<_> = (0..4).map(interval).collect();
    let next = |n: u64| intervals[n as usize % intervals.len()].clone();
    (0..INTERVALS.min(u64::from(frames))).for_each(|n| app.push(next(n)));
    let Ok(mut terminal) = Terminal::new(TestBackend::new(200, 50));
    println!("{VMS} VMs x {VCPUS} vCPUs, {} series per interval, 200x50", intervals[0].series.len());
    println!("{:<24}{:>12}{:>16}{:>14}", "window", "ms/frame", "ms/interval", "% of a core");
    let windows = [Window::Second, Window::TenSeconds, Window::Minute, Window::Start];
    for (window, detail) in windows.into_iter().map(|w| (w, false)).chain([(Window::TenSeconds, true)]) {
        app.detail = Some(detail);
        app.act(Action::Window(window));
        let mut draw = |app: &mut App| {
            let start = Instant::now();
            let drawn = terminal.draw(|frame| view::draw(frame, app));
            black_box(drawn.is_ok());
            start.elapsed().as_secs_f64() * 1e3
        };
        draw(&mut app);
        let cached = (0..frames).map(|_| draw(&mut app)).sum::<f64>() / f64::from(frames);
        // What an interval costs: taking it in, and the first frame after it beyond what any frame costs.
        let rounds = frames.min(10);
        let mut pushed = 0.0;
        for n in 0..rounds {
            let interval = next(u64::from(n));
            let start = Instant::now();
            app.push(interval);
            pushed += start.elapsed().as_secs_f64() * 1e3 + draw(&mut app) - cached;
        }
        let per_interval = pushed / f64::from(rounds);
        let share = (4.0 * cached + per_interval) / 10.0;
        let name = format!("{}{}", window.name(), if detail { " with detail" } else { "" });
        println!("{name:<24}{cached:>12.3}{per_interval:>16.2}{share:>14.2}");
    }
}
