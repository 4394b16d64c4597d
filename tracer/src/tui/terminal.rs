//! The terminal while the live view uses it: raw, on the alternate screen, with the mouse; restored on every way out.

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

/// Whether the live view uses the terminal now: otherwise the panic hook must not touch it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in use; dropping it restores the terminal.
pub(crate) struct Screen {
    /// never dropped: ratatui's drop prints to standard error, which panics when the terminal is gone
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    /// Takes the terminal. From then on a panic restores it before it prints.
    pub(crate) fn take() -> Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        enter()?;
        Ok(Self { terminal: new_terminal()? })
    }

    /// Restores the terminal, stops this process as Ctrl-Z does, and takes the terminal again when the process continues.
    pub(crate) fn suspend(&mut self) -> Result<()> {
        give_back();
        // SAFETY: kill has no memory effects; 0 is this process's own group, which the shell continues by SIGCONT.
        unsafe { libc::kill(0, libc::SIGSTOP) };
        enter()?;
        // A new terminal redraws everything. Clearing the old one would ask for the cursor's position, and the thread that reads keys
        // would get the answer.
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

/// Restores the terminal; may be called at any time and more than once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be restored.
        let _ = execute!(io::stdout(), event::DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Whether the live view can be drawn: standard input and output are a terminal that is not dumb.
pub(crate) fn is_usable() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Colours and characters of this terminal, from the usual environment variables.
pub(crate) fn palette() -> Palette {
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
    // The first of these that is set counts, as in setlocale(3).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|n| set(n));
    let utf8 = locale.is_some_and(|n| contains(n, &["utf-8", "utf8"]));
    Palette { color, ascii: !utf8 || contains("TERM", &["vt100", "vt220"]) }
}

/// Columns of standard output; 100 if it is no terminal.
pub(crate) fn width() -> usize {
    let columns = terminal::size().map_or(100, |(columns, _)| usize::from(columns));
    if io::stdout().is_terminal() { columns } else { 100 }
}
