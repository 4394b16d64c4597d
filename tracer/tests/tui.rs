//! The live screen without a terminal: every screen at many sizes against snapshots, keys and mouse as state.
//!
//! Snapshots are texts in tests/snapshots; UPDATE_SNAPSHOTS=1 writes them anew.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

use std::{collections::HashSet, env, fs, path::Path, sync::Arc};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    style::Color,
};
use tracer_common::{
    Event, Flags,
    detail::{RawDetail, Source},
};
use vmentry::{
    host::{clock::Anchor, machine::Host},
    model::{
        accumulator::Accumulator,
        interval::{Interval, Vm},
        knowledge::Knowledge,
        measurement::{Aggregation, PinSource},
        policy::Policy,
    },
    tui::{
        App, Colors, Effect, Info, Origin, Palette, ReplayCommand,
        app::{Replay, Window},
        keys::{Action, KEYS, Mode, Question, Scope, action_of, label},
        node::Group,
        view,
    },
};

const PLAIN: Palette = Palette { color: Colors::None, ascii: false };

fn info() -> Info {
    Info {
        host: Host {
            name: "kvm1".into(),
            kernel: "6.12.0".into(),
            cpu: "Intel(R) Xeon(R) Gold 6430".into(),
            emulated: true,
            ..Host::default()
        },
        policy: Policy::Soft,
        pin_writes_source: PinSource::Shadow,
        aggregation: Aggregation::Records,
        switchable: true,
        max_delay_s: Some(68.72),
        tsc_khz: Some(2_100_000),
        stopwatch: false,
        knowledge: Knowledge::complete(),
        other_tracers: Vec::new(),
        origin: Origin::Live,
        anchor: Anchor { monotonic_ns: 0, unix_ns: 1_700_000_000_000_000_000 },
    }
}

fn vm(id: u32) -> Arc<Vm> {
    let name = ["web1", "db", "build-worker"].get(id as usize).map_or_else(|| format!("vm{id}"), |n| (*n).to_owned());
    Arc::new(Vm { id, name, tgid: 100 + id, start_ticks: 7, ..Vm::default() })
}

fn event(vcpu: u32, reason: u32, guest_ns: u64, host_ns: u64, writes: u8) -> Event {
    let flags = Flags::LEVEL_KNOWN
        | Flags::IMMEDIATE_KNOWN
        | Flags::SOFT_KNOWN
        | Flags::PIN_READ
        | Flags::PIN_WRITES_KNOWN
        | Flags::REASON_KNOWN;
    let mut event = Event {
        entry_ns: 1000,
        exit_ns: 1000 + guest_ns,
        exit_to_entry_ns: host_ns,
        exit_reason: reason,
        vcpu,
        flags,
        isa: 1,
        pin_writes: writes,
        ..Event::default()
    };
    event.previous = event.outline();
    match reason {
        // CPUID: leaves 0, 1 and 2
        10 => event.previous_detail = RawDetail::new(Source::Cpuid, guest_ns % 3),
        // HLT
        12 => {
            let eighth_ns = host_ns / 8;
            event.phases.idle_ns = 6 * eighth_ns;
            event.phases.polled_ns = u32::try_from(eighth_ns).unwrap();
        }
        _ => event.phases.user_ns = host_ns / 3,
    }
    event
}

/// The n-th second of three VMs: CPUID, HLT and timer exits, of which some are dirty and a few spurious.
fn interval(n: u64) -> Interval {
    let mut interval = Accumulator::of(Interval::starting(n * 1_000_000_000));
    for id in 0..3 {
        for vcpu in 0..2 {
            for i in 0..(40 + 30 * u64::from(id) + 10 * (n % 5)) {
                let spread = (i * i * 37 + n * 11) % 4_000;
                interval.record(&event(vcpu, 10, 900 + spread, 700 + spread / 3, 0), &vm(id));
                if i % 4 == 0 {
                    interval.record(&event(vcpu, 12, 20_000 + 90 * spread, 400_000 + 250 * spread, 0), &vm(id));
                }
                if i % 8 == 0 {
                    interval.record(&event(vcpu, 52, 3_000 + 2 * spread, 1_500 + spread, 1 + (i % 2) as u8), &vm(id));
                }
            }
        }
    }
    if n % 7 == 3 {
        let mut spurious = event(1, 52, 1_200_000, 2_000, 0);
        spurious.flags |= Flags::SOFT_DISABLED;
        interval.record(&spurious, &vm(1));
    }
    let mut interval = interval.finish();
    interval.length_ns = 1_000_000_000;
    let entries = interval.series.values().map(|s| s.entries()).sum();
    interval.totals.entries = entries;
    interval.totals.delivered = entries;
    interval
}

