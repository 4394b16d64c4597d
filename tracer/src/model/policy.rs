//! The timer policy: how KVM disables the VMX-preemption timer.

use serde::{Deserialize, Serialize};

/// The timer policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// the timer is left running and loaded with the longest timer delay (Linux 5.3 and later)
    Soft,
    /// the timer's bit in the pin controls is toggled
    Hard,
    /// KVM does not use the preemption timer
    Off,
    /// no VMX, or not known
    Unknown,
}

impl Policy {
    /// Every one.
    pub(crate) const ALL: [Policy; 4] = [Self::Soft, Self::Hard, Self::Off, Self::Unknown];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }

    /// The policy of this name; none for any other text.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}
