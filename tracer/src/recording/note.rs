//! The comment lines: VMs, the end of an interval, the end of the recording. JSON behind a '#'.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::header::{End, Label};
use crate::model::{interval::Vm, totals::Totals};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    Vm(Vm),
    Interval {
        start_ns: u64,
        length_ns: u64,
        totals: Box<Totals>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Label>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<u32>,
    },
    End(End),
}

/// Appends a note as a line.
pub(crate) fn append(text: &mut Vec<u8>, note: &Note) -> Result<()> {
    text.push(b'#');
    serde_json::to_writer(&mut *text, note)?;
    text.push(b'\n');
    Ok(())
}
