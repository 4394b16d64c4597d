//! A stream that a thread of its own writes to: a pipe, terminal or disk that stands still holds up nobody else.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

/// The writing side. Each `write` is one write of the thread, in order; of those, one waits while another is being written.
#[derive(Clone)]
pub(crate) struct Background {
    queue: mpsc::Sender<Vec<u8>>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

/// The thread's work.
pub(crate) struct Written {
    end: oneshot::Receiver<()>,
    failure: Arc<Mutex<Option<io::Error>>>,
    /// a write has succeeded
    any: Arc<AtomicBool>,
}

impl Background {
    /// Starts the thread that writes to `out`.
    pub(crate) fn start(mut out: Box<dyn Write + Send>) -> Result<(Self, Written)> {
        let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(1);
        let (ended, end) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let any = Arc::new(AtomicBool::new(false));
        let succeeded = Arc::clone(&any);
        let work = move || {
            let error = loop {
                let Some(bytes) = waiting.blocking_recv() else { break None };
                match out.write_all(&bytes).and_then(|()| out.flush()) {
                    Ok(()) => succeeded.store(true, Ordering::Relaxed),
                    Err(error) => break Some(error),
                }
            };
            // Before anybody learns of the error: a file that got nothing is gone by then.
            drop(out);
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = error;
            // Closed before anybody learns of the end, so that no later write seems to succeed.
            drop(waiting);
            let _ = ended.send(());
        };
        std::thread::Builder::new().name("write".into()).spawn(work).context("start the thread that writes")?;
        Ok((Self { queue, failure: Arc::clone(&failure) }, Written { end, failure, any }))
    }

    /// Waits until a `write` would not have to wait, or would fail.
    pub(crate) async fn room(&self) {
        let _ = self.queue.reserve().await;
    }
}

impl Write for Background {
    /// Hands the bytes to the thread. Fails with the error of an earlier write, and with `WouldBlock` where there is no room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(io::Error::new(io::ErrorKind::WouldBlock, STALLED)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(take(&self.failure)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// Waits until the thread has written everything; every [`Background`] must be dropped first.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        let _ = (&mut self.end).await;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// Whether the first write has succeeded, so that the stream has something.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

/// The cause of bytes that could not be written in time.
pub(crate) const STALLED: &str = "whoever reads this takes nothing";

fn take(failure: &Mutex<Option<io::Error>>) -> io::Error {
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.unwrap_or_else(|| io::Error::other("an earlier write failed"))
}

#[cfg(test)]
mod tests {
    use std::{io::Read, time::Duration};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_loses_nothing_that_was_taken() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut out, mut written) = Background::start(Box::new(writer)).unwrap();
        let block = vec![b'x'; 1 << 20];
        runtime().block_on(async {
            out.write_all(&block).unwrap();
            out.room().await;
            out.write_all(b"second").unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(50), out.room()).await.is_err(), "there is no room");
            assert_eq!(out.write(b"third").unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(out);
            let reading = std::thread::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                all
            });
            written.wait().await.unwrap();
            assert!(written.has_any());
            assert_eq!(reading.join().unwrap(), [&block[..], b"second"].concat());
        });
    }

    #[test]
    fn the_error_of_a_write_is_returned_by_a_later_one_or_at_the_end() {
        let full = || Box::new(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        runtime().block_on(async {
            let (mut out, mut written) = Background::start(full()).unwrap();
            out.write_all(b"a").unwrap();
            drop(out);
            assert_eq!(written.wait().await.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            assert!(!written.has_any());

            let (mut out, _written) = Background::start(full()).unwrap();
            out.write_all(b"a").unwrap();
            // The thread ends, and then there is no queue.
            out.queue.closed().await;
            out.room().await;
            assert_eq!(out.write(b"b").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        });
    }
}
