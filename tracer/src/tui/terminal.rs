//! The terminal while the live view has it: raw, on the alternate screen, with the mouse; given back on every way out.

use std::{
    env,
    io::{self, IsTerminal, Stdout},
    mem::ManuallyDrop,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event, execute,
        terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
    },
};

use crate::tui::{Colors, Palette};

/// Whether the terminal is ours at the moment: the panic hook must not touch one that is not.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, taken. Dropping it gives it back.
pub struct Screen {
    /// to draw on; never dropped, because ratatui's drop complains on standard error and so panics when the terminal is gone
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    /// Takes the terminal. From then on a panic gives it back before it prints.
    pub fn take() -> Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        enter()?;
        Ok(Self { terminal: new_terminal()? })
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal again when it goes on.
    pub fn suspend(&mut self) -> Result<()> {
        give_back();
        // SAFETY: raising a signal in this process; SIGSTOP cannot be handled, and SIGCONT comes from the shell.
        unsafe { libc::kill(0, libc::SIGSTOP) };
        enter()?;
        // A new one draws everything anew. Clearing the old one would ask the terminal for its cursor, and the answer would go to
        // the thread that reads keys.
        self.terminal = new_terminal()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn new_terminal() -> Result<ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>> {
    Terminal::new(CrosstermBackend::new(io::stdout())).map(ManuallyDrop::new).context("prepare the terminal")
}

fn enter() -> Result<()> {
    terminal::enable_raw_mode().context("put the terminal into raw mode")?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All), event::EnableMouseCapture, cursor::Hide)
        .context("take the terminal")
}

/// Safe to call at any time, more than once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be restored, and needs it no more.
        let _ = execute!(io::stdout(), event::DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Whether the live view can be drawn: both ends are a terminal that understands sequences.
pub fn is_usable() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Colours and characters that this terminal shows, by the usual variables.
pub fn palette() -> Palette {
    let set = |name: &str| env::var(name).is_ok_and(|v| !v.is_empty());
    let contains =
        |name: &str, what: &[&str]| env::var(name).is_ok_and(|v| what.iter().any(|w| v.to_lowercase().contains(w)));
    let color = if set("NO_COLOR") {
        Colors::None
    } else if contains("COLORTERM", &["truecolor", "24bit"]) {
        Colors::True
    } else {
        Colors::Ansi256
    };
    // The first of these that is set decides, as in setlocale(3).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|n| set(n));
    let utf8 = locale.is_some_and(|n| contains(n, &["utf-8", "utf8"]));
    Palette { color, ascii: !utf8 || contains("TERM", &["vt100", "vt220"]) }
}

/// Columns of standard output's terminal; 100 where it is none.
pub fn width() -> usize {
    let columns = terminal::size().map_or(100, |(columns, _)| usize::from(columns));
    if io::stdout().is_terminal() { columns } else { 100 }
}
