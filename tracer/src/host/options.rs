//! Options on the command lines of VMMs.

use crate::host::process::{Arguments, Process};

/// Beginnings of the file name of QEMU.
pub(super) const QEMU: [&str; 2] = ["qemu", "kvm"];

impl Process {
    /// Whether its program's file name, or its comm, begins with one of these. The process chooses both.
    pub(super) fn runs(&self, programs: &[&str]) -> bool {
        let program = self.arguments.iter().next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        programs.iter().any(|p| program.starts_with(p) || self.comm.starts_with(p))
    }
}

/// The values of these options, the last first: the next argument, or the text after `=` in the same one.
pub(super) fn values<'a>(arguments: &'a Arguments, names: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let following = arguments.iter().skip(2).map(Some).chain([None]);
    let pairs: Vec<_> = arguments.iter().skip(1).zip(following).collect();
    pairs.into_iter().rev().filter_map(move |(argument, next)| {
        names.iter().find_map(|name| match argument.strip_prefix(name)? {
            "" => next,
            rest => rest.strip_prefix('='),
        })
    })
}

/// The last value of the first of these options that is there.
pub(super) fn option<'a>(arguments: &'a Arguments, names: &'static [&'static str]) -> Option<&'a str> {
    names.chunks(1).find_map(|name| values(arguments, name).next())
}

/// QEMU merges its `-name` options; the last guest in them names the VM.
pub(super) fn qemu_name(arguments: &Arguments) -> Option<String> {
    values(arguments, &["-name", "--name"]).find_map(guest_of_name_option)
}

/// The last guest in QEMU's `-name`: `web1`, `web1,debug-threads=on` or `debug-threads=on,guest=web1`. Two commas stand for one that belongs
/// to the name. None in an empty one, but an empty name in `guest=`.
pub(super) fn guest_of_name_option(value: &str) -> Option<String> {
    let mut guests = properties(value).into_iter().enumerate().filter_map(|(i, (key, name))| match key.as_deref() {
        Some("guest") => Some(name),
        None if i == 0 && !name.is_empty() => Some(name),
        _ => None,
    });
    guests.next_back()
}

/// A property of SMBIOS's system table (type 1) that QEMU gives its guest.
pub(super) fn smbios_system(arguments: &Arguments, key: &str) -> Option<String> {
    values(arguments, &["-smbios", "--smbios"]).find_map(|value| {
        let mut properties = properties(value);
        let of = |properties: &mut Vec<(Option<String>, String)>, key: &str| {
            let at = properties.iter().rposition(|(k, _)| k.as_deref() == Some(key))?;
            Some(properties.swap_remove(at).1)
        };
        (of(&mut properties, "type")? == "1").then(|| of(&mut properties, key))?
    })
}

/// The properties of one of QEMU's options, `a=b,c=d`, each with its key, if any. Two commas stand for one within a value.
fn properties(value: &str) -> Vec<(Option<String>, String)> {
    // NUL, which no argument has, stands for a doubled comma while the rest is split.
    let whole = |part: &str| part.replace('\0', ",");
    let value = value.replace(",,", "\0");
    let split = |property: &str| match property.split_once('=') {
        Some((key, value)) => (Some(whole(key)), whole(value)),
        None => (None, whole(property)),
    };
    value.split(',').map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_found_in_the_table_of_its_type_only() {
        // libvirt, tests/qemuxmlconfdata/smbios.x86_64-latest.args
        let cmdline = [
            "qemu",
            "-smbios",
            "type=0,vendor=LENOVO,version=6FET82WW (3.12 )",
            "-smbios",
            "type=1,manufacturer=Fedora,product=Virt-Manager,serial=32dfcb37-5af1-552b-357c-be8c3aa38310,sku=1,, 2",
            "-smbios",
            "type=2,manufacturer=Hewlett-Packard,product=0B4Ch",
        ];
        let arguments = Arguments::of_cmdline(cmdline.map(|a| format!("{a}\0")).concat().as_bytes());
        let of = |key| smbios_system(&arguments, key);
        assert_eq!((of("product").as_deref(), of("sku").as_deref()), (Some("Virt-Manager"), Some("1, 2")));
        assert_eq!((of("vendor"), of("asset")), (None, None));
    }
}
