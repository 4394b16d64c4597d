//! eBPF objects in the kernel: those that a process holds, and those of vmentry that no process holds any more.

use std::{collections::BTreeSet, fs};

use aya::{maps::loaded_maps, programs::loaded_programs};

/// Ids of eBPF objects.
#[derive(Debug, Default)]
pub struct Objects {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

/// The objects that a process holds by file descriptors; none of a process that is gone.
pub fn held_by(process: u32) -> Objects {
    let mut objects = Objects::default();
    for descriptor in fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(":\t") else { continue };
            let ids = match name {
                "prog_id" => &mut objects.programs,
                "map_id" => &mut objects.maps,
                "link_id" => &mut objects.links,
                _ => continue,
            };
            ids.extend(value.trim().parse::<u32>());
        }
    }
    objects
}

const PROGRAMS: [&str; 2] = ["kvm_entry", "kvm_exit"];
const MAPS: [&str; 9] = ["STATES", "COUNTERS", "RECORDS", "TAKEN", "SERIES", "WAKE", "SITES", "TGIDS", "VCPU_IDS"];

/// Programs and maps with names of vmentry's that no running process holds. A link keeps its program alive, so that a link is found by it.
pub fn left_behind() -> Vec<String> {
    let candidates: Vec<(bool, u32, String)> = loaded_programs()
        .flatten()
        .map(|p| (true, p.id(), p.name_as_str().unwrap_or_default().to_owned()))
        .chain(loaded_maps().flatten().map(|m| (false, m.id(), m.name_as_str().unwrap_or_default().to_owned())))
        .filter(|(is_program, _, name)| {
            if *is_program { PROGRAMS.iter().any(|program| name.starts_with(program)) } else { MAPS.contains(&&**name) }
        })
        .collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    let (mut programs, mut maps) = (BTreeSet::new(), BTreeSet::new());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    for process in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let held = held_by(process);
        programs.extend(held.programs);
        maps.extend(held.maps);
    }
    let is_held = |is_program: bool, id: &u32| if is_program { programs.contains(id) } else { maps.contains(id) };
    let orphans = candidates.into_iter().filter(|(is_program, id, _)| !is_held(*is_program, id));
    orphans
        .map(|(is_program, id, name)| format!("{} {id} {name}", if is_program { "program" } else { "map" }))
        .collect()
}
