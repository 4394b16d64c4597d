//! Judges what tracing adds.

use super::{super::values::Overhead, Findings};

impl Findings {
    pub(super) fn overhead(&mut self, overhead: &Overhead) {
        let Overhead { exits, rounds, untraced_ns, modes, .. } = overhead;
        self.unless(*exits > 0 && *rounds > 0, "overhead has no exits or no rounds");
        self.unless(untraced_ns[0] > 0.0, "overhead.untraced_ns: an exit takes some time");
        self.rising("overhead.untraced_ns", untraced_ns.map(Some));
        for (at, mode) in modes.iter().enumerate() {
            let name = mode.aggregation.name();
            self.unless(
                modes[..at].iter().all(|other| other.aggregation != mode.aggregation),
                format!("overhead {name} is there twice"),
            );
            for values in [mode.vcpu_ns, mode.collector_ns, mode.speed] {
                self.rising(&format!("overhead {name}"), values.map(Some));
            }
            self.unless(mode.speed[0] > 0.0, format!("overhead {name}: a speed is not positive"));
            self.unless(
                mode.counted.saturating_add(mode.dropped) >= exits.saturating_mul(*rounds),
                format!("overhead {name} counts fewer entries than exits"),
            );
        }
    }
}
