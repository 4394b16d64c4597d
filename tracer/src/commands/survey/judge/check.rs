//! Judges the proof: a guest's exits, and the entries that arrived.

use super::{super::values::Proof, Findings};

impl Findings {
    pub(super) fn proof(&mut self, proof: &Proof) {
        let Proof { passed, exits, entries, dropped, cpuid, .. } = *proof;
        self.unless(passed, "check did not pass: 'vmentry check' says why, and no other figure counts");
        let arrived = entries.saturating_add(dropped);
        self.unless(!passed || arrived >= exits, "check passed with fewer entries than exits");
        self.unless(exits > 0, "check has no exits");
        let within = [cpuid, proof.with_reason, proof.with_level, proof.with_pin_writes];
        self.unless(within.into_iter().all(|part| part <= entries), "check has more of a kind than entries");
        self.unless(cpuid <= exits, "check has more CPUID exits than the guest made");
    }
}
