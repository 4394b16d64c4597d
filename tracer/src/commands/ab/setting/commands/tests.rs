//! Commands that succeed, fail, hang and are ended by signals.

use std::{fs, path::Path, sync::Mutex};

use super::*;
use crate::{
    host::{roots::made_up::Folder, setting::left_behind::left_behind},
    output::shown,
};

/// Signals reach all who listen: one test at a time.
static SIGNALS: Mutex<()> = Mutex::new(());

fn now<T>(work: impl Future<Output = T>) -> T {
    runtime().unwrap().block_on(work)
}

fn until(happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never happened");
        std::thread::sleep(LOOK);
    }
}

/// Whether a process runs whose number stands in a file; one that has ended and is not waited for does not.
fn runs(file: &Path) -> bool {
    let id = fs::read_to_string(file).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", id.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Sends a signal once a file is there that a command writes.
fn signal_after(file: std::path::PathBuf) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        until(|| fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR2).unwrap();
    })
}

#[test]
fn a_command_that_hangs_is_ended_with_its_group_when_nobody_waits_any_more() {
    let folder = Folder::new();
    for (trap, name, most) in [("", "a", 900), ("trap '' TERM;", "b", 5000)] {
        let file = folder.roots.run.join(name);
        let command = format!("{trap} sleep 60 & echo $! > {}; wait", shown(&file));
        let started = Instant::now();
        now(async {
            tokio::select! {
                _ = run(&command, SWITCH_TIME) => panic!("it does not end by itself"),
                () = async { while !fs::read_to_string(&file).is_ok_and(|t| t.ends_with('\n')) { tokio::time::sleep(LOOK).await } } => {}
            }
        });
        until(|| !runs(&file));
        // A busy machine may be slow to start it.
        assert!(started.elapsed() < Duration::from_millis(most + 10_000), "{trap}: {:?}", started.elapsed());
    }
}

#[test]
fn a_command_has_its_time_and_its_status_counts() {
    let said = |command: &str, most| now(run(command, most)).map_err(|error| error.to_string());
    assert_eq!(said("true", SWITCH_TIME), Ok(()));
    assert!(said("exit 3", SWITCH_TIME).unwrap_err().contains("'exit 3' failed (exit status: 3)"));
    let late = said("sleep 60", Duration::from_millis(20)).unwrap_err();
    assert!(late.contains("did not end within"), "{late}");
}

#[test]
fn a_process_that_a_command_leaves_behind_belongs_to_the_setting() {
    let folder = Folder::new();
    let file = folder.roots.run.join("left");
    now(run(&format!("sleep 60 > /dev/null 2>&1 & echo $! > {}", shown(&file)), SWITCH_TIME)).unwrap();
    assert!(runs(&file));
    let id = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn another_command_that_ends_meanwhile_takes_no_status_away() {
    now(async {
        let mut child = Some(tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap());
        tokio::select! {
            _ = crate::commands::child::exit_of(&mut child) => panic!("it goes on"),
            done = async { for _ in 0..20 { run("sleep 0.01", SWITCH_TIME).await? } Ok::<_, anyhow::Error>(()) } => done.unwrap(),
        }
    });
}

#[test]
fn a_signal_ends_a_command_that_hangs_and_the_setting_is_restored() {
    let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Folder::new();
    let at = |name: &str| folder.roots.run.join(name);
    let mut commands =
        Commands::new(&folder.roots, format!("sleep 0.3; echo restored > {}", shown(&at("state")))).unwrap();
    assert!(left_behind(&folder.roots).unwrap().command.unwrap().starts_with("sleep 0.3; echo restored"));
    now(async {
        let mut endings = Endings::new().unwrap();
        let signal = signal_after(at("pid"));
        let command = format!("sleep 60 & echo $! > {}; wait", shown(&at("pid")));
        let reason = tokio::select! {
            biased;
            reason = endings.next() => reason,
            _ = switch(&command) => panic!("it does not end by itself"),
        };
        assert_eq!(reason, "SIGUSR2");
        // One that comes at the same time does not end the restoring.
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR1).unwrap();
        commands.restore(&mut endings).await.unwrap();
        signal.join().unwrap();
    });
    until(|| !runs(&at("pid")));
    assert_eq!(folder.read("run/state"), "restored\n");
    assert_eq!(left_behind(&folder.roots), None, "the note is gone");
}

#[test]
fn a_second_signal_ends_a_restoring_that_hangs_and_names_its_command() {
    let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Folder::new();
    let file = folder.roots.run.join("pid");
    let command = format!("sleep 1.3; sleep 60 & echo $! > {}; wait", shown(&file));
    let mut commands = Commands::new(&folder.roots, command.clone()).unwrap();
    let error = now(async {
        let mut endings = Endings::new().unwrap();
        let signal = signal_after(file.clone());
        let error = commands.restore(&mut endings).await.unwrap_err().to_string();
        signal.join().unwrap();
        error
    });
    assert!(error.starts_with("THE SETTING WAS NOT RESTORED: ended by SIGUSR2"), "{error}");
    assert!(error.ends_with(&format!("-> type: {command}")), "{error}");
    until(|| !runs(&file));
    drop(commands);
    let told = left_behind(&folder.roots).expect("check still tells").what();
    let why = format!("whose command to restore it failed: {command}: ended by SIGUSR2");
    assert!(told.contains(&why) && !told.contains("killed"), "{told}");
}

#[test]
fn a_first_command_that_fails_leaves_a_note_only_where_something_is_to_be_restored() {
    let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let begun = |restore: &str, to: &str| {
        let folder = Folder::new();
        let begin = async { Commands::begin(&folder.roots, restore.into(), to, &mut Endings::new().unwrap()).await };
        let error = now(begin).err().unwrap();
        assert!(format!("{error:#}").contains(&format!("'{to}' failed (exit status: 3)")), "{error:#}");
        left_behind(&folder.roots).map(|left| left.what())
    };
    assert_eq!(begun("exit 3", "exit 3"), None, "nothing restores it, and nothing else was switched");
    assert_eq!(begun("true", "exit 3"), None, "it is restored");
    let left = begun("exit 5", "exit 3").unwrap();
    assert!(left.contains("whose command to restore it failed: 'exit 5' failed (exit status: 5)"), "{left}");
}

#[test]
fn the_setting_is_restored_on_a_panic_and_by_an_error_within_the_runtime() {
    let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Folder::new();
    let state = folder.roots.run.join("state");
    let made = || Commands::new(&folder.roots, format!("echo restored >> {}", shown(&state))).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _commands = made();
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    now(async { drop(made()) });
    assert_eq!(folder.read("run/state"), "restored\nrestored\n");
}

#[test]
fn a_restoring_that_a_signal_to_the_group_ended_is_done_again() {
    let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Folder::new();
    let tried = shown(&folder.roots.run.join("tried"));
    // As if the signal came before the command had a group of its own: the first try dies of it.
    let command = format!("if [ -e {tried} ]; then echo restored >> {tried}; else touch {tried}; kill -TERM $$; fi");
    let mut commands = Commands::new(&folder.roots, command).unwrap();
    now(async { commands.restore(&mut Endings::new().unwrap()).await.unwrap() });
    assert_eq!(folder.read("run/tried"), "restored\n");
    assert_eq!(left_behind(&folder.roots), None);
}
