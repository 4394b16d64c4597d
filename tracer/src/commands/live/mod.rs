//! `vmentry live`: the screen's loop. Collection has a thread of its own; whatever the terminal does, it goes on.

use std::{
    fs::File,
    io::{BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::{
    collect::collector::Collection,
    commands::{
        args::LiveArgs,
        child::Endings,
        session::{ensure_exact, header, pin_source, runtime, selected_tgids, selected_vcpus, traceable_host},
    },
    host::{
        clock::{Anchor, process_cpu_ns},
        facts::Facts,
        policy::Restore,
        stopwatch,
    },
    kernel::{
        layout::Layout,
        tracer::{Options, Tracer},
    },
    model::{
        accounting::Accounting,
        figures::{Column, Unit, human},
        interval::{Interval, Level},
        measurement::Aggregation,
        policy::Policy,
    },
    output,
    recording::{End, Header, Provenance, Reader, Writer},
    report::{Dimension, Report, View, text},
    tui::{
        App, Effect, Info, Origin, ReplayCommand,
        terminal::{self, Screen},
        view,
    },
};

/// Length of an interval.
const PERIOD: Duration = Duration::from_secs(1);
/// Frames a second, at the most.
const FRAMES: u32 = 4;
/// Keys that may wait for a slow terminal.
const KEYS: usize = 64;
/// What the screen remembers of a replay after a jump, seconds.
const MEMORY_S: f64 = 600.0;

/// Shows live, or plays a recording.
pub fn run(args: &LiveArgs) -> Result<ExitCode> {
    let runtime = runtime()?;
    if let Some(file) = &args.replay {
        return runtime.block_on(replay(file));
    }
    let hint = "; 'vmentry live --replay FILE' plays a recording";
    let (facts, layout) = traceable_host("trace", hint, true)?;
    let options = Options {
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        ..Options::default()
    };
    runtime.block_on(live(&facts, &layout, &options))
}

async fn live(facts: &Facts, layout: &Layout, options: &Options) -> Result<ExitCode> {
    // Before anything is attached: a signal must not end this process without restoring the terminal and the policy.
    let mut endings = Endings::new()?;
    let mut collection = Collection::start(Tracer::load(layout, options)?, Some(PERIOD))?;
    let result = if terminal::is_usable() {
        let mut stage = Stage::new(live_info(facts, layout), Some(header(facts, layout, options, PERIOD)))?;
        stage.watch(&mut collection.intervals, &mut endings).await
    } else {
        lines(&mut collection.intervals, &mut endings).await
    };
    collection.stop();
    while collection.intervals.recv().await.is_some() {}
    let accounting = collection.join()?;
    result?;
    ensure_exact(&accounting, "what was shown")?;
    Ok(ExitCode::SUCCESS)
}

fn live_info(facts: &Facts, layout: &Layout) -> Info {
    Info {
        host: facts.host.clone(),
        policy: facts.policy,
        pin_writes_source: pin_source(&layout.config),
        aggregation: Aggregation::Records,
        switchable: facts.companion_patch,
        max_delay_s: facts.timer.as_ref().and_then(|t| t.max_delay_s),
        tsc_khz: facts.timer.as_ref().and_then(|t| t.tsc_khz),
        stopwatch: facts.stopwatch == Some(true),
        missing: facts.missing.clone(),
        origin: Origin::Live,
    }
}

/// One line an interval, where there is no terminal to draw on.
async fn lines(intervals: &mut mpsc::Receiver<Interval>, endings: &mut Endings) -> Result<()> {
    loop {
        tokio::select! {
            _ = endings.next() => return Ok(()),
            interval = intervals.recv() => match interval {
                Some(interval) if output::print_while_read(&line(&interval))? => {}
                _ => return Ok(()),
            },
        }
    }
}

/// "12.0s  345 entries  345/s  p50 1.2us  p99 4.5us  pin/entry 0.1  dropped 0".
fn line(interval: &Interval) -> String {
    let mut all = crate::model::interval::Series::default();
    interval.series.values().for_each(|s| all.merge(s));
    let rate = interval.totals.entries as f64 * 1e9 / interval.length_ns.max(1) as f64;
    let value = |name: &str, unit| human(Column::parse(name).and_then(|c| c.value(&all)), unit);
    let l2: u64 = interval.series.iter().filter(|(k, _)| k.level == Level::L2).map(|(_, s)| s.entries()).sum();
    format!(
        "{:.1}s entries {} ({}/s, L2 {l2}) entry_to_exit p50 {} p99 {} exit_to_entry p50 {} p99 {} pin/entry {} dropped {}\n",
        (interval.start_ns + interval.length_ns) as f64 / 1e9,
        interval.totals.entries,
        human(Some(rate), Unit::PerSecond),
        value("entry_to_exit_ns.p50", Unit::Ns),
        value("entry_to_exit_ns.p99", Unit::Ns),
        value("exit_to_entry_ns.p50", Unit::Ns),
        value("exit_to_entry_ns.p99", Unit::Ns),
        value("pin_writes.mean", Unit::Count),
        interval.totals.dropped,
    )
}

/// The screen, its state, and what it may change on the host.
struct Stage {
    screen: Screen,
    app: App,
    keys: mpsc::Receiver<Event>,
    header: Option<Header>,
    policy: Option<Restore>,
    cpu: Cpu,
}

impl Stage {
    fn new(info: Info, header: Option<Header>) -> Result<Self> {
        let screen = Screen::take()?;
        let (send, keys) = mpsc::channel(KEYS);
        // Reading blocks, so it has a thread; the thread ends with the process.
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || {
                while let Ok(event) = event::read() {
                    if send.blocking_send(event).is_err() {
                        break;
                    }
                }
            })
            .context("start the keys' thread")?;
        Ok(Self { screen, app: App::new(info, terminal::palette()), keys, header, policy: None, cpu: Cpu::new() })
    }

    /// Draws what comes until the user or a signal ends it.
    async fn watch(&mut self, intervals: &mut mpsc::Receiver<Interval>, endings: &mut Endings) -> Result<()> {
        let mut frames = frames();
        let mut dirty = true;
        loop {
            tokio::select! {
                _ = endings.next() => return Ok(()),
                Some(event) = self.keys.recv() => {
                    dirty = true;
                    match self.take(event) {
                        Effect::Quit => return Ok(()),
                        effect => self.carry_out(effect)?,
                    }
                }
                interval = intervals.recv() => match interval {
                    Some(interval) => {
                        self.app.set_own_cpu(self.cpu.percent());
                        self.app.push(interval);
                        dirty = true;
                    }
                    None => return Ok(()),
                },
                _ = frames.tick(), if dirty => {
                    self.draw()?;
                    dirty = false;
                }
            }
        }
    }

    fn take(&mut self, event: Event) -> Effect {
        match event {
            Event::Key(key) => self.app.key(key),
            Event::Mouse(mouse) => self.app.mouse(mouse),
            _ => Effect::Redraw,
        }
    }

    fn draw(&mut self) -> Result<()> {
        // For the test that a panic gives the terminal back; not in release builds.
        #[cfg(debug_assertions)]
        assert!(std::env::var_os("VMENTRY_PANIC_WHILE_DRAWING").is_none(), "asked to panic");
        let app = &mut self.app;
        self.screen.terminal.draw(|frame| view::draw(frame, app)).context("draw")?;
        Ok(())
    }

    /// What the screen asked for, short of quitting and replaying.
    fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Suspend => self.screen.suspend()?,
            Effect::SwitchPolicy(policy) => {
                let done = self.switch(policy);
                self.say(done.map(|()| format!("policy {}; the one before is restored at the end", policy.name())));
            }
            Effect::SaveRecording => {
                let saved = self.save_recording();
                self.say(saved.map(|path| format!("recording saved: {}", path.display())));
            }
            Effect::SaveReport => {
                let saved = self.save_report();
                self.say(saved.map(|path| format!("report saved: {}", path.display())));
            }
            Effect::None | Effect::Quit | Effect::Redraw | Effect::Replay(_) => {}
        }
        Ok(())
    }

    fn say(&mut self, result: Result<String>) {
        self.app.set_status(result.unwrap_or_else(|error| format!("{error:#}")));
    }

    fn switch(&mut self, policy: Policy) -> Result<()> {
        match &self.policy {
            Some(restore) => restore.switch(policy.name())?,
            None => self.policy = Some(Restore::after(policy.name())?),
        }
        self.app.set_policy(policy);
        Ok(())
    }

    fn save_recording(&mut self) -> Result<PathBuf> {
        let header = self.header.as_ref().context("a replay is a recording already")?;
        let path = PathBuf::from(format!("vmentry-{}.hlog", Anchor::now().unix_ns / 1_000_000_000));
        let mut writer = Writer::new(output::create(&path, false)?, header)?;
        for interval in self.app.history() {
            writer.write(interval).with_context(|| format!("write {}", path.display()))?;
        }
        writer.finish(self.saved_end())?;
        Ok(path)
    }

    /// What is saved ends here; the collection goes on, and balances its books at its own end.
    fn saved_end(&self) -> End {
        End {
            reason: "saving it from the live view".into(),
            accounting: Accounting { exact: true, ..Accounting::default() },
            tsc_khz: None,
            policy_changed: self.policy.is_some(),
        }
    }

    fn save_report(&mut self) -> Result<PathBuf> {
        let path = PathBuf::from(format!("vmentry-{}.txt", Anchor::now().unix_ns / 1_000_000_000));
        let whole = self.app.visible();
        let sources = self.header.iter().map(|header| Provenance {
            name: "live view".into(),
            header: header.clone(),
            end: Some(self.saved_end()),
            torn: false,
            intervals: 1,
            length_ns: whole.length_ns,
        });
        let view = View {
            by: vec![Dimension::Vm, Dimension::Level, Dimension::Reason],
            filters: Vec::new(),
            sort: Column::Entries,
            top: None,
        };
        let report = Report { sources: sources.collect(), whole, ..Report::default() };
        output::create(&path, false)?
            .write_all(text::render(&report, &view).as_bytes())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

fn frames() -> tokio::time::Interval {
    let mut frames = tokio::time::interval(Duration::from_secs(1) / FRAMES);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    frames
}

/// This process's share of a CPU between two looks.
struct Cpu {
    at: Instant,
    used: f64,
}

impl Cpu {
    fn new() -> Self {
        Self { at: Instant::now(), used: process_cpu_ns() as f64 / 1e9 }
    }

    fn percent(&mut self) -> Option<f64> {
        let (at, used) = (Instant::now(), process_cpu_ns() as f64 / 1e9);
        let share = (used - self.used) / at.duration_since(self.at).as_secs_f64();
        *self = Self { at, used };
        share.is_finite().then_some(100.0 * share)
    }
}

/// A recording that is played.
struct Tape {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
    /// seconds of all whole intervals
    length_s: f64,
    /// seconds played
    at_s: f64,
}

impl Tape {
    fn open(path: &Path) -> Result<Self> {
        let mut all = reader(path)?;
        let mut length_s = 0.0;
        while let Some(interval) = all.read_interval()? {
            length_s += interval.length_ns as f64 / 1e9;
        }
        Ok(Self { path: path.to_owned(), reader: reader(path)?, length_s, at_s: 0.0 })
    }

    fn next(&mut self) -> Result<Option<Interval>> {
        let interval = self.reader.read_interval()?;
        self.at_s += interval.as_ref().map_or(0.0, |i| i.length_ns as f64 / 1e9);
        Ok(interval)
    }

    /// Goes to a moment; what the screen should remember of the time before.
    fn seek(&mut self, to_s: f64) -> Result<Vec<Interval>> {
        self.reader = reader(&self.path)?;
        self.at_s = 0.0;
        let mut remembered = Vec::new();
        while self.at_s < to_s.clamp(0.0, self.length_s) {
            let Some(interval) = self.next()? else { break };
            if self.at_s >= to_s - MEMORY_S {
                remembered.push(interval);
            }
        }
        Ok(remembered)
    }
}

fn reader(path: &Path) -> Result<Reader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    Reader::new(BufReader::new(file)).with_context(|| format!("read {}", path.display()))
}

