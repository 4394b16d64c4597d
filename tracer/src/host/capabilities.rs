//! Capabilities that a thread gives up for good. Each thread has its own; a new one gets those of the thread that starts it.

use anyhow::{Context, Result};
pub(crate) use rustix::thread::CapabilitySet;
use rustix::thread::{
    CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up all capabilities of the calling thread but those of `keep` that it has: effective, permitted, inheritable and ambient ones,
/// and, as CAP_SETPCAP is needed for that, those of the bounding set where it has this capability.
pub(crate) fn keep_only(keep: CapabilitySet) -> Result<()> {
    let held = capabilities(None).context("read this thread's capabilities")?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        limit_bounding_set(keep).context("give up capabilities of the bounding set")?;
    }
    clear_ambient_capability_set().context("give up ambient capabilities")?;
    let kept = CapabilitySets {
        effective: held.effective & keep,
        permitted: held.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).context("give up capabilities")
}

fn limit_bounding_set(keep: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // Beyond the last capability of this kernel it is an error.
        let Ok(has) = capability_is_in_bounding_set(capability) else { break };
        if has && !keep.contains(capability) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_only_what_it_had_of_what_it_names_and_others_keep_all() {
        let before = capabilities(None).unwrap();
        let keep = CapabilitySet::CHOWN | CapabilitySet::KILL;
        let after = std::thread::spawn(move || {
            keep_only(keep).unwrap();
            let kept = capabilities(None).unwrap();
            // A thread that it starts has no more.
            assert_eq!(std::thread::spawn(|| capabilities(None).unwrap()).join().unwrap(), kept);
            keep_only(CapabilitySet::empty()).unwrap();
            assert_eq!(capabilities(None).unwrap().permitted, CapabilitySet::empty());
            kept
        });
        let after = after.join().unwrap();
        assert_eq!((after.permitted, after.inheritable), (before.permitted & keep, CapabilitySet::empty()));
        assert_eq!(after.effective, before.effective & keep);
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
