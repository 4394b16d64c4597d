//! Cost of reading a long recording: time, processor time and peak memory of `vmentry report` on recordings of 10 MB, 100 MB and 1 GB, and
//! of `vmentry compare` on two of 100 MB; of opening the largest one at a moment, with and without an index; the processor time also in multiples of that of `gzip -dc` for the same bytes, in the same run. `cargo bench -p vmentry --bench recordings`; takes a minute and 1.3 GB of the folder for temporary
//! files.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use tracer_common::{Event, Flags};
use vmentry::{
    compare::random::Random,
    model::{
        accounting::Accounting,
        accumulator::Accumulator,
        interval::{Interval, Vm},
    },
    recording::{End, Header, Writer},
};

/// A recording of which only the header is used.
const LAB: &str = include_str!("../tests/data/lab.hlog");
const VMS: u32 = 20;
const VCPUS: u32 = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// A second of a busy host: 160 vCPUs, seven exit reasons, 200 000 entries.
fn interval(seed: u64) -> Interval {
    let mut random = Random::new(seed);
    let vms: Vec<_> = (0..VMS).map(|id| Arc::new(Vm { id, name: format!("vm{id}"), ..Vm::default() })).collect();
    let mut accumulator = Accumulator::of(Interval::default());
    let known = Flags::LEVEL_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::REASON_KNOWN;
    for _ in 0..200_000 {
        let mut event = Event {
            entry_ns: 0,
            exit_ns: 600 + random.below(4000) as u64,
            exit_to_entry_ns: 900 + random.below(9000) as u64,
            exit_reason: [10, 12, 30, 32, 48, 1, 7][random.below(7)],
            vcpu: random.below(VCPUS as usize) as u32,
            flags: known,
            isa: 1,
            ..Event::default()
        };
        event.previous = event.outline();
        accumulator.record(&event, &vms[random.below(vms.len())]);
    }
    let mut interval = accumulator.finish();
    interval.length_ns = SECOND_NS;
    (interval.totals.entries, interval.totals.delivered) = (200_000, 200_000);
    interval
}

/// Writes intervals until the file has so many bytes; how many.
fn write(path: &Path, header: &Header, intervals: &[Interval], bytes: u64) -> u64 {
    let mut writer = Writer::new(BufWriter::new(File::create(path).unwrap()), header).unwrap();
    let mut n = 0;
    while fs::metadata(path).unwrap().len() < bytes {
        let interval = &intervals[n as usize % intervals.len()];
        writer.write(&Interval { start_ns: n * SECOND_NS, ..interval.clone() }).unwrap();
        n += 1;
    }
    let accounting = Accounting { exact: true, ..Accounting::default() };
    let (tsc_khz, other_tracers) = (None, None);
    let end = End { reason: "bench".into(), accounting, tsc_khz, policy_changed: false, other_tracers };
    writer.finish(end).unwrap();
    n
}

/// What a program took.
struct Cost {
    /// seconds from its start to its end
    seconds: f64,
    /// seconds of processors
    processor_s: f64,
    peak_mb: f64,
}

/// Runs a program.
#[allow(clippy::zombie_processes, reason = "wait4 waits for the child, and returns its peak memory")]
fn run(program: &str, arguments: &[&str]) -> Cost {
    let start = Instant::now();
    let mut command = Command::new(program);
    let child = command.args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to writable locals that outlive the call; nobody else waits for the child.
    let pid = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!((pid, status), (child.id() as i32, 0), "{arguments:?}");
    // SAFETY: `usage` was zeroed, and rusage holds integers only, so that it is valid no matter how much of it wait4 wrote.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let processor_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Cost { seconds: start.elapsed().as_secs_f64(), processor_s, peak_mb: usage.ru_maxrss as f64 / 1e3 }
}

/// Prints the cost of a command that read recordings of so many MB.
fn print(command: &str, intervals: u64, megabytes: f64, cost: &Cost, gzip_s: f64) {
    let Cost { seconds, processor_s, peak_mb } = cost;
    println!(
        "{command:<24} {intervals:>10} {seconds:>8.2} {processor_s:>8.2} {:>8.1} {peak_mb:>10.1} {:>8.0}",
        processor_s / gzip_s,
        megabytes / seconds
    );
}

