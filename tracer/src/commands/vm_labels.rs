//! The labels of `--vm-labels`, for `export` and `report --format openmetrics`.

use anyhow::Result;

use crate::{
    commands::usage::refuse,
    export::vm_label::VmLabel,
    model::suggestion::did_you_mean,
    output::{MAX_NAME, printable},
};

/// The labels that identify VMs besides their names. `others` are those that are known here beyond the managers', and `from` says from where.
pub(super) fn vm_labels<'a>(
    names: &[String],
    others: impl IntoIterator<Item = &'a str>,
    from: &str,
) -> Result<Vec<VmLabel>> {
    let mut known: Vec<&str> = VmLabel::names().collect();
    known.extend(others.into_iter().filter(|other| VmLabel::names().all(|name| name != *other)));
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let (shown, meant) = (printable(name, MAX_NAME), did_you_mean(name, &known));
        return refuse(format!("--vm-labels {shown}: no such label: {meant}write {}, {from}", known.join(", ")));
    }
    let mut labels: Vec<_> = names.iter().filter_map(|name| VmLabel::named(name)).collect();
    labels.sort();
    labels.dedup();
    Ok(labels)
}
