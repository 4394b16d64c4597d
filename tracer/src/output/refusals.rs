//! Causes and fixes of files that cannot or must not be written, of which an errno alone says nothing.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::printable::shown;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The properties of a file or folder that decide who may open what is in a shared folder.
#[derive(Clone, Copy)]
struct Owned {
    uid: u32,
    mode: u32,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), mode: metadata.mode() }
    }
}

impl Owned {
    /// Whether the kernel keeps `user`, even root, from following the symbolic link `inside` in this folder: a sticky folder that others may
    /// write to, where the link belongs neither to `user` nor to the folder's owner (Linux 3.6).
    fn protects(self, inside: Self, user: u32) -> bool {
        let shared = self.mode & STICKY != 0 && self.mode & WRITABLE_BY_OTHERS != 0;
        shared && inside.uid != user && inside.uid != self.uid
    }
}

/// The error of opening `path` for writing, with its cause and fix where they can be told.
pub(crate) fn explain(path: &Path, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let link = link_in_shared_folder(path, rustix::process::geteuid().as_raw());
            Some(link.unwrap_or_else(|| "choose a folder that you may write to, or use sudo".into()))
        }
        io::ErrorKind::IsADirectory => {
            Some(format!("it is a folder: name a file in it, such as {}", shown(&path.join("NAME"))))
        }
        io::ErrorKind::NotADirectory => Some("a part of its path is a file: choose a folder".into()),
        io::ErrorKind::AlreadyExists => Some("there is something of this name: choose another name".into()),
        io::ErrorKind::ReadOnlyFilesystem => Some("choose a folder of another file system".into()),
        io::ErrorKind::NotFound => Some("its folder does not exist: create it, or choose another one".into()),
        _ => None,
    };
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Whether a file is on a file system whose files are the kernel's: their length says nothing, and writing to them does something.
pub(super) fn is_kernels(file: &File) -> bool {
    // From linux/magic.h, and the sources of those that are not there (configfs, fusectl, mqueue, rpc_pipefs).
    const MAGIC: [i64; 20] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x0765_5821, // resctrl
        0x6265_6570, // configfs
        0xcafe_4a11, // bpf
        0x6e73_6673, // nsfs
        0xf97c_ff8c, // selinuxfs
        0x4341_5d53, // smackfs
        0x6165_676c, // pstore
        0xde5e_81e4, // efivarfs
        0x4249_4e4d, // binfmt_misc
        0x6573_5543, // fusectl
        0x1980_0202, // mqueue
        0x6759_6969, // rpc_pipefs
        0xabba_1974, // xenfs
    ];
    rustix::fs::fstatfs(file).is_ok_and(|file_system| MAGIC.contains(&file_system.f_type))
}

/// Whether a file is mounted over another one (Linux 5.8): then no other file can take its name.
pub(super) fn is_mount_point(file: &File) -> bool {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The link on the way to `path` that fs.protected_symlinks refuses to `user`, and the fix.
fn link_in_shared_folder(path: &Path, user: u32) -> Option<String> {
    let folder_of = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").metadata().ok(),
        parent => parent?.metadata().ok(),
    };
    path.ancestors().skip(1).find_map(|link| {
        let (metadata, folder) = (link.symlink_metadata().ok()?, folder_of(link)?);
        let refused = metadata.is_symlink() && Owned::from(&folder).protects(Owned::from(&metadata), user);
        refused.then(|| {
            format!(
                "{} is a symbolic link of user {} in a shared (sticky) folder, which fs.protected_symlinks lets only the owner follow: \
                 name the folder that it points to",
                shown(link),
                metadata.uid()
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    #[test]
    fn a_shared_folder_protects_against_the_links_of_others_even_root() {
        let of = |uid, mode| Owned { uid, mode };
        let (root, user) = (0, 1000);
        let shared = of(root, 0o41777);
        assert!(shared.protects(of(user, 0o120_777), root));
        assert!(!shared.protects(of(root, 0o120_777), root), "its own");
        assert!(!shared.protects(of(root, 0o120_777), user), "of the folder's owner");
        assert!(!of(root, 0o40777).protects(of(user, 0o120_777), root), "not sticky");
        assert!(!of(root, 0o41755).protects(of(user, 0o120_777), root), "not shared");
        assert!(of(root, 0o41775).protects(of(user, 0o120_777), root), "shared with a group");
    }

    #[test]
    fn the_setting_is_named_with_its_cause_and_fix() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (real, link) = (dir.join("real"), dir.join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o1777)).unwrap();
        let me = dir.metadata().unwrap().uid();
        // As a user sees it who owns neither: then the owner of all is also the folder's, whom nobody needs protection from.
        assert_eq!(link_in_shared_folder(&link.join("a.hlog"), me + 1), None);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(4321), None).unwrap();
            let why = link_in_shared_folder(&link.join("a.hlog"), me).unwrap();
            assert!(why.contains("fs.protected_symlinks") && why.contains("user 4321"), "{why}");
        }
    }

    #[test]
    fn each_error_that_a_user_can_mend_has_its_fix_and_a_full_disk_stays_as_it_is() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(explain(Path::new("/tmp/a"), &full), full.to_string());
        for (errno, fix) in [
            (libc::EISDIR, "name a file in it, such as /tmp/a/NAME"),
            (libc::EACCES, "use sudo"),
            (libc::EEXIST, "choose another name"),
            (libc::ENOTDIR, "choose a folder"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert!(explain(Path::new("/tmp/a"), &error).ends_with(fix), "{}", explain(Path::new("/tmp/a"), &error));
        }
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(explain(Path::new("/no/folder/a"), &missing).contains("folder does not exist"));
    }
}
