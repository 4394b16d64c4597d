//! The live view on the terminal: takes keys and intervals, draws frames, carries out what the screen asks for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};

use super::files;
use crate::{
    commands::child::Endings,
    host::{clock::process_cpu_ns, policy::Restore, signals::is_ignored},
    model::{interval::Interval, policy::Policy},
    output,
    recording::{Header, Provenance},
    tui::{
        App, Effect, Info,
        terminal::{self, Screen, Stopped},
        view,
    },
};

/// Frames per second, at most.
const FRAMES: u32 = 4;
/// Keys that may wait for a slow terminal.
const KEYS: usize = 64;

/// What comes from the terminal or its job control.
pub(super) enum Input {
    Terminal(Event),
    /// a message to show
    Note(String),
    /// SIGTSTP, from outside: in raw mode the terminal sends none
    Stop,
    /// SIGCONT: a shell may have changed the terminal in the meantime
    Continue,
}

/// The screen, its state, and what it may change on the host.
pub(super) struct Stage {
    screen: Screen,
    pub(super) app: App,
    keys: mpsc::Receiver<Event>,
    /// messages from elsewhere; none while a recording is played
    notes: Option<mpsc::UnboundedReceiver<String>>,
    /// SIGTSTP; none where this process was started to ignore it, and never stops
    stops: Option<Signal>,
    continues: Signal,
    /// of a recording that is saved; none while a recording is played
    header: Option<Header>,
    /// the recording that is played; none while this host is traced
    pub(super) played: Option<Provenance>,
    policy: Option<Restore>,
    cpu: CpuMeter,
}

impl Stage {
    /// Takes the terminal and starts to read keys.
    pub(super) fn new(
        info: Info,
        header: Option<Header>,
        notes: Option<mpsc::UnboundedReceiver<String>>,
    ) -> Result<Self> {
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
        let app = App::new(info, terminal::palette());
        let on = |number| signal(SignalKind::from_raw(number)).context("listen for signals");
        let stops = (!is_ignored(libc::SIGTSTP)).then(|| on(libc::SIGTSTP)).transpose()?;
        let continues = on(libc::SIGCONT)?;
        Ok(Self {
            screen,
            app,
            keys,
            notes,
            stops,
            continues,
            header,
            played: None,
            policy: None,
            cpu: CpuMeter::start(),
        })
    }

    /// Waits for the next input. May be dropped while it waits: nothing is lost.
    pub(super) async fn input(&mut self) -> Input {
        tokio::select! {
            Some(event) = self.keys.recv() => Input::Terminal(event),
            Some(note) = next_note(&mut self.notes) => Input::Note(note),
            Some(()) = next_stop(&mut self.stops) => Input::Stop,
            Some(()) = self.continues.recv() => Input::Continue,
            // Without a terminal and signals, nothing comes any more.
            else => std::future::pending().await,
        }
    }

    /// Draws intervals until the user or a signal ends it.
    pub(super) async fn watch(
        &mut self,
        intervals: &mut mpsc::Receiver<Interval>,
        endings: &mut Endings,
    ) -> Result<()> {
        let mut frames = frames();
        let mut dirty = true;
        loop {
            tokio::select! {
                _ = endings.next() => return Ok(()),
                input = self.input() => {
                    dirty = true;
                    match self.take(input)? {
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
                _ = frames.tick(), if dirty => dirty = !self.draw()?,
            }
        }
    }

    /// Hands a key or the mouse to the screen's state; stops, or takes the terminal again, for job control.
    pub(super) fn take(&mut self, input: Input) -> Result<Effect> {
        match input {
            Input::Terminal(Event::Key(key)) => return Ok(self.app.key(key)),
            Input::Terminal(Event::Mouse(mouse)) => return Ok(self.app.mouse(mouse)),
            Input::Terminal(_) => {}
            Input::Note(note) => self.app.set_status(note),
            Input::Stop => self.screen.suspend(Stopped::Process)?,
            Input::Continue => self.screen.resume()?,
        }
        Ok(Effect::Redraw)
    }

    /// Draws a frame, if the terminal has taken the last one; returns whether it did.
    pub(super) fn draw(&mut self) -> Result<bool> {
        // For the test that a panic gives the terminal back; not in release builds.
        #[cfg(debug_assertions)]
        assert!(std::env::var_os("VMENTRY_PANIC_WHILE_DRAWING").is_none(), "asked to panic");
        let app = &mut self.app;
        self.screen.draw(|frame| view::draw(frame, app))
    }

    /// Does what the screen asks for, apart from quitting and replaying.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Suspend if self.stops.is_none() => {}
            Effect::Suspend => self.screen.suspend(Stopped::Job)?,
            Effect::SwitchPolicy(policy) => {
                let done = self.switch(policy);
                self.show(done.map(|()| format!("policy {}; the previous one is restored at the end", policy.name())));
            }
            Effect::SaveRecording => {
                let saved = files::save_recording(self.header.as_ref(), self.policy.is_some(), &self.app);
                self.show(saved.map(|path| format!("recording saved: {}", output::shown(&path))));
            }
            Effect::SaveReport => {
                let source = match (&self.played, &self.header) {
                    (Some(played), _) => Some(played.clone()),
                    (None, header) => header.as_ref().map(|h| files::live_source(h, self.policy.is_some())),
                };
                let saved = files::save_report(source, &mut self.app);
                self.show(saved.map(|path| format!("report saved: {}", output::shown(&path))));
            }
            Effect::None | Effect::Quit | Effect::Redraw | Effect::Replay(_) => {}
        }
        Ok(())
    }

    fn show(&mut self, result: Result<String>) {
        self.app.set_status(result.unwrap_or_else(|error| output::one_line(&format!("{error:#}"))));
    }

    fn switch(&mut self, policy: Policy) -> Result<()> {
        match &self.policy {
            Some(restore) => restore.switch(policy)?,
            None => self.policy = Some(Restore::after(policy)?),
        }
        self.app.set_policy(policy);
        Ok(())
    }
}

async fn next_stop(stops: &mut Option<Signal>) -> Option<()> {
    stops.as_mut()?.recv().await
}

async fn next_note(notes: &mut Option<mpsc::UnboundedReceiver<String>>) -> Option<String> {
    notes.as_mut()?.recv().await
}

/// Ticks at which a frame may be drawn.
pub(super) fn frames() -> tokio::time::Interval {
    let mut frames = tokio::time::interval(Duration::from_secs(1) / FRAMES);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    frames
}

/// Measures this process's share of a CPU between two readings.
struct CpuMeter {
    at: Instant,
    used_s: f64,
}

impl CpuMeter {
    fn start() -> Self {
        Self { at: Instant::now(), used_s: process_cpu_ns() as f64 / 1e9 }
    }

    fn percent(&mut self) -> Option<f64> {
        let now = Self::start();
        let share = (now.used_s - self.used_s) / now.at.duration_since(self.at).as_secs_f64();
        *self = now;
        share.is_finite().then_some(100.0 * share)
    }
}
