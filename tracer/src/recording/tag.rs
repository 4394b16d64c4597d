//! The tag of a histogram's line: which series and figure it is.

use tracer_common::{Isa, rules::TimerCause};

use crate::model::{
    figures::Figure,
    series::{EntryKind, Key, Level},
};

/// The tag of a figure of a series.
pub(crate) fn tag(key: &Key, figure: Figure) -> String {
    let isa = match key.isa {
        Isa::Vmx => "vmx",
        Isa::Svm => "svm",
        Isa::Other => "other",
    };
    let reason = key.reason.map_or("unknown".to_owned(), |r| r.to_string());
    let mut tag = format!(
        "vm={};vcpu={};level={};isa={isa};reason={reason};entry={};",
        key.vm,
        key.vcpu,
        key.level.name(),
        key.entry.name(),
    );
    if let Some(cause) = key.cause {
        tag += &format!("cause={};", cause.name());
    }
    tag + "figure=" + figure.name()
}

/// From [`tag`]; none for anything that this version does not write.
pub(crate) fn parse_tag(tag: &str) -> Option<(Key, Figure)> {
    let mut key = Key {
        vm: 0,
        vcpu: 0,
        level: Level::Unknown,
        isa: Isa::Other,
        reason: None,
        entry: EntryKind::Unknown,
        cause: None,
    };
    let mut figure = None;
    for part in tag.split(';') {
        let (name, value) = part.split_once('=')?;
        match name {
            "vm" => key.vm = value.parse().ok()?,
            "vcpu" => key.vcpu = value.parse().ok()?,
            "level" => key.level = Level::parse(value)?,
            "isa" => {
                key.isa = match value {
                    "vmx" => Isa::Vmx,
                    "svm" => Isa::Svm,
                    "other" => Isa::Other,
                    _ => return None,
                }
            }
            "reason" if value == "unknown" => key.reason = None,
            "reason" => key.reason = Some(value.parse().ok()?),
            "entry" => key.entry = EntryKind::parse(value)?,
            "cause" => key.cause = Some(TimerCause::ALL.into_iter().find(|c| c.name() == value)?),
            "figure" => figure = Some(Figure::parse(value)?),
            // A later version of the format may tell series further apart: it must raise VERSION then.
            _ => return None,
        }
    }
    Some((key, figure?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_way_through_the_file() {
        let key = Key {
            vm: 7,
            vcpu: 3,
            level: Level::L2,
            isa: Isa::Vmx,
            reason: Some(0x8000_0021),
            entry: EntryKind::Dirty,
            cause: Some(TimerCause::Spurious),
        };
        assert_eq!(parse_tag(&tag(&key, Figure::PinWrites)), Some((key, Figure::PinWrites)));
        let unknown = Key { reason: None, cause: None, ..key };
        assert_eq!(parse_tag(&tag(&unknown, Figure::Transition)), Some((unknown, Figure::Transition)));
        assert_eq!(parse_tag("vm=1;color=red;figure=pin_writes"), None);
        assert_eq!(parse_tag("vm=1;figure=x"), None);
    }
}