/// Processor time of `gzip -dc` for a file's bytes.
fn gzip_s(path: &Path) -> f64 {
    let packed = path.with_extension("gz");
    let mut pack = Command::new("gzip");
    let status = pack.arg("-c").arg(path).stdout(File::create(&packed).unwrap()).status().unwrap();
    assert!(status.success());
    run("gzip", &["-dc", packed.to_str().unwrap()]).processor_s
}

/// Prints what it costs to open a recording at a moment, with its index and after it is cut off.
fn seek(vmentry: &str, path: &Path) {
    let name = path.to_str().unwrap();
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let bytes = file.metadata().unwrap().len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(bytes.saturating_sub(4 << 20))).unwrap();
    file.read_to_end(&mut tail).unwrap();
    let index = tail.windows(8).rposition(|bytes| bytes == b"\n#index ").map(|at| tail.len() - at - 1);
    let cost = |arguments: &[&str]| {
        let mut runs: Vec<_> = (0..5).map(|_| run(vmentry, arguments).processor_s * 1e3).collect();
        runs.sort_by(f64::total_cmp);
        format!("{:.0}", runs[2])
    };
    println!("\n{:<44} {:>10} CPU ms, median of 5", format!("of {} MB", bytes / 1_000_000), "");
    for indexed in [true, false] {
        let with = if indexed { "with" } else { "without" };
        if indexed && index.is_none() {
            println!("with an index: n/a: the recording is too small for one");
            continue;
        }
        if !indexed {
            file.set_len(bytes - index.unwrap_or(0) as u64).unwrap();
        }
        for (what, arguments) in [
            ("live --once", &["live", name, "--once"][..]),
            ("live --once --at -30s", &["live", name, "--once", "--at", "-30s"]),
            ("report --since -10s", &["report", name, "--since", "-10s"]),
        ] {
            println!("{:<44} {:>10}", format!("{what}, {with} an index"), cost(arguments));
        }
    }
}

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let sizes: &[u64] = if std::env::args().any(|a| a == "--bench") { &[10, 100, 1000] } else { &[1] };
    let header: Header = serde_json::from_str(LAB.lines().next().unwrap().trim_start_matches('#')).unwrap();
    let intervals: Vec<_> = (1..=4).map(interval).collect();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    println!("{VMS} VMs x {VCPUS} vCPUs, {} series an interval of a second", intervals[0].series.len());
    println!(
        "{:<24} {:>10} {:>8} {:>8} {:>8} {:>10} {:>8}",
        "command", "intervals", "s", "CPU s", "x gzip", "peak MB", "MB/s"
    );
    let vmentry = env!("CARGO_BIN_EXE_vmentry");
    for &megabytes in sizes {
        let path = folder.join("recording.hlog");
        let n = write(&path, &header, &intervals, megabytes * 1_000_000);
        let cost = run(vmentry, &["report", path.to_str().unwrap()]);
        print(&format!("report, {megabytes} MB"), n, megabytes as f64, &cost, gzip_s(&path));
    }
    seek(vmentry, &folder.join("recording.hlog"));
    let sides: [PathBuf; 2] = ["a.hlog", "b.hlog"].map(|name| folder.join(name));
    let megabytes = sizes[sizes.len() / 2];
    let mut n = 0;
    for (at, path) in (0..).zip(&sides) {
        // An hour later: the same recording twice would be refused.
        let mut header = header.clone();
        header.anchor.unix_ns += at * 3600 * SECOND_NS;
        n += write(path, &header, &intervals, megabytes * 1_000_000);
    }
    let gzip_s = sides.each_ref().map(|path| gzip_s(path)).iter().sum();
    let cost = run(vmentry, &["compare", sides[0].to_str().unwrap(), sides[1].to_str().unwrap()]);
    print(&format!("compare, 2 x {megabytes} MB"), n, 2.0 * megabytes as f64, &cost, gzip_s);
}