/// 200 VMs of 32 vCPUs.
fn crowd() -> Interval {
    let mut interval = Accumulator::of(Interval::starting(0));
    for id in 0..200 {
        for vcpu in 0..32 {
            interval.record(&event(vcpu, 10, 900 + u64::from(id), 700, 0), &vm(id));
        }
    }
    let mut interval = interval.finish();
    interval.length_ns = 1_000_000_000;
    interval.totals.entries = 6400;
    interval
}

/// A recording of 40 s from 22:13:20 UTC on.
const PLAYED: Replay = Replay { speed: 2.0, paused: false, position: 0.25, range_ns: Some((0, 40_000_000_000)) };

fn empty() -> App {
    App::new(info(), PLAIN)
}

fn app() -> App {
    let mut app = empty();
    (0..20).for_each(|n| app.push(interval(n)));
    app.set_own_cpu(Some(0.4));
    app
}

fn press(app: &mut App, keys: &str) -> Effect {
    let mut effect = Effect::None;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '→' => KeyCode::Right,
            '←' => KeyCode::Left,
            '↓' => KeyCode::Down,
            '⌫' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        effect = app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

fn drawn(app: &mut App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, app)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|c| c.symbol()).collect::<String>();
    buffer.content.chunks(width).map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
}

/// Compares with tests/snapshots/NAME.txt.
fn snapshot(name: &str, app: &mut App, width: u16, height: u16) {
    let shown = text(&drawn(app, width, height));
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}-{width}x{height}.txt"));
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &shown).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == wanted, "{} differs; now:\n{shown}\nUPDATE_SNAPSHOTS=1 accepts it", path.display());
}

/// Every screen: a name, and how to get there.
fn screens() -> Vec<(&'static str, App)> {
    let after = |keys: &str| {
        let mut app = app();
        drawn(&mut app, 80, 24);
        press(&mut app, keys);
        app
    };
    let mut lost = app();
    let mut loss = interval(20);
    loss.totals.dropped = 1234;
    loss.totals.entries += 1234;
    lost.push(loss);
    let mut baseline = after("1b");
    baseline.push(interval(24));
    let mut scrolled = after("[[[");
    scrolled.push(interval(20));
    let mut paused = after(" ");
    paused.push(interval(20));
    let mut replay = App::new(Info { origin: Origin::Replay { file: "lab.hlog".into() }, ..info() }, PLAIN);
    replay.push(interval(0));
    replay.set_replay(PLAYED);
    vec![
        ("empty", empty()),
        ("table", app()),
        ("expanded", after("→↓→")),
        ("detail", after("↓→d")),
        ("series", after("dfF\x1bff")),
        ("help", after("?")),
        ("filter", after("/hlt")),
        ("nothing-matches", after("/zzz\n")),
        ("by-vcpu", after("gs")),
        ("by-reason", after("ggr")),
        ("cycles", after("uu")),
        ("baseline", baseline),
        ("question", after("p")),
        ("paused", paused),
        ("scrolled", scrolled),
        ("lost", lost),
        ("replay", replay),
    ]
}

#[test]
fn every_screen_looks_as_it_did() {
    for (name, mut app) in screens() {
        snapshot(name, &mut app, 80, 24);
        let large = ["table", "detail", "help", "baseline"].contains(&name);
        if large {
            snapshot(name, &mut app, 200, 50);
        }
        if large || name == "empty" || name == "question" {
            snapshot(name, &mut app, 40, 10);
        }
    }
}

#[test]
fn every_screen_is_drawn_at_any_size() {
    let sizes = [(0, 0), (1, 1), (0, 9), (9, 0), (2, 2), (3, 30), (30, 3), (13, 7), (40, 10), (80, 24), (200, 50)];
    let mut crowded = empty();
    (0..3).for_each(|_| crowded.push(crowd()));
    let mut unfolded = empty();
    unfolded.push(crowd());
    drawn(&mut unfolded, 80, 24);
    press(&mut unfolded, "→↓→d");
    for (name, mut app) in screens().into_iter().chain([("crowd", crowded), ("crowd-detail", unfolded)]) {
        for (width, height) in sizes {
            let buffer = drawn(&mut app, width, height);
            assert_eq!((buffer.area.width, buffer.area.height), (width, height), "{name}");
        }
    }
}

#[test]
fn a_crowd_is_scrolled_through() {
    let mut app = empty();
    app.push(crowd());
    drawn(&mut app, 80, 24);
    app.act(Action::Last);
    assert!(text(&drawn(&mut app, 80, 24)).contains("200 of 200"));
    app.act(Action::PageUp);
    assert_eq!((app.selected, app.places.rows.height), (199 - 17, 17));
    snapshot("crowd", &mut app, 80, 24);
}

