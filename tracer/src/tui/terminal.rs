//! The terminal while the live view uses it: raw, on the alternate screen, with the mouse; restored on every way out and stop.

use std::{
    cell::RefCell,
    env,
    io::{self, IsTerminal, Write},
    mem::{self, ManuallyDrop},
    rc::Rc,
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event, execute, queue,
        terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
    },
};

use crate::{
    output::{self, Paint},
    tui::{Colors, Palette},
};

/// Whether the live view uses the terminal now: otherwise the panic hook must not touch it.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Frames that the terminal has not taken yet: at most one.
static UNWRITTEN: AtomicU32 = AtomicU32::new(0);
/// How long the terminal may take for the last frame before it is given back without it.
const LAST_FRAME: Duration = Duration::from_millis(500);

/// The terminal in use; dropping it restores the terminal.
pub(crate) struct Screen {
    /// never dropped: ratatui's drop prints to standard error, which panics when the terminal is gone
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Page>>>,
    page: Page,
    /// to the thread that writes, so that a terminal that stands still (Ctrl-S) makes nobody deaf to keys and signals
    frames: SyncSender<Vec<u8>>,
}

/// The bytes of a frame, before they are handed to the thread that writes.
#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The processes that a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// this process and those of its job, as by Ctrl-Z on a terminal that is not raw
    Job,
    /// this process, which got SIGTSTP
    Process,
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
        let page = Page::default();
        Ok(Self { terminal: new_terminal(&page)?, page, frames: start_writing()? })
    }

    /// Draws a frame, unless the terminal has not taken the last one yet; returns whether it did.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<bool> {
        if UNWRITTEN.load(Ordering::SeqCst) > 0 {
            return Ok(false);
        }
        self.terminal.draw(draw).context("draw")?;
        UNWRITTEN.fetch_add(1, Ordering::SeqCst);
        self.frames.send(mem::take(&mut self.page.0.borrow_mut())).context("draw: the terminal is gone")?;
        Ok(true)
    }

    /// Restores the terminal, stops as SIGTSTP does, and takes the terminal again when the process continues. Where no shell could
    /// continue it (a session leader, an orphaned job), the kernel does not stop it, and it goes on at once.
    pub(crate) fn suspend(&mut self, whom: Stopped) -> Result<()> {
        give_back();
        stop(whom);
        self.resume()
    }

    /// Takes the terminal again after others may have changed it, and draws everything anew.
    pub(crate) fn resume(&mut self) -> Result<()> {
        // Raw mode as this program knows it may not be the terminal's any more.
        let _ = terminal::disable_raw_mode();
        enter()?;
        // A new terminal redraws everything. Clearing the old one would ask for the cursor's position, and the thread that reads keys
        // would get the answer.
        self.page.0.borrow_mut().clear();
        self.terminal = new_terminal(&self.page)?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Starts the thread that writes frames; it ends with the process, or when the terminal is gone.
fn start_writing() -> Result<SyncSender<Vec<u8>>> {
    let (send, frames) = sync_channel::<Vec<u8>>(1);
    let work = move || {
        for frame in frames {
            let mut out = io::stdout().lock();
            if out.write_all(&frame).and_then(|()| out.flush()).is_err() {
                break;
            }
            UNWRITTEN.fetch_sub(1, Ordering::SeqCst);
        }
        // Nothing more is written, so nobody needs to wait.
        UNWRITTEN.store(0, Ordering::SeqCst);
    };
    std::thread::Builder::new().name("draw".into()).spawn(work).context("start the thread that draws")?;
    Ok(send)
}

/// Stops by the default action of SIGTSTP; returns when the process continues.
fn stop(whom: Stopped) {
    let receiver = match whom {
        Stopped::Job => 0,
        // SAFETY: getpid has no effect.
        Stopped::Process => unsafe { libc::getpid() },
    };
    // SAFETY: a sigaction of zeros is valid and is SIG_DFL, and `handler` is filled in before it is used. Neither call keeps a pointer.
    // kill has no memory effects; 0 is this process's own group.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        let mut handler: libc::sigaction = mem::zeroed();
        libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut handler);
        libc::kill(receiver, libc::SIGTSTP);
        libc::sigaction(libc::SIGTSTP, &raw const handler, std::ptr::null_mut());
    }
}

fn new_terminal(page: &Page) -> Result<ManuallyDrop<Terminal<CrosstermBackend<Page>>>> {
    Terminal::new(CrosstermBackend::new(page.clone())).map(ManuallyDrop::new).context("prepare the terminal")
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
        // The rest of a frame must not follow on the screen of the shell.
        for _ in 0..LAST_FRAME.as_millis() {
            if UNWRITTEN.load(Ordering::SeqCst) == 0 {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        let mut bytes = Vec::new();
        // A terminal that is gone, or stands still, cannot be restored.
        let _ = queue!(bytes, event::DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = output::write_to_terminal(&bytes);
        let _ = terminal::disable_raw_mode();
    }
}

/// Whether the live view can be drawn: standard input and output are a terminal that is not dumb.
pub(crate) fn is_usable() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether standard output is a terminal.
pub(crate) fn is_output() -> bool {
    io::stdout().is_terminal()
}

/// Whether text for this terminal may have attributes: it is not dumb, and nobody asked for none (NO_COLOR).
fn has_attributes() -> bool {
    env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Attributes of text for standard output: none where it is no terminal.
pub(crate) fn paint() -> Paint {
    Paint { on: is_output() && has_attributes() }
}

/// Colours and characters of this terminal, from the usual environment variables.
pub(crate) fn palette() -> Palette {
    let value = |name: &str| env::var_os(name).unwrap_or_default().to_string_lossy().to_lowercase();
    let set = |name: &str| !value(name).is_empty();
    let contains = |name: &str, what: &[&str]| what.iter().any(|w| value(name).contains(w));
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

/// Columns of standard output: 100 if it is no terminal, 80 if the terminal does not know.
pub(crate) fn width() -> usize {
    // A terminal that was given no size has 0.
    let columns = terminal::size().ok().map(|(columns, _)| usize::from(columns)).filter(|columns| *columns > 0);
    if io::stdout().is_terminal() { columns.unwrap_or(80) } else { 100 }
}

/// Columns of the terminal that is standard error; none if it is no terminal.
pub(crate) fn message_width() -> Option<usize> {
    let columns = || terminal::size().ok().map(|(columns, _)| usize::from(columns)).filter(|columns| *columns > 0);
    io::stderr().is_terminal().then(columns).flatten()
}

/// A message in lines that fit the terminal; as it is where standard error is no terminal.
pub(crate) fn fitted(message: &str) -> String {
    message_width().map_or(message.to_owned(), |width| output::wrap(message, "  ", width).trim_end().to_owned())
}
