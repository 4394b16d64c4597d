//! The user behind sudo: what root creates for him is his, so that reading it needs no root.

use std::{env, ffi::OsStr, fs::File};

use rustix::{
    fs::{Gid, Uid, fchown},
    process::{geteuid, getuid},
};

/// Gives a file that this process has just created to the user who called it by sudo. A file system without owners keeps it as it is.
pub(super) fn give(file: &File) {
    if let Some((user, group)) = caller() {
        let _ = fchown(file, Some(user), Some(group));
    }
}

/// Whether files of `user` are the caller's own: this process's, or those of the user behind sudo.
pub(super) fn is_own(user: u32) -> bool {
    user == geteuid().as_raw() || caller().is_some_and(|(caller, _)| caller.as_raw() == user)
}

/// Whether another user called this process by sudo.
pub(super) fn is_behind() -> bool {
    caller().is_some()
}

/// The user and group behind sudo; none where this process is not root's, or only by the set-user-ID bit: then the environment is that of a
/// user who must not be believed. Root may say what he wants: he could give the file away himself.
fn caller() -> Option<(Uid, Gid)> {
    let is_root = getuid().is_root() && geteuid().is_root();
    let of = |name: &str| id(&env::var_os(name)?);
    is_root.then(|| Some((Uid::from_raw(of("SUDO_UID")?), Gid::from_raw(of("SUDO_GID")?))))?
}

/// A user or group as sudo writes it: digits, and not the number that means "none" to chown(2).
fn id(text: &OsStr) -> Option<u32> {
    let digits = text.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn only_the_digits_of_a_user_are_one() {
        assert_eq!(id("1000".as_ref()), Some(1000));
        assert_eq!(id("0".as_ref()), Some(0));
        for no_user in ["", "-1", "+1", "1000 ", "root", "4294967295", "4294967296", "0x10"] {
            assert_eq!(id(no_user.as_ref()), None, "{no_user}");
        }
        assert_eq!(id(OsStr::from_bytes(b"1\xff")), None);
    }
}