#[test]
fn without_colours_there_are_none_and_in_ascii_nothing_else() {
    for (name, mut app) in screens() {
        app.palette = Palette { color: Colors::None, ascii: true };
        for (width, height) in [(80, 24), (200, 50)] {
            for cell in &drawn(&mut app, width, height).content {
                assert!(cell.symbol().is_ascii(), "{name}: {}", cell.symbol());
                assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{name}");
            }
        }
    }
    let mut foreign = empty();
    let mut interval = Interval::starting(0);
    interval.length_ns = 1;
    interval.record(&event(0, 10, 9, 9, 0), &Arc::new(Vm { name: "überall".into(), ..Vm::clone(&vm(9)) }));
    foreign.push(interval);
    foreign.palette.ascii = true;
    assert!(text(&drawn(&mut foreign, 80, 24)).contains("?berall"));
}

#[test]
fn colours_are_used_where_there_are_some_and_of_the_kind_there_is() {
    for (colors, indexed) in [(Colors::Ansi256, true), (Colors::True, false)] {
        let mut app = app();
        app.palette.color = colors;
        let buffer = drawn(&mut app, 80, 24);
        assert!(buffer.content.iter().any(|c| c.fg != Color::Reset));
        let of_kind = |c: Color| match c {
            Color::Reset => true,
            Color::Indexed(_) => indexed,
            Color::Rgb(..) => !indexed,
            _ => false,
        };
        assert!(buffer.content.iter().all(|c| of_kind(c.fg) && of_kind(c.bg)));
    }
}

#[test]
fn the_stopwatchs_transitions_have_columns_and_a_place_in_the_detail() {
    let mut app = App::new(info(), PLAIN);
    let mut interval = Interval::starting(0);
    interval.length_ns = 1_000_000_000;
    // So many that they carry a 99th percentile.
    for (writes, transition_ns) in [(0, 300), (0, 310), (1, 640)].repeat(50) {
        let clean = event(0, 10, 5000, 700, writes);
        interval.record(&Event { flags: clean.flags | Flags::TRANSITION_KNOWN, transition_ns, ..clean }, &vm(0));
    }
    app.push(interval);
    let page = text(&drawn(&mut app, 200, 50));
    let row = page.lines().find(|l| l.contains("▾ web1")).unwrap();
    assert!(row.contains("310ns    640ns"), "{page}");
    let narrow = |app: &mut App| text(&drawn(app, 80, 24)).lines().find(|l| l.contains("▾ web1")).unwrap().to_owned();
    assert!(!narrow(&mut app).contains("310ns"));
    app.info.stopwatch = true;
    assert!(narrow(&mut app).contains("310ns    640ns"), "{}", narrow(&mut app));
    let page = text(&drawn(&mut app, 200, 50));
    let heads = page.lines().find(|l| l.contains("dirty t:clean t:dirty")).unwrap_or_else(|| panic!("{page}"));
    let p50 = page.lines().find(|l| l.contains("p50  ")).unwrap();
    assert!(p50.contains("  300ns   640ns"), "{heads}\n{p50}");
}

#[test]
fn other_tracers_are_named_on_every_screen() {
    for origin in [Origin::Live, Origin::Replay { file: "a.hlog".into() }] {
        let names = vec!["perf (pid 7)".into()];
        let mut app = App::new(Info { other_tracers: names, origin, ..info() }, PLAIN);
        let screen = text(&drawn(&mut app, 120, 24));
        assert!(screen.lines().next().unwrap().contains("SHARED with perf (pid 7)"), "{screen}");
    }
}

#[test]
fn what_is_not_known_reads_n_a() {
    let mut app = App::new(
        Info { pin_writes_source: PinSource::None, aggregation: Aggregation::InKernel, max_delay_s: None, ..info() },
        PLAIN,
    );
    let mut interval = Interval::starting(0);
    interval.length_ns = 1_000_000_000;
    let bare = Event { exit_to_entry_ns: Event::UNKNOWN_NS, flags: Flags::NONE, isa: 2, ..event(0, 0x78, 5, 0, 0) };
    interval.record(&bare, &vm(0));
    app.push(interval);
    let screen = text(&drawn(&mut app, 200, 50));
    let row = screen.lines().find(|l| l.contains("web1") && l.contains(" - ")).unwrap();
    let titles = screen.lines().find(|l| l.contains("EXITS/S")).unwrap();
    assert!(!row.contains(" 0ns"), "{row}");
    let none = row.split_whitespace().filter(|cell| *cell == "-").count();
    assert_eq!(
        none, 7,
        "percentiles of guest time; share, mean, percentiles and maximum of host time\n{titles}\n{row}"
    );
    for hidden in ["PIN/E", "DIRTY%", "DEADLINE", "SPURIOUS", "transition"] {
        assert!(!titles.contains(hidden) && !screen.contains(&format!(" {hidden} ─")), "{hidden}\n{screen}");
    }
    assert!(screen.lines().next().unwrap().contains("values to 1.6 %"), "{screen}");
}

