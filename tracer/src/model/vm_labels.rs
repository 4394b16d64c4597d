//! Labels of a VM: what its manager knows it by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Keys of the labels that are found without a rule file.
pub(crate) const KEYS: [&str; 9] =
    ["manager", "uuid", "namespace", "vmi", "pod_uid", "sandbox", "instance", "vmid", "jail"];
/// Most labels of a VM: those of [`KEYS`], and those of a rule file.
const MOST: usize = KEYS.len() + 64;

/// Labels of a VM by key. One that is not known is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct VmLabels(BTreeMap<String, String>);

impl VmLabels {
    /// The value of a key; none where it is not known.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Adds a label, unless its value is empty, or the key has one, or there are too many.
    pub(crate) fn add(&mut self, key: &str, value: String) {
        if !value.is_empty() && self.0.len() < MOST {
            self.0.entry(key.to_owned()).or_insert(value);
        }
    }

    /// The keys in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, String>> for VmLabels {
    /// Those of a recording, of which a hostile one may hold any number.
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self(labels.into_iter().filter(|(_, value)| !value.is_empty()).take(MOST).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key_counts_and_an_empty_one_is_none() {
        let mut labels = VmLabels::default();
        labels.add("uuid", String::new());
        assert!(labels.is_empty() && labels.get("uuid").is_none());
        labels.add("uuid", "a".into());
        labels.add("uuid", "b".into());
        assert_eq!(labels.get("uuid"), Some("a"));
    }

    #[test]
    fn a_recording_can_give_a_vm_so_many_labels_and_no_more() {
        let many: BTreeMap<_, _> = (0..1000).map(|n| (format!("k{n:04}"), "v".to_owned())).collect();
        let mut read: VmLabels = serde_json::from_value(serde_json::json!(many)).unwrap();
        assert_eq!((read.0.len(), read.get("k0000"), read.get("k0999")), (MOST, Some("v"), None));
        read.add("more", "v".into());
        assert_eq!(read.get("more"), None);
        assert_eq!(serde_json::from_str::<VmLabels>(r#"{"a":""}"#).unwrap(), VmLabels::default());
    }
}
