//! What is made of the intervals: the exporter's answers, the screen, the recording, and its report.

use std::{
    fs::File,
    hint::black_box,
    io::BufWriter,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use ratatui::{Terminal, backend::TestBackend};
use tracer_common::{Event, Flags};
use vmentry::{
    benching::{Scraped, first_interval},
    model::{
        accumulator::Accumulator,
        interval::{Interval, Vm},
    },
    recording::{Header, Writer},
    tui::{App, Colors, Info, Origin, Palette, app::Window, keys::Action, view},
};

use super::{
    SECOND_NS,
    cost::{Times, row},
};

/// A recording of which only the header is used.
const LAB: &str = include_str!("../../tests/data/lab.hlog");
/// As `export --max-series` is unless another number is asked for.
const MAX_SERIES: usize = 10_000;
/// Seconds between two scrapes.
const SCRAPE: u64 = 15;

/// The header of a made-up recording.
pub fn header() -> Header {
    serde_json::from_str(LAB.lines().next().unwrap().trim_start_matches('#')).unwrap()
}

/// An exporter and a screen that are given every interval.
pub struct Views {
    exporter: Scraped,
    app: App,
    terminal: Terminal<TestBackend>,
    seconds: u64,
    added: Times,
    scraped: Times,
    pushed: Times,
    bytes: [usize; 3],
    samples: usize,
}

impl Views {
    pub fn new() -> Self {
        let info = Info::of(&header(), None, Origin::Live);
        Self {
            exporter: Scraped::new(&header(), MAX_SERIES),
            app: App::new(info, Palette { color: Colors::True, ascii: false }),
            terminal: Terminal::new(TestBackend::new(200, 50)).unwrap(),
            seconds: 0,
            added: Times::default(),
            scraped: Times::default(),
            pushed: Times::default(),
            bytes: [0; 3],
            samples: 0,
        }
    }

    /// A second has passed.
    pub fn add(&mut self, interval: Interval) {
        self.seconds += 1;
        let now_ns = self.seconds * SECOND_NS;
        self.added.of(|| self.exporter.add(&interval, now_ns));
        if self.seconds.is_multiple_of(SCRAPE) {
            let text = self.scraped.of(|| self.exporter.scrape(false, false));
            let is_sample = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
            self.samples = self.samples.max(text.split(|byte| *byte == b'\n').filter(is_sample).count());
            self.bytes[0] = self.bytes[0].max(text.len());
        }
        self.pushed.of(|| {
            self.app.push(interval);
            black_box(self.terminal.draw(|frame| view::draw(frame, &mut self.app)).is_ok())
        });
    }

    /// Prints what it took.
    pub fn print(mut self) {
        let seconds = format!("after {} s", self.seconds);
        row("export: adding an interval", self.added.shown(), "ms", &seconds);
        row(
            "export: scrape, text",
            self.scraped.shown(),
            "ms",
            &format!("--max-series {MAX_SERIES}, every {SCRAPE} s"),
        );
        row("export: scrape, text", format!("{:.1}", self.bytes[0] as f64 / 1e6), "MB at most", &seconds);
        row("export: scrape, text", self.samples, "series at most", &seconds);
        let protobuf = self.exporter.scrape(true, false).len();
        let zipped = self.exporter.scrape(true, true).len();
        let condition = "of a Prometheus with native histograms";
        row("export: scrape, protobuf", format!("{:.1}", protobuf as f64 / 1e6), "MB", condition);
        row("export: scrape, protobuf, gzip", format!("{:.1}", zipped as f64 / 1e6), "MB", condition);
        row("live: interval and its first frame", self.pushed.shown(), "ms", "200x50, window of 10 s");
        for window in [Window::Second, Window::TenSeconds, Window::Minute, Window::Start] {
            self.app.act(Action::Window(window));
            let mut times = Times::default();
            let mut draw = |app: &mut App| black_box(self.terminal.draw(|frame| view::draw(frame, app)).is_ok());
            let mut first = Times::default();
            first.of(|| draw(&mut self.app));
            (0..20).for_each(|_| {
                times.of(|| draw(&mut self.app));
            });
            row(
                "live: frame",
                times.shown(),
                "ms",
                &format!("window {}; its first frame {} ms", window.name(), first.shown()),
            );
        }
    }
}

/// The largest interval that a recording holds: 1024 vCPUs of 30 exit reasons in L1 and L2.
fn largest_interval() -> Interval {
    let vms: Vec<_> = (0..128).map(|id| Arc::new(Vm { id, name: format!("web{id}"), ..Vm::default() })).collect();
    let known = Flags::LEVEL_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::REASON_KNOWN;
    let mut random = vmentry::compare::random::Random::new(7);
    let mut accumulator = Accumulator::of(Interval { length_ns: SECOND_NS, ..Interval::default() });
    let mut entries = 0;
    for vm in &vms {
        for vcpu in 0..8 {
            for (reason, level) in (0..30).flat_map(|reason| [(reason, Flags::NONE), (reason, Flags::L2)]) {
                for _ in 0..8 {
                    let mut event = Event {
                        exit_ns: 600 + random.below(4096) as u64,
                        exit_to_entry_ns: 900 + random.below(8192) as u64,
                        exit_reason: reason,
                        vcpu,
                        flags: known | level,
                        isa: 1,
                        ..Event::default()
                    };
                    event.previous = event.outline();
                    accumulator.record(&event, vm);
                    entries += 1;
                }
            }
        }
    }
    let mut interval = accumulator.finish();
    (interval.totals.entries, interval.totals.delivered) = (entries, entries);
    interval
}

/// Prints the time to write the largest interval, its size, and whether it reads as written.
pub fn write_largest() {
    let interval = largest_interval();
    let mut times = Times::default();
    let mut writer = Writer::new(tempfile::tempfile().unwrap(), &header()).unwrap();
    (0..5).for_each(|_| times.of(|| writer.write(&interval).unwrap()));
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, &header()).unwrap().write(&interval).unwrap();
    let condition = format!("{} series of 8 entries each: 1024 vCPUs x 30 reasons x L1/L2", interval.series.len());
    row("record: writing an interval", times.shown(), "ms", &condition);
    row("record: writing an interval", format!("{:.1}", bytes.len() as f64 / 1e6), "MB", "in the file");
    let same = match first_interval(&bytes) {
        Ok(Some(read)) => if read.series == interval.series { "the same" } else { "NOT the same" }.to_owned(),
        Ok(None) => "NOT there".into(),
        Err(error) => format!("REFUSED: {error:#}"),
    };
    row("record: that interval, read again", same, "", "all series within the reader's limits");
}