fn modes() -> [Mode; 6] {
    let questions = [Question::Policy(Policy::Hard), Question::Forget].map(Mode::Confirm);
    let [policy, forget] = questions;
    [Mode::Table, Mode::Filter, Mode::Help, Mode::Moment, policy, forget]
}

#[test]
fn no_two_bindings_of_a_mode_have_a_key_in_common() {
    for mode in modes() {
        let mut seen = HashSet::new();
        for key in KEYS.iter().filter(|b| b.scope.covers(&mode)).flat_map(|b| b.keys) {
            assert!(seen.insert(key), "{mode:?}: {}", label(key, true));
        }
    }
}

#[test]
fn every_key_of_a_binding_leads_to_its_action_and_is_in_the_help() {
    let mut help = app();
    help.act(Action::Help);
    let page = text(&drawn(&mut help, 200, 100));
    for binding in KEYS {
        assert!(page.contains(binding.help), "{}", binding.help);
        for &(code, modifiers) in binding.keys {
            assert!(page.contains(&label(&(code, modifiers), false)));
            for mode in modes().iter().filter(|m| binding.scope.covers(m)) {
                assert_eq!(action_of(&KeyEvent::new(code, modifiers), mode), Some(binding.action));
            }
        }
    }
    assert_eq!(
        action_of(&KeyEvent::new(KeyCode::Char('S'), KeyModifiers::SHIFT), &Mode::Table),
        Some(Action::SortPrevious)
    );
    assert_eq!(action_of(&KeyEvent::new(KeyCode::Char('Z'), KeyModifiers::NONE), &Mode::Table), None);
}

/// Returns the visible state of an app: its screen, mode, window, selection and figure.
fn trace(app: &mut App) -> String {
    let screen = text(&drawn(app, 200, 40));
    format!("{screen}{:?}{:?}{}{}", app.mode, app.end, app.selected, app.figure)
}

#[test]
fn every_binding_does_something() {
    for binding in KEYS {
        let mut app = app();
        drawn(&mut app, 200, 40);
        // Something to go away from: unfolded, in the middle, with filter and baseline, looking back.
        press(&mut app, "b↓→/c\n[[");
        drawn(&mut app, 200, 40);
        press(&mut app, "↓");
        match binding.scope {
            Scope::Filter => drop(press(&mut app, "/web")),
            Scope::Help => {
                press(&mut app, "?");
                drawn(&mut app, 80, 10);
                app.act(Action::Down);
            }
            Scope::Confirm => drop(press(&mut app, "p")),
            Scope::Moment => {
                app.info.origin = Origin::Replay { file: "a.hlog".into() };
                app.set_replay(PLAYED);
                press(&mut app, "t22:99");
            }
            Scope::Any | Scope::Table => {}
        }
        match binding.action {
            // Is there already.
            Action::Window(Window::TenSeconds) => app.window = Window::Start,
            Action::Toggle => app.detail = Some(false),
            Action::Expand => {
                press(&mut app, "/\x1b");
                app.act(Action::First);
            }
            _ => {}
        }
        let small = binding.scope == Scope::Help;
        let look = |app: &mut App| if small { text(&drawn(app, 80, 10)) } else { trace(app) };
        let before = look(&mut app);
        let (code, modifiers) = binding.keys[0];
        let effect = app.key(KeyEvent::new(code, modifiers));
        assert!(
            effect != Effect::None || look(&mut app) != before,
            "{}: {}",
            label(&binding.keys[0], true),
            binding.help
        );
    }
}

#[test]
fn keys_that_concern_others_become_effects() {
    let mut app = app();
    assert_eq!(press(&mut app, "q"), Effect::Quit);
    assert_eq!(press(&mut app, "o"), Effect::SaveRecording);
    assert_eq!(press(&mut app, "e"), Effect::SaveReport);
    for mode in modes() {
        app.mode = mode;
        assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
        assert_eq!(app.key(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL)), Effect::Suspend);
    }
}

