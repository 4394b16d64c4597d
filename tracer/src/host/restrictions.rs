//! What the kernel lets this process do: its capabilities, and kernel lockdown.

use crate::host::{process::text, roots::Roots};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Whether the capabilities in /proc/self/status are enough to load programs.
pub(super) fn may_trace(status: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective >> cap & 1 != 0;
    has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON)
}

/// The lockdown mode. A pod has no securityfs, but the kernel's command line.
pub(super) fn lockdown(roots: &Roots) -> Option<String> {
    if let Ok(modes) = text(&roots.sys.join("kernel/security/lockdown")) {
        return chosen(&modes);
    }
    let cmdline = text(&roots.proc.join("cmdline")).ok()?;
    Some(cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix("lockdown="))?.to_owned())
}

/// The bracketed word of "none [integrity] confidentiality".
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    #[test]
    fn tracing_needs_two_capabilities_or_cap_sys_admin() {
        let status = |caps: &[u32]| {
            let bits = caps.iter().fold(0u64, |b, c| b | 1 << c);
            format!("Name:\tx\nCapEff:\t{bits:016x}\n")
        };
        assert!(may_trace(&status(&[CAP_SYS_ADMIN])));
        assert!(may_trace(&status(&[CAP_BPF, CAP_PERFMON])));
        assert!(!may_trace(&status(&[CAP_BPF])));
        assert!(!may_trace(""));
    }

    #[test]
    fn without_securityfs_the_kernels_command_line_tells_the_lockdown_mode() {
        let host = Folder::new();
        assert_eq!(lockdown(&host.roots), None);
        host.write("proc/cmdline", "quiet lockdown=integrity lockdown=confidentiality\n");
        assert_eq!(lockdown(&host.roots).as_deref(), Some("confidentiality"));
        host.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        assert_eq!(lockdown(&host.roots).as_deref(), Some("integrity"));
    }

    #[test]
    fn the_lockdown_mode_is_the_word_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality").as_deref(), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }
}
