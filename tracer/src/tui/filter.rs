//! The filter: which series pass the text that the user typed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tracer_common::Isa;

use super::{history::Slice, node::vcpu_name};
use crate::model::{exit_reasons::name_or_unknown, series::Key};

/// Selects the series whose VM, vCPU or exit reason has the filter's text in its name.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// none without a filter
    chosen: Option<Chosen>,
}

#[derive(Clone, Debug, Default)]
struct Chosen {
    vms: HashSet<u32>,
    vcpus: HashSet<u32>,
    reasons: HashSet<(Isa, Option<u32>)>,
}

impl Matcher {
    /// From the filter's text; case is ignored.
    pub fn new<'a>(text: &str, slices: impl Iterator<Item = &'a Arc<Slice>>, names: &HashMap<u32, String>) -> Self {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return Self::default();
        }
        let matches = |name: &str| name.to_lowercase().contains(&text);
        let (mut vcpus, mut reasons) = (BTreeSet::new(), BTreeSet::new());
        for (key, _) in slices.flat_map(|s| &s.keys) {
            vcpus.insert(key.vcpu);
            reasons.insert((key.isa, key.reason));
        }
        let chosen = Chosen {
            vms: names.iter().filter(|(_, name)| matches(name)).map(|(id, _)| *id).collect(),
            vcpus: vcpus.into_iter().filter(|v| matches(&vcpu_name(*v))).collect(),
            reasons: reasons.into_iter().filter(|&(isa, reason)| matches(&name_or_unknown(isa, reason))).collect(),
        };
        Self { chosen: Some(chosen) }
    }

    /// Whether every series passes, because there is no filter.
    pub(super) fn passes_all(&self) -> bool {
        self.chosen.is_none()
    }

    /// Whether a series passes.
    pub fn passes(&self, key: &Key) -> bool {
        self.chosen.as_ref().is_none_or(|c| {
            c.vms.contains(&key.vm) || c.vcpus.contains(&key.vcpu) || c.reasons.contains(&(key.isa, key.reason))
        })
    }
}