#[test]
fn the_policy_is_switched_only_after_a_yes_and_only_where_it_can_be() {
    let mut app = app();
    assert_eq!(press(&mut app, "p"), Effect::None);
    assert_eq!(app.mode, Mode::Confirm(Question::Policy(Policy::Hard)));
    assert_eq!(press(&mut app, "n"), Effect::None);
    assert_eq!(press(&mut app, "py"), Effect::SwitchPolicy(Policy::Hard));
    app.set_policy(Policy::Hard);
    assert_eq!(press(&mut app, "py"), Effect::SwitchPolicy(Policy::Soft));
    app.info.switchable = false;
    assert_eq!(press(&mut app, "py"), Effect::None);
    assert_eq!(app.mode, Mode::Table);
    press(&mut app, "p");
    assert!(app.status.contains("companion patch"));
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut app = app();
    press(&mut app, "/qweb");
    assert_eq!((app.filter.as_str(), &app.mode), ("qweb", &Mode::Filter));
    press(&mut app, "⌫⌫⌫⌫DB\n");
    assert_eq!((app.filter.as_str(), &app.mode), ("DB", &Mode::Table));
    app.refresh();
    let names: Vec<_> = app.seen.rows.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["db"]);
    press(&mut app, "\x1b");
    app.refresh();
    assert_eq!(app.seen.rows.len(), 3);
}

#[test]
fn a_pause_freezes_what_is_seen_but_not_what_is_collected() {
    let mut app = app();
    press(&mut app, " ");
    let (before, visible) = (text(&drawn(&mut app, 200, 50)), app.visible());
    (20..30).for_each(|n| app.push(interval(n)));
    assert_eq!(text(&drawn(&mut app, 200, 50)), before);
    assert_eq!(app.visible(), visible);
    assert_eq!(app.history().count(), 30);
    press(&mut app, " ");
    assert_eq!(app.visible().start_ns, 20_000_000_000);
}

#[test]
fn looking_back_stays_where_it_is_and_ends_live() {
    let mut app = app();
    press(&mut app, "1[[");
    assert_eq!(app.visible().start_ns, 17_000_000_000);
    app.push(interval(20));
    assert_eq!(app.visible().start_ns, 17_000_000_000);
    assert_eq!(app.behind_s(), 3.0);
    press(&mut app, "]]]");
    assert_eq!((app.end, app.visible().start_ns), (None, 20_000_000_000));
}

#[test]
fn windows_hold_what_their_names_say() {
    let mut app = empty();
    let mut whole = Interval::default();
    for n in 0..90 {
        app.push(interval(n));
        whole.merge(&interval(n));
    }
    for (key, seconds) in [("1", 1), ("2", 10), ("3", 60), ("4", 90)] {
        press(&mut app, key);
        assert_eq!(app.visible().length_ns, seconds * 1_000_000_000);
    }
    assert_eq!(app.visible(), whole);
    app.push(interval(90));
    whole.merge(&interval(90));
    assert_eq!(app.visible(), whole);
}

#[test]
fn the_history_is_bounded_and_what_left_it_still_counts() {
    let mut app = empty();
    (0..700).for_each(|n| app.push(interval(n)));
    assert_eq!(app.history().count(), 600);
    press(&mut app, "4");
    assert_eq!(app.visible().length_ns, 700_000_000_000);
    press(&mut app, "x");
    assert_eq!((app.history().count(), &app.mode), (600, &Mode::Confirm(Question::Forget)));
    press(&mut app, "n");
    assert_eq!((app.history().count(), &app.mode), (600, &Mode::Table));
    press(&mut app, "xy");
    assert_eq!(app.history().count(), 0);
    assert!(text(&drawn(&mut app, 80, 24)).contains("waiting"));
}

#[test]
fn the_tree_unfolds_and_folds_and_the_selection_stays_on_its_row() {
    let mut app = app();
    press(&mut app, "→→");
    app.refresh();
    let names: Vec<_> = app.seen.rows.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names[..4], ["build-worker", "HLT", "CPUID", "PREEMPTION_TIMER"]);
    app.push(interval(20));
    press(&mut app, "r");
    app.refresh();
    assert_eq!(app.seen.rows[app.selected].name, "HLT");
    press(&mut app, "←");
    assert_eq!(app.seen.rows[app.selected].name, "build-worker");
    press(&mut app, "g");
    assert_eq!(app.group, Group::Vcpu);
}