/// Prints the time of `report` on as many series of one VM and of very many VMs.
pub fn report_names(folder: &Path) {
    let mut seconds = [0.0; 2];
    for (at, vms) in [1, 4096].into_iter().enumerate() {
        let path = folder.join("names.hlog");
        let mut writer = Writer::new(BufWriter::new(File::create(&path).unwrap()), &header()).unwrap();
        let all: Vec<_> =
            (0..vms).map(|id| Arc::new(Vm { id, tgid: id + 1, name: "web".into(), ..Vm::default() })).collect();
        for second in 0..5 {
            let mut accumulator =
                Accumulator::of(Interval { start_ns: second * SECOND_NS, length_ns: SECOND_NS, ..Interval::default() });
            let known = Flags::LEVEL_KNOWN | Flags::REASON_KNOWN;
            for n in 0..4096 * 7 {
                let (vm, vcpu) = if vms == 1 { (0, n / 7) } else { (n / 7, 0) };
                let exit_ns = 900 + u64::from(n) % 512;
                let mut event = Event { exit_ns, vcpu, exit_reason: n % 7, flags: known, isa: 1, ..Event::default() };
                event.previous = event.outline();
                accumulator.record(&event, &all[vm as usize]);
            }
            let mut interval = accumulator.finish();
            (interval.totals.entries, interval.totals.delivered) = (4096 * 7, 4096 * 7);
            writer.write(&interval).unwrap();
        }
        drop(writer);
        let before = children_s();
        let mut report = Command::new(env!("CARGO_BIN_EXE_vmentry"));
        report.args(["report", "--by", "vm,reason", "--format", "json"]).arg(&path);
        assert!(report.stdout(Stdio::null()).status().unwrap().success());
        seconds[at] = children_s() - before;
    }
    let condition = "28 672 series: 4096 VMs of one name, beside one VM of 4096 vCPUs";
    row("report: CPU, one VM", format!("{:.2}", seconds[0]), "s", "--by vm,reason --format json");
    row("report: CPU, 4096 VMs", format!("{:.2}", seconds[1]), "s", condition);
}

/// Processor time of the programs that this process has waited for.
fn children_s() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a local that outlives the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) }, 0);
    // SAFETY: the call has filled it in, and zeros are valid, too.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
