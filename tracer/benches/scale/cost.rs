//! What something takes: processor time of this thread, or of a thread of this process, and allocated memory.

use std::fs;

/// Processor time of this thread, ms.
pub fn thread_ms() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local that outlives the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Processor time of the thread of this process that is called like this, ms; 0 without such a thread.
pub fn ms_of_thread(name: &str) -> f64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path());
    let is_it = |comm: &str| comm.trim_end() == name;
    let mut named = threads.filter(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| is_it(&comm)));
    let Some(thread) = named.next() else { return 0.0 };
    let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap();
    schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// Bytes that are allocated, by glibc's own account.
pub fn allocated() -> usize {
    // SAFETY: a function without arguments.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Processor times of something that is done again and again, ms.
#[derive(Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// Does it once more.
    pub fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = thread_ms();
        let result = work();
        self.0.push(thread_ms() - before);
        result
    }

    /// Median and most.
    pub fn shown(&mut self) -> String {
        self.0.sort_by(f64::total_cmp);
        match self.0[..] {
            [] => "n/a: not done".into(),
            [.., most] => format!("{:.2} (most {most:.2})", self.0[self.0.len() / 2]),
        }
    }
}

/// Prints a result: its name, value, unit and condition.
pub fn row(name: &str, value: impl std::fmt::Display, unit: &str, condition: &str) {
    println!("{name:<38} {value:>24} {unit:<16} {condition}");
}
