//! A pager for text that is longer than the terminal, as git's: the command in PAGER, else `less -FRX`.

use std::{
    env,
    ffi::OsString,
    io::Write,
    process::{Child, Command, Stdio},
};

use anyhow::Result;

use super::{streams::print, sudo};

/// Prints text through the pager. Without one, or if it cannot be started, as [`print`] does. A pager that is closed early is no error.
pub(crate) fn page(text: &str) -> Result<()> {
    let started = command(env::var_os("PAGER")).and_then(|mut pager| pager.stdin(Stdio::piped()).spawn().ok());
    let Some(mut pager) = started else { return print(text) };
    let ignored = ignore_keys();
    feed(&mut pager, text);
    let ended = pager.wait();
    restore_keys(ignored);
    // A shell that finds no such pager has shown nothing: what it said stands above the text.
    if ended.is_ok_and(|status| matches!(status.code(), Some(126 | 127))) { print(text) } else { Ok(()) }
}

fn feed(pager: &mut Child, text: &str) {
    if let Some(mut input) = pager.stdin.take() {
        // It fails where the reader has seen enough.
        let _ = input.write_all(text.as_bytes());
    }
}

/// The pager of this environment; none for `PAGER=` and `PAGER=cat`.
fn command(chosen: Option<OsString>) -> Option<Command> {
    let mut pager = match chosen {
        Some(text) if text.is_empty() || text == "cat" => return None,
        Some(text) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(text);
            shell
        }
        None => Command::new("less"),
    };
    if env::var_os("LESS").is_none() {
        // Ends where the text fits; shows colours; leaves the text on the screen.
        pager.env("LESS", "FRX");
    }
    if sudo::is_behind() {
        // Who may run this program by sudo may not run every other one from within less.
        pager.env("LESSSECURE", "1");
    }
    Some(pager)
}

/// Lets Ctrl-C and Ctrl-\ reach the pager alone, which uses them as keys, as long as it runs. Returns what they did before.
fn ignore_keys() -> [libc::sighandler_t; 2] {
    // SAFETY: ignoring a signal frees no handler of this process.
    [libc::SIGINT, libc::SIGQUIT].map(|signal| unsafe { libc::signal(signal, libc::SIG_IGN) })
}

fn restore_keys(before: [libc::sighandler_t; 2]) {
    for (signal, action) in [libc::SIGINT, libc::SIGQUIT].into_iter().zip(before) {
        // SAFETY: `action` is what signal(2) returned for this signal.
        unsafe { libc::signal(signal, action) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pager_is_the_users_choice() {
        let words = |chosen: Option<&str>| {
            command(chosen.map(Into::into)).map(|c| {
                let args = c.get_args().map(|arg| arg.to_string_lossy().into_owned());
                std::iter::once(c.get_program().to_string_lossy().into_owned()).chain(args).collect::<Vec<_>>()
            })
        };
        assert_eq!(words(None), Some(vec!["less".into()]));
        assert_eq!(words(Some("more -e")), Some(["sh", "-c", "more -e"].map(str::to_owned).to_vec()));
        assert_eq!((words(Some("")), words(Some("cat"))), (None, None));
    }
}