async fn replay(path: &Path) -> Result<ExitCode> {
    let mut tape = Tape::open(path)?;
    let header = tape.reader.header().clone();
    if !terminal::is_usable() {
        while let Some(interval) = tape.next()? {
            output::print(&line(&interval))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let info = Info {
        host: header.host.clone(),
        policy: header.policy,
        pin_writes_source: header.pin_writes_source,
        aggregation: header.aggregation,
        switchable: false,
        max_delay_s: header.timer.as_ref().and_then(|t| t.max_delay_s),
        tsc_khz: header.timer.as_ref().and_then(|t| t.tsc_khz),
        stopwatch: header.stopwatch.is_some(),
        missing: header.missing.clone(),
        origin: Origin::Replay { file: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned() },
    };
    let mut endings = Endings::new()?;
    let mut stage = Stage::new(info, None)?;
    stage.play(&mut tape, &mut endings).await?;
    Ok(ExitCode::SUCCESS)
}

impl Stage {
    /// Plays a tape until the user or a signal ends it; at its end the last moment stays.
    async fn play(&mut self, tape: &mut Tape, endings: &mut Endings) -> Result<()> {
        let (mut speed, mut paused) = (1.0_f64, false);
        let mut frames = frames();
        let mut due = tokio::time::Instant::now();
        let mut next = tape.next()?;
        let mut dirty = true;
        loop {
            let position = if tape.length_s > 0.0 { tape.at_s / tape.length_s } else { 1.0 };
            self.app.set_replay(speed, paused, position);
            tokio::select! {
                _ = endings.next() => return Ok(()),
                Some(event) = self.keys.recv() => {
                    dirty = true;
                    match self.take(event) {
                        Effect::Quit => return Ok(()),
                        Effect::Replay(ReplayCommand::Pause) => paused = !paused,
                        Effect::Replay(ReplayCommand::Faster) => speed = (speed * 2.0).min(1024.0),
                        Effect::Replay(ReplayCommand::Slower) => speed = (speed / 2.0).max(1.0 / 16.0),
                        Effect::Replay(ReplayCommand::SeekBy(seconds)) => {
                            let remembered = tape.seek(tape.at_s + seconds)?;
                            self.app.reset();
                            remembered.into_iter().for_each(|i| self.app.push(i));
                            next = tape.next()?;
                            due = tokio::time::Instant::now();
                        }
                        effect => self.carry_out(effect)?,
                    }
                }
                () = tokio::time::sleep_until(due), if !paused && next.is_some() => {
                    if let Some(interval) = next.take() {
                        let length = interval.length_ns as f64 / 1e9 / speed;
                        due = tokio::time::Instant::now() + Duration::from_secs_f64(length.clamp(0.0, 3600.0));
                        self.app.push(interval);
                        next = tape.next()?;
                        dirty = true;
                    }
                }
                _ = frames.tick(), if dirty => {
                    self.draw()?;
                    dirty = false;
                }
            }
        }
    }
}

/// Whether `vmentry` alone should open the live view: only where someone can look at it.
pub fn is_wanted() -> bool {
    std::io::stdout().is_terminal()
}
