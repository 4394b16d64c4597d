//! The user that a command after `--` runs as, if not the caller.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    process::{Gid, Uid, geteuid, setsid},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::output::{MAX_NAME, printable};

/// A user's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    uid: Uid,
    gid: Gid,
    /// all groups, the first one too
    groups: Vec<Gid>,
}

impl User {
    /// Looks up a user by name or number. id(1) is asked, because a static program cannot use the host's name services.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let shown = printable(name, MAX_NAME);
        ensure!(geteuid().is_root(), "--user {shown}: only root can run a command as another user");
        let ask = |what: &str| -> Result<Vec<u32>> {
            let output = Command::new("id").args([what, "--", name]).output().context("--user: run id")?;
            let answer = String::from_utf8_lossy(&output.stdout);
            let ids: Option<Vec<u32>> = answer.split_whitespace().map(|id| id.parse().ok()).collect();
            match ids.filter(|ids| output.status.success() && !ids.is_empty()) {
                Some(ids) => Ok(ids),
                None => bail!("--user {shown}: there is no such user ('id {shown}' shows none)"),
            }
        };
        Ok(Self {
            uid: Uid::from_raw(ask("-u")?[0]),
            gid: Gid::from_raw(ask("-g")?[0]),
            groups: ask("-G")?.into_iter().map(Gid::from_raw).collect(),
        })
    }

    /// Lets a command run as this user, with this user's groups and (but for root) no capability, in a session of its own. Its environment and
    /// folder stay. As under `sudo -u`, programs that change the user (sudo, mount) do so as in the user's own shell.
    pub(crate) fn runs(self, command: &mut tokio::process::Command) {
        let Self { uid, gid, groups } = self;
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        let become_user = move || {
            // In the caller's session it could type into the caller's terminal (TIOCSTI, which Linux 6.2 can forbid).
            setsid()?;
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            // The kernel has done that already, unless the caller's secure bits say otherwise; inheritable ones it leaves. A program of root's
            // would get them back.
            if uid.is_root() { Ok(()) } else { Ok(set_capabilities(None, none)?) }
        };
        // SAFETY: the closure makes five system calls on values that exist already: it takes no lock and allocates nothing, so that the child
        // of a process with several threads may run it between fork and exec.
        unsafe { command.pre_exec(become_user) };
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

    use super::*;

    #[test]
    fn a_user_is_found_with_all_groups_by_name_or_number_and_a_stranger_is_refused() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root may run a command as another user");
            assert!(User::find("root").unwrap_err().to_string().contains("only root"));
            return;
        }
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (Uid::ROOT, Gid::ROOT));
        assert!(root.groups.contains(&Gid::ROOT));
        assert_eq!(User::find("0").unwrap(), root);
        for stranger in ["no-such-user-here", "-u", ""] {
            assert!(User::find(stranger).unwrap_err().to_string().contains("no such user"), "{stranger}");
        }
    }

    #[test]
    fn a_command_of_a_user_has_the_users_ids_and_no_capability_and_a_session_of_its_own() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root may run a command as another user");
            return;
        }
        let user = User::find("nobody").unwrap();
        let of_user = user.clone();
        // With secure bits by which the kernel lets a thread keep its capabilities when its user changes.
        let run = move || {
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut command = tokio::process::Command::new("cat");
                command.args(["/proc/self/status", "/proc/self/stat"]);
                of_user.runs(&mut command);
                command.output().await.unwrap()
            })
        };
        let output = std::thread::spawn(run).join().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let uid = user.uid.as_raw().to_string();
        assert_eq!(line("Uid:").split('\t').collect::<Vec<_>>(), [&uid[..]; 4]);
        assert_eq!(line("Groups:"), user.groups[0].as_raw().to_string());
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(line(set), "0".repeat(16), "{set}");
        }
        let stat: Vec<_> = status.lines().last().unwrap().split(' ').collect();
        assert_eq!((stat[0], stat[1]), (stat[5], "(cat)"), "it leads a session");
    }
}