#[test]
fn the_same_seconds_as_baseline_make_no_difference() {
    let mut app = app();
    press(&mut app, "b");
    let page = text(&drawn(&mut app, 200, 50));
    assert!(page.contains("vs 10 s of soft"));
    let row = page.lines().find(|l| l.contains("web1") && l.contains(" = ")).unwrap();
    let titles = page.lines().find(|l| l.contains("EXITS/S")).unwrap();
    assert_eq!(
        row.split_whitespace().filter(|word| *word == "=").count(),
        titles.matches('Δ').count(),
        "{titles}\n{row}"
    );
    assert!(titles.matches('Δ').count() >= 8, "{titles}");
}

#[test]
fn a_clock_time_is_typed_to_jump_to() {
    let mut app = App::new(Info { origin: Origin::Replay { file: "a.hlog".into() }, ..info() }, PLAIN);
    // What is typed before the recording is known is no shortcut of the table.
    assert_eq!(press(&mut app, "t22:13:50\n"), Effect::None);
    assert!(app.mode == Mode::Moment && app.status.contains("no interval"), "{}", app.status);
    assert!(text(&drawn(&mut app, 120, 24)).contains("jump to (UTC) 22:13:50▏"));
    press(&mut app, "\x1b");
    app.set_replay(PLAYED);
    press(&mut app, "t22:13:50");
    let page = text(&drawn(&mut app, 120, 24));
    assert!(page.contains("jump to (UTC) 22:13:50▏") && page.contains("2023-11-14 22:14:00 UTC"), "{page}");
    assert_eq!(press(&mut app, "\n"), Effect::Replay(ReplayCommand::SeekTo(30_000_000_000)));
    assert_eq!(app.mode, Mode::Table);
    for (typed, said) in
        [("noon", "'noon' is not a time: type HH:MM"), ("23:00", "23:00 is outside the recording: 2023-11")]
    {
        press(&mut app, "t");
        assert_eq!(press(&mut app, &format!("{typed}\n")), Effect::None);
        assert!(app.mode == Mode::Moment && app.status.starts_with(said), "{}", app.status);
        assert!(text(&drawn(&mut app, 200, 24)).contains(&app.status));
        press(&mut app, "\x1b");
    }
    assert!(app.mode == Mode::Table && app.filter.is_empty());
}

#[test]
fn the_detail_is_shown_from_30_lines_on_unless_the_user_decides() {
    let shows = |app: &mut App, height| text(&drawn(app, 120, height)).contains("host time  █ all");
    let mut app = app();
    assert!(!shows(&mut app, 29) && shows(&mut app, 30));
    press(&mut app, "d");
    assert!(!shows(&mut app, 29) && !shows(&mut app, 30) && !shows(&mut app, 60));
    press(&mut app, "d");
    assert!(shows(&mut app, 29) && shows(&mut app, 30));
}

#[test]
fn a_vm_that_is_alone_is_unfolded_until_the_user_folds_it() {
    let mut app = empty();
    let one = |n| {
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(n) };
        interval.record(&event(0, 10, 900, 700, 0), &vm(0));
        interval.record(&event(1, 12, 900, 7_000, 0), &vm(0));
        interval
    };
    let names = |app: &mut App| {
        app.refresh();
        app.seen.rows.iter().map(|r| r.name.clone()).collect::<Vec<_>>()
    };
    app.push(one(0));
    assert_eq!(names(&mut app), ["web1", "HLT", "CPUID"]);
    press(&mut app, "\n");
    app.push(one(1));
    assert_eq!(names(&mut app), ["web1"]);
}

#[test]
fn rows_are_sorted_by_host_time_and_its_shares_add_up() {
    let mut app = app();
    press(&mut app, "gg");
    let page = text(&drawn(&mut app, 120, 24));
    let page = page.replace('▸', " ");
    let rows: Vec<Vec<&str>> = page.lines().skip(6).take(3).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["HLT", "CPUID", "PREEMPTION_TIMER"], "{page}");
    let sum = |column: usize| rows.iter().map(|row| row[column].parse::<f64>().unwrap()).sum::<f64>();
    assert!((sum(2) - 100.0).abs() < 0.11 && (sum(3) - 100.0).abs() < 0.11, "{page}");
    // 18 % of the exits.
    assert!(rows[0][3].parse::<f64>().unwrap() > 99.0, "{page}");
}

