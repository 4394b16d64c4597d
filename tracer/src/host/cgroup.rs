//! The cgroup that a manager which runs as root gave a VM. Whoever starts a VMM chooses its command line, but only root makes cgroups outside
//! of user.slice. Further down than below, users name cgroups as they like: in services and containers that have a subtree of their own.

/// A cgroup that a manager made for a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// a scope of libvirt below machine.slice
    Libvirt(Machine),
    /// a scope of Proxmox VE below qemu.slice: the number of the VM, by which its tools know it
    Proxmox(String),
    /// a pod of Kubernetes
    Pod(Pod),
    /// a folder of Kata Containers outside of pods: the id of the sandbox
    Kata(String),
    /// a folder of Firecracker's jailer: the id of the jail
    Jail(String),
}

/// A VM's name in the scope of libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// libvirt's driver, as qemu
    pub(super) driver: String,
    /// the name
    pub(super) name: String,
    /// characters that libvirt had for the name: 64, less those of its driver and the VM's id
    room: usize,
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// the pod's UID
    pub(super) uid: String,
    /// id of the container below it, or of the sandbox; none where there is none
    pub(super) container: Option<String>,
    /// the folder below it is one of Kata Containers
    pub(super) is_of_kata: bool,
}

/// The first of the process's cgroups that a manager made for a VM.
pub(super) fn unit(cgroup: &str) -> Option<Unit> {
    // "0::/machine.slice/machine-qemu\x2d1\x2dweb1.scope/libvirt/emulator", or a line for each controller of version 1.
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)?.strip_prefix('/'));
    paths.filter_map(|path| path.split_once('/')).find_map(|(first, rest)| {
        let mut rest = rest.split('/');
        match first {
            // libvirt's partitions are slices within it.
            "machine.slice" => {
                let unit = rest.find(|unit| !(unit.starts_with("machine-") && unit.ends_with(".slice")))?;
                machine(unit.strip_prefix("machine-")?.strip_suffix(".scope")?).map(Unit::Libvirt)
            }
            "qemu.slice" => {
                let number = rest.next()?.strip_suffix(".scope")?;
                is_number(number).then(|| Unit::Proxmox(number.to_owned()))
            }
            "kubepods" | "kubepods.slice" => pod(rest).map(Unit::Pod),
            // "$CGPATH is defined by the orchestrator", and ends with the sandbox's id.
            "kata_overhead" | "kata-overhead.slice" | "kata" => id_of_container(rest.next_back()?).map(Unit::Kata),
            // The jailer's default parent has the name of Firecracker's file, in which the jailer demands that word.
            _ if first.contains("firecracker") => {
                rest.next().filter(|id| is_word(id, "-")).map(|id| Unit::Jail(id.to_owned()))
            }
            _ => None,
        }
    })
}

/// The pod in the folders below kubepods.
fn pod<'a>(mut folders: impl Iterator<Item = &'a str>) -> Option<Pod> {
    let uid_of = |folder: &str| {
        // "kubepods-burstable-pod1c178021_5860_4495_a1ab_f9ac17877672.slice" of systemd, else "pod1c178021-...".
        let of_slice = folder.strip_suffix(".slice").and_then(|unit| unit.rsplit_once("-pod")).map(|(_, uid)| uid);
        let uid = of_slice.or_else(|| folder.strip_prefix("pod"))?.replace('_', "-");
        let is_uid = !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_uid.then_some(uid)
    };
    // A class of quality of service may stand before it.
    let uid = folders.by_ref().take(2).find_map(uid_of)?;
    let below = folders.next();
    let container = below.and_then(id_of_container);
    Some(Pod { uid, container, is_of_kata: below.is_some_and(|folder| folder.starts_with("kata_")) })
}

/// The id of a container or sandbox in the name of its cgroup: `ID`, `kata_ID`, `cri-containerd-ID.scope`, `crio-ID.scope`.
fn id_of_container(folder: &str) -> Option<String> {
    let unit = folder.strip_suffix(".scope").map(|unit| unit.rsplit_once('-').map_or(unit, |(_, id)| id));
    let id = unit.unwrap_or(folder);
    let id = id.strip_prefix("kata_").unwrap_or(id);
    is_word(id, "._-").then(|| id.to_owned())
}

/// Whether it has letters, digits and these signs only, and some: 128 at most.
pub(super) fn is_word(text: &str, signs: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(is_known)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Characters of a machine's name, with libvirt's driver and the VM's id, at most.
const MACHINE_NAME: usize = 64;

impl Machine {
    /// Whether libvirt makes this of a VM's name: it leaves out all but ASCII letters, digits, and single dots and hyphens between them
    /// (virDomainDriverGenerateMachineName).
    pub(super) fn may_be_of(&self, name: &str) -> bool {
        let mut made = String::new();
        let mut after_sign = true;
        for c in name.chars() {
            if made.len() >= self.room {
                break;
            }
            let is_sign = matches!(c, '.' | '-');
            if c.is_ascii_alphanumeric() || is_sign && !after_sign {
                made.push(c);
            }
            after_sign = is_sign;
        }
        made.trim_end_matches(['.', '-']) == self.name
    }
}

/// The VM in a scope of libvirt: `qemu\x2d1\x2dweb1` is VM `web1`, whose running id is 1.
fn machine(scope: &str) -> Option<Machine> {
    // The driver's name comes before the id; with the user's name before it in a user's own session.
    let machine = unescape_unit(scope);
    let mut words = machine.split('-');
    let mut driver = words.next()?.to_owned();
    loop {
        match words.next()? {
            id if is_number(id) => break,
            word => driver = word.to_owned(),
        }
    }
    let name: Vec<_> = words.collect();
    // Dots and hyphens at the end were left out.
    let name = name.join("-");
    let room = MACHINE_NAME.saturating_sub(machine.len() - name.len());
    (!name.is_empty()).then_some(Machine { driver, name, room })
}

/// Undoes systemd's escaping of unit names: `\x2d` is a hyphen.
fn unescape_unit(unit: &str) -> String {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match byte {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.extend(b"\\x");
                after
            }
        };
    }
    bytes.extend(rest.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_escapes_are_left_as_they_are() {
        assert_eq!(unescape_unit(r"a\x2db\x2"), r"a-b\x2");
        assert_eq!(unescape_unit(r"\xzz\x41"), r"\xzzA");
        assert_eq!(unescape_unit("\\x\u{e4}"), "\\x\u{e4}");
    }

    #[test]
    fn a_pods_container_is_the_folder_below_it_and_no_other() {
        let of = |path: &str| match unit(&format!("0::{path}\n")) {
            Some(Unit::Pod(pod)) => Some((pod.uid, pod.container.unwrap_or_default(), pod.is_of_kata)),
            _ => None,
        };
        let pod = |uid: &str, container: &str, is_of_kata| Some((uid.to_owned(), container.to_owned(), is_of_kata));
        assert_eq!(of("/kubepods/pod3a86/4f2a/kata_5e5e"), pod("3a86", "4f2a", false));
        assert_eq!(of("/kubepods/burstable/pod3a86"), pod("3a86", "", false));
        assert_eq!(
            of("/kubepods.slice/kubepods-pod3a_86.slice/crio-4f2a.scope/container"),
            pod("3a-86", "4f2a", false)
        );
        assert_eq!(of("/kubepods/besteffort/pod3a86/kata_4f2a"), pod("3a86", "4f2a", true));
        for none in
            ["/kubepods/burstable/x/pod3a86", "/kubepods/podweb1", "/kubepods/pod", "/kubepods", "/x/kubepods/pod3a86"]
        {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
