//! Causes and fixes of files that the kernel does not let even root open, of which an errno alone says nothing.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

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
    /// Whether the kernel protects the owner of what is in this folder, `inside`, against `user`, even if that is root: a sticky folder
    /// that others may write to, where `inside` belongs neither to `user` nor to the folder's owner (Linux 3.6 for symbolic links, 4.19
    /// for files and FIFOs).
    fn protects(self, inside: Self, user: u32) -> bool {
        let shared = self.mode & STICKY != 0 && self.mode & WRITABLE_BY_OTHERS != 0;
        shared && inside.uid != user && inside.uid != self.uid
    }
}

/// The error of opening `path` for writing, with its cause and fix where they can be told.
pub(super) fn explain(path: &Path, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::PermissionDenied => in_shared_folder(path, rustix::process::geteuid().as_raw()),
        io::ErrorKind::ReadOnlyFilesystem => Some("choose a folder of another file system".into()),
        io::ErrorKind::NotFound => Some("its folder does not exist: create it, or choose another one".into()),
        _ => None,
    };
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The setting of fs.protected_* that refuses `path` to `user`, and the fix.
fn in_shared_folder(path: &Path, user: u32) -> Option<String> {
    let folder_of = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").metadata().ok(),
        parent => parent?.metadata().ok(),
    };
    if let (Ok(file), Some(folder)) = (path.symlink_metadata(), folder_of(path))
        && Owned::from(&folder).protects(Owned::from(&file), user)
    {
        let setting = if file.file_type().is_fifo() { "fs.protected_fifos" } else { "fs.protected_regular" };
        return Some(format!(
            "it belongs to user {}, and the folder is shared (sticky), where {setting} lets only the owner write to it: choose \
             another name, or remove the file first",
            file.uid()
        ));
    }
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
    fn a_shared_folder_protects_the_files_of_others_even_against_root() {
        let of = |uid, mode| Owned { uid, mode };
        let (root, user) = (0, 1000);
        let shared = of(root, 0o41777);
        assert!(shared.protects(of(user, 0o100_666), root));
        assert!(!shared.protects(of(root, 0o100_600), root), "its own");
        assert!(!shared.protects(of(root, 0o100_666), user), "of the folder's owner");
        assert!(!of(root, 0o40777).protects(of(user, 0o100_666), root), "not sticky");
        assert!(!of(root, 0o41755).protects(of(user, 0o100_666), root), "not shared");
        assert!(of(root, 0o41775).protects(of(user, 0o100_666), root), "shared with a group");
    }

    #[test]
    fn the_setting_is_named_with_its_cause_and_fix() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (file, real, link) = (dir.join("a.hlog"), dir.join("real"), dir.join("link"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o1777)).unwrap();
        let me = dir.metadata().unwrap().uid();
        // As a user sees it who owns neither: then the owner of all is also the folder's, whom nobody needs protection from.
        assert_eq!(in_shared_folder(&file, me + 1), None);
        if rustix::process::geteuid().is_root() {
            for path in [&file, &link] {
                std::os::unix::fs::lchown(path, Some(4321), None).unwrap();
            }
            let why = in_shared_folder(&file, me).unwrap();
            assert!(why.contains("user 4321") && why.contains("fs.protected_regular"), "{why}");
            let why = in_shared_folder(&link.join("a.hlog"), me).unwrap();
            assert!(why.contains("fs.protected_symlinks") && why.contains("link"), "{why}");
        }
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(explain(Path::new("/tmp/a"), &full), full.to_string());
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(explain(Path::new("/no/folder/a"), &missing).contains("folder does not exist"));
    }
}