#[test]
fn the_budget_of_the_selected_row_sums_up_and_leaves_out_what_is_not_known() {
    let line = |app: &mut App| text(&drawn(app, 120, 24)).lines().nth(2).unwrap().to_owned();
    let shares = |line: &str| line.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).sum::<f64>();
    let mut app = app();
    let all = line(&mut app);
    for part in ["build-worker", "guest 18.5", "kernel ", "user ", "polled ", "idle ", "steal 0.0 %"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert!((shares(&all) - 100.0).abs() < 0.31, "{all}");
    for width in [40, 50, 60, 70] {
        let narrow = text(&drawn(&mut app, width, 24)).lines().nth(2).unwrap().to_owned();
        assert!(narrow.trim_end().ends_with('%') && narrow.contains("idle "), "the last value is whole: {narrow}");
    }
    app.info.knowledge = Knowledge::from_file(&[("halt_time".into(), "a field is missing".into())].into());
    app.push(interval(20));
    let without = line(&mut app);
    assert!(!without.contains("polled") && without.contains("kernel") && without.contains("steal"), "{without}");
    let page = text(&drawn(&mut app, 200, 50));
    assert!(page.contains("idle: n/a (a field is missing)"), "{page}");
    let names = ["user_time", "halt_time", "steal_time"].map(|name| (name.into(), "why".into()));
    app.info.knowledge = Knowledge::from_file(&names.into());
    app.push(interval(21));
    let old = line(&mut app);
    assert!(old.contains("host 8") && !old.contains("kernel"), "{old}");
}

#[test]
fn an_exit_reason_unfolds_to_its_details_with_exits_and_host_times_alone() {
    let mut app = app();
    press(&mut app, "gg");
    drawn(&mut app, 160, 24);
    app.act(Action::Down);
    press(&mut app, "\n");
    let page = text(&drawn(&mut app, 160, 24));
    let rows: Vec<&str> = page.lines().skip(6).collect();
    assert!(rows[1].contains("▾ CPUID") && rows[2].starts_with("     "), "{page}");
    let numbers = |row: &str| row.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).collect::<Vec<_>>();
    // Exits per second of the leaves are those of the reason, and they have no guest time.
    let sum: f64 = rows[2..5].iter().map(|row| row.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()).sum();
    assert!((sum - numbers(rows[1])[0]).abs() < 2.0, "{page}");
    assert!(!rows[2].contains("n/a") && rows[1].matches("us").count() == rows[2].matches("us").count() + 2, "{page}");
    app.act(Action::Down);
    let page = text(&drawn(&mut app, 160, 40));
    assert!(page.contains("CPUID / "), "{page}");
}

#[test]
fn long_names_are_cut_in_the_middle() {
    let mut app = empty();
    let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(0) };
    for id in [16, 17] {
        let named = Vm { name: format!("web-frontend-production-eu-west-{id:04}"), ..Vm::clone(&vm(id)) };
        interval.record(&event(0, 10, 900, 700, 0), &Arc::new(named));
    }
    app.push(interval);
    let page = text(&drawn(&mut app, 80, 24));
    assert!(page.contains("▸ web-fr") && page.contains("-0017") && page.contains("-0016"), "{page}");
}

#[test]
fn columns_of_rare_events_are_shown_where_there_are_some() {
    let titles = |app: &mut App| {
        let page = text(&drawn(app, 200, 24));
        page.lines().find(|l| l.contains("EXITS/S")).unwrap().to_owned()
    };
    let mut app = empty();
    let mut quiet = Interval { length_ns: 1_000_000_000, ..Interval::starting(0) };
    quiet.record(&event(0, 10, 900, 700, 0), &vm(0));
    app.push(quiet.clone());
    let before = titles(&mut app);
    assert!(!before.contains("SPURIOUS") && !before.contains("PIN/E") && !before.contains("DIRTY%"), "{before}");
    app.set_policy(Policy::Hard);
    assert!(titles(&mut app).contains("PIN/E"), "under the hard policy, none is news");
    app.set_policy(Policy::Soft);
    let mut spurious = event(1, 52, 1_200_000, 2_000, 1);
    spurious.flags |= Flags::SOFT_DISABLED;
    quiet.record(&spurious, &vm(0));
    app.push(quiet);
    let now = titles(&mut app);
    assert!(now.contains("SPURIOUS") && now.contains("PIN/E") && !now.contains("IMMEDIATE"), "{now}");
}

#[test]
fn with_a_baseline_rows_stay_sorted_by_the_values_that_are_shown() {
    let mut app = app();
    press(&mut app, "gg1bss");
    app.push(interval(24));
    let page = text(&drawn(&mut app, 200, 24));
    let titles = page.lines().find(|l| l.contains("EXITS/S")).unwrap();
    assert!(titles.contains("▾MEAN"), "{titles}");
    let at = titles.chars().position(|c| c == '▾').unwrap();
    let rows: Vec<&str> = page.lines().skip(6).take(3).collect();
    let names: Vec<_> = rows.iter().map(|row| row.trim_start_matches([' ', '▸']).split(' ').next().unwrap()).collect();
    assert_eq!(names, ["HLT", "PREEMPTION_TIMER", "CPUID"], "{page}");
    for row in rows {
        let shown: String = row.chars().skip(at - 4).take(16).collect();
        assert!(shown.contains("us") && (shown.contains('%') || shown.contains('=')), "value and change: {row}");
    }
}

