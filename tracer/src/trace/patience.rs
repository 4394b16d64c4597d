//! How long the end of a recording waits for a trace: as long as the trace takes something.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a trace may take nothing before it is left as it is.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// A trace's file or pipe, which counts what it takes.
pub(super) struct Counted {
    out: Box<dyn Write + Send>,
    writes: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.writes.fetch_add(1, Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The patience with a trace.
#[derive(Clone)]
pub(super) struct Patience {
    /// writes that the trace has taken; none for a flight recorder, whose files are waited for without end
    writes: Option<Arc<AtomicU64>>,
    limit: Duration,
}

impl Patience {
    /// Waits without end.
    pub(super) fn endless() -> Self {
        Self { writes: None, limit: LIMIT }
    }

    /// Waits while `out` takes something at least every `limit`.
    pub(super) fn with(out: Box<dyn Write + Send>, limit: Duration) -> (Self, Counted) {
        let writes = Arc::new(AtomicU64::new(0));
        (Self { writes: Some(Arc::clone(&writes)), limit }, Counted { out, writes })
    }

    /// Waits until `is_done`; false where the trace took nothing for too long before that.
    pub(super) fn wait_until(&self, mut is_done: impl FnMut() -> bool) -> bool {
        let (mut seen, mut since) = (0, Instant::now());
        while !is_done() {
            let Some(writes) = &self.writes else {
                sleep(PAUSE);
                continue;
            };
            let now = writes.load(Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > self.limit {
                return false;
            }
            sleep(PAUSE);
        }
        true
    }

    /// Sends a message as soon as there is room; false where it gave up. A receiver that has ended has said why.
    pub(super) fn send<T>(&self, queue: &SyncSender<T>, message: T) -> bool {
        let mut waiting = Some(message);
        self.wait_until(|| {
            let Some(message) = waiting.take() else { return true };
            match queue.try_send(message) {
                Err(TrySendError::Full(message)) => {
                    waiting = Some(message);
                    false
                }
                _ => true,
            }
        })
    }
}
