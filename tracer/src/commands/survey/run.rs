//! Runs one of this program's own commands as a child, until it ends, a signal comes, or it takes too long.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tokio::time::{sleep, timeout};

use crate::commands::child::{Endings, end, exit_of, start};

/// This program, whatever has become of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How long a child may take to detach and restore after SIGTERM. A calibration that is killed would leave its policy in force.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// How long a signal that a terminal sends to both may come after the child has ended by it.
const BOTH: Duration = Duration::from_millis(50);
/// Most bytes that are taken of a child's output: a recording of half a minute has some MB.
const MOST_OUTPUT: u64 = 256 << 20;

/// What a child printed, and how it ended.
pub(super) struct Ran {
    pub(super) output: Vec<u8>,
    pub(super) ended: Ended,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// by itself
    Itself,
    /// a signal ended the survey
    Signal,
    /// it was stopped, because it took too long
    Late,
}

/// Runs `vmentry` with these arguments.
pub(super) async fn run(arguments: &[&str], limit: Duration, endings: &mut Endings) -> Result<Ran> {
    let command: Vec<OsString> = [THIS_PROGRAM].iter().chain(arguments).map(Into::into).collect();
    let mut child = start(&command, None, Stdio::piped())?;
    let stdout = child.as_mut().and_then(|child| child.stdout.take()).context("read the output of a part")?;
    let stdout = File::from(stdout.into_owned_fd().context("read the output of a part")?);
    // On a thread of its own: a child whose output nobody takes does not end.
    let reader = thread::spawn(|| read(stdout));
    let ended = tokio::select! {
        biased;
        _ = endings.next() => Ended::Signal,
        status = exit_of(&mut child) => {
            status.context("wait for a part")?;
            if timeout(BOTH, endings.next()).await.is_ok() { Ended::Signal } else { Ended::Itself }
        }
        () = sleep(limit) => Ended::Late,
    };
    end(&mut child, GRACE).await;
    let output = reader.join().map_err(|_| anyhow!("the reader of a part panicked: please report this"))?;
    Ok(Ran { output: output.context("read the output of a part")?, ended })
}

fn read(from: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(MOST_OUTPUT).read_to_end(&mut bytes)?;
    if read as u64 == MOST_OUTPUT {
        return Err(io::Error::other(format!("it has more than {} MiB", MOST_OUTPUT >> 20)));
    }
    Ok(bytes)
}