#[test]
fn a_replay_is_steered_and_a_live_screen_is_not() {
    let mut live = app();
    assert_eq!(press(&mut live, "+"), Effect::None);
    assert!(live.status.contains("vmentry live FILE"));
    let mut replay = App::new(Info { origin: Origin::Replay { file: "a.hlog".into() }, ..info() }, PLAIN);
    assert_eq!(press(&mut replay, " "), Effect::Replay(ReplayCommand::Pause));
    assert_eq!(press(&mut replay, "+"), Effect::Replay(ReplayCommand::Faster));
    assert_eq!(press(&mut replay, ","), Effect::Replay(ReplayCommand::SeekBy(-10.0)));
    press(&mut replay, "p");
    assert_eq!(replay.mode, Mode::Table);
}

#[test]
fn the_mouse_selects_unfolds_and_sorts() {
    let mut app = app();
    drawn(&mut app, 80, 24);
    let at = |column, row, kind| MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
    let click = MouseEventKind::Down(MouseButton::Left);
    app.mouse(at(5, app.places.rows.y + 1, click));
    assert_eq!(app.selected, 1);
    app.mouse(at(5, app.places.rows.y + 1, click));
    app.refresh();
    assert_eq!(app.seen.rows.len(), 6);
    app.mouse(at(5, 9, MouseEventKind::ScrollUp));
    assert_eq!(app.selected, 0);
    let (left, _, column) = app.places.titles[2];
    app.mouse(at(left, app.places.title_line, click));
    assert_eq!(app.order.column, column);
    app.mouse(at(left, app.places.title_line, click));
    assert!(app.order.ascending);
}

#[test]
fn loss_is_said_loudly() {
    let mut app = app();
    app.palette.color = Colors::Ansi256;
    let mut loss = interval(20);
    loss.totals.dropped = 5;
    app.push(loss);
    let buffer = drawn(&mut app, 40, 10);
    assert!(text(&buffer).contains("LOST 5"));
    assert!(buffer.content.iter().any(|c| c.bg == Color::Indexed(160)));
}

#[test]
fn the_detail_has_every_part_of_the_time_at_usual_sizes() {
    for (width, height) in [(80, 40), (100, 30), (120, 30), (120, 40), (200, 50)] {
        let shown = text(&drawn(&mut app(), width, height));
        let (_, detail) = shown.split_once("─ build-worker: 10 s").unwrap();
        for part in ["guest ", "kernel ", "user ", "polled ", "idle ", "steal "] {
            assert!(detail.contains(part), "{part} at {width}x{height}:\n{shown}");
        }
    }
}

#[test]
fn a_count_of_rows_left_out_stands_on_no_title() {
    for (width, height) in [(80, 30), (100, 30), (120, 30), (120, 40)] {
        let shown = text(&drawn(&mut app(), width, height));
        let titles = shown.lines().find(|line| line.contains("exit reasons")).unwrap();
        assert!(titles.contains("EXIT%"), "{titles}");
        let means = ["host mean", "host ", "mean"].map(|title| titles.matches(title).count());
        assert!(means[0] == means[2], "at {width}x{height}: {titles}");
    }
}

#[test]
fn percentiles_of_few_values_and_shares_without_host_time_are_not_shown() {
    let mut app = empty();
    let mut interval = Accumulator::of(Interval::starting(0));
    (0..50).for_each(|_| interval.record(&event(0, 10, 900, 700, 0), &vm(0)));
    let last = Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(0, 10, 900, 0, 0) };
    (0..50).for_each(|_| interval.record(&last, &vm(1)));
    let mut interval = interval.finish();
    interval.length_ns = 1_000_000_000;
    app.push(interval);
    let shown = text(&drawn(&mut app, 120, 40));
    let row = shown.lines().find(|line| line.contains("web1") && line.contains("50.0")).unwrap();
    // Host mean and median, no 99th percentile, the highest.
    assert!(row.contains("700ns    700ns        -    700ns"), "{shown}");
    press(&mut app, "\u{2193}");
    let shown = text(&drawn(&mut app, 120, 40));
    assert!(shown.contains("db  shares of guest and host time n/a: no entry was seen after its exits"), "{shown}");
    assert!(!shown.contains("100.0  kernel"), "{shown}");
}
