//! Chooses the CPU for the guest's thread and pins the thread to it.

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Returns the requested CPU if this process may run on it. Without a request, returns the last such CPU, because interrupts tend
/// to be handled on the first.
pub(crate) fn choose_cpu(requested: Option<u32>) -> Result<u32> {
    let allowed = allowed_cpus()?;
    match requested {
        Some(cpu) if allowed.contains(&cpu) => Ok(cpu),
        Some(cpu) => {
            let list: Vec<_> = allowed.iter().map(u32::to_string).collect();
            bail!("--cpu {cpu}: this process may run only on CPU {}", list.join(","))
        }
        None => allowed.last().copied().context("this process may run on no CPU"),
    }
}

fn allowed_cpus() -> Result<Vec<u32>> {
    let set = sched_getaffinity(None).context("get the CPU affinity of this process")?;
    let cpus = 0..u32::try_from(CpuSet::MAX_CPU)?;
    Ok(cpus.filter(|&cpu| set.is_set(cpu as usize)).collect())
}

/// Pins the calling thread.
pub(crate) fn pin_to(cpu: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    sched_setaffinity(None, &set).with_context(|| format!("pin the vCPU's thread to CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_cpu_that_is_not_allowed_is_refused_with_the_allowed_ones() {
        let allowed = allowed_cpus().unwrap();
        assert_eq!(choose_cpu(None).unwrap(), *allowed.last().unwrap());
        let error = choose_cpu(Some(1023)).unwrap_err().to_string();
        assert!(error.contains("--cpu 1023") && error.contains(&allowed[0].to_string()), "{error}");
    }

    #[test]
    fn a_pinned_thread_runs_on_its_cpu() {
        let cpu = choose_cpu(None).unwrap();
        let pinned = thread::spawn(move || {
            pin_to(cpu).unwrap();
            allowed_cpus().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [cpu]);
    }
}
