//! Draws the time line of a round: what each figure measures. The definitions are docs/latencies.md's.

use std::fmt::Write;

const SIZE: (u32, u32) = (900, 372);

// Moments, from left to right.
const EXIT_BEFORE: u32 = 70;
const ENTRY: u32 = 336;
const VMRESUME: u32 = 392;
const GUEST_FIRST: u32 = 486;
const GUEST_LAST: u32 = 650;
const HOST_FIRST: u32 = 744;
const EXIT: u32 = 800;
const END: u32 = 860;

/// Top and height of the bar of time.
const BAR: (u32, u32) = (78, 34);

/// A part of the bar: from, to, class, text.
const PARTS: [(u32, u32, &str, &str); 8] = [
    (30, EXIT_BEFORE, "host", ""),
    (EXIT_BEFORE, ENTRY, "host", "KVM, the VMM, halts"),
    (ENTRY, VMRESUME, "host", "KVM"),
    (VMRESUME, GUEST_FIRST, "transition", "VM entry"),
    (GUEST_FIRST, GUEST_LAST, "guest", "guest"),
    (GUEST_LAST, HOST_FIRST, "transition", "VM exit"),
    (HOST_FIRST, EXIT, "host", "KVM"),
    (EXIT, END, "host", ""),
];

/// A tracepoint: when, its name, and the round it belongs to.
const TRACEPOINTS: [(u32, &str, &str); 3] =
    [(EXIT_BEFORE, "kvm_exit", "n − 1"), (ENTRY, "kvm_entry", "n"), (EXIT, "kvm_exit", "n")];

/// A figure: its line, from, to, its name, and its explanation.
const FIGURES: [(u32, u32, u32, &str, &str); 7] = [
    (0, EXIT_BEFORE, ENTRY, "exit_to_entry_ns", "host time of exit n − 1"),
    (0, ENTRY, EXIT, "entry_to_exit_ns", "guest time, VM entry and VM exit included"),
    (1, EXIT_BEFORE, ENTRY, "kernel, user, polled, idle, steal", "the parts of host time"),
    (1, ENTRY, GUEST_FIRST, "entry_latency", "vmentry calibrate"),
    (1, GUEST_FIRST, GUEST_LAST, "guest", "vmentry calibrate"),
    (1, GUEST_LAST, EXIT, "exit_latency", "vmentry calibrate"),
    (2, EXIT_BEFORE, VMRESUME, "pin_writes", "pin-control writes before VM entry n"),
];

/// The stopwatch's two pieces, on a line of their own.
const TRANSITION: [(u32, u32); 2] = [(VMRESUME, GUEST_FIRST), (GUEST_LAST, HOST_FIRST)];

/// Places of pin-control writes: of nested VMs before kvm_entry, of the timer's toggling after it.
const PIN_WRITES: [u32; 2] = [310, 362];

// Without variables, which some viewers lack: they show the light picture.
const STYLE: &str = "
svg { color-scheme: light dark; font: 13px system-ui, sans-serif; }
text { fill: #1a1d21; text-anchor: middle; }
.name { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-weight: 600; }
.quiet { fill: #565d67; font-size: 12px; }
.page { fill: #ffffff; }
.host { fill: #cfe2f1; }
.transition { fill: #f6dfc6; }
.guest { fill: #cde8da; }
.pin { fill: #b84a00; }
.span { stroke: #1a1d21; fill: none; }
.moment { stroke: #565d67; stroke-dasharray: 2 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8eb; }
  .quiet { fill: #a4acb6; }
  .page { fill: #0d1117; }
  .host { fill: #1f4561; }
  .transition { fill: #5d3c17; }
  .guest { fill: #1e4c38; }
  .pin { fill: #f29a4e; }
  .span { stroke: #e6e8eb; }
  .moment { stroke: #a4acb6; }
}
";

pub fn picture() -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\">\n\
         <style>{STYLE}</style>\n<title>The time line of a round of a vCPU, and what each figure of vmentry measures</title>\n\
         <rect width=\"{w}\" height=\"{h}\" rx=\"8\" class=\"page\"/>\n",
        w = SIZE.0,
        h = SIZE.1
    );
    for (from, to, class, text) in PARTS {
        let (top, height) = BAR;
        writeln!(out, "<rect class=\"{class}\" x=\"{from}\" y=\"{top}\" width=\"{}\" height=\"{height}\"/>", to - from)
            .unwrap();
        out += &label((from + to) / 2, top + 22, "", text);
    }
    let axis = BAR.0 + BAR.1;
    writeln!(out, "<path class=\"span\" d=\"M30 {axis}H{END}m-6 -4l6 4l-6 4\"/>").unwrap();
    out += &label(END + 16, axis + 4, "quiet", "time");
    for (x, name, round) in TRACEPOINTS {
        writeln!(out, "<path class=\"moment\" d=\"M{x} 56V{}\"/>", line(2) + 10).unwrap();
        out += &label(x, 30, "name", name);
        out += &label(x, 48, "quiet", round);
    }
    for x in PIN_WRITES {
        writeln!(out, "<path class=\"pin\" d=\"M{x} {}l-6 -12h12z\"/>", BAR.0).unwrap();
    }
    for (at, from, to, name, explanation) in FIGURES {
        out += &span(from, to, line(at));
        out += &label((from + to) / 2, line(at) + 19, "name", name);
        out += &label((from + to) / 2, line(at) + 36, "quiet", explanation);
    }
    for (from, to) in TRANSITION {
        out += &span(from, to, line(2));
    }
    let [(_, left), (right, _)] = TRANSITION;
    writeln!(out, "<path class=\"moment\" d=\"M{left} {0}H{right}\"/>", line(2)).unwrap();
    out += &label((left + right) / 2, line(2) + 19, "name", "transition_ns");
    out += &label((left + right) / 2, line(2) + 36, "quiet", "VM entry and VM exit: the companion patch’s stopwatch");
    let (x, y) = (EXIT_BEFORE, SIZE.1 - 34);
    writeln!(out, "<path class=\"pin\" d=\"M{x} {y}l-6 -12h12z\"/>").unwrap();
    let notes = [
        "a pin-control write: the VM entry after it repeats all its consistency checks. \
         Nested VMs write before kvm_entry,",
        "the hard policy after it. One event per VM entry leaves the kernel, at kvm_exit n.",
    ];
    for (n, note) in notes.iter().enumerate() {
        let y = SIZE.1 - 34 + 20 * n as u32;
        writeln!(out, "<text class=\"quiet\" x=\"{}\" y=\"{y}\" style=\"text-anchor: start\">{note}</text>", x + 14)
            .unwrap();
    }
    out + "</svg>\n"
}

/// Height of a line of figures.
fn line(at: u32) -> u32 {
    142 + 66 * at
}

fn label(x: u32, y: u32, class: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>\n") }
}

/// An arrow with two heads.
fn span(from: u32, to: u32, y: u32) -> String {
    let (from, to) = (from + 1, to - 1);
    format!(
        "<path class=\"span\" d=\"M{from} {y}H{to}M{} {}l-6 4l6 4M{} {}l6 4l-6 4\"/>\n",
        from + 6,
        y - 4,
        to - 6,
        y - 4
    )
}
