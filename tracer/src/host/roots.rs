//! Folders that this host's files are read from, so that a test can make a host up.

use std::path::PathBuf;

/// Root folders of the kernel's and the system's files.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// /proc
    pub(crate) proc: PathBuf,
    /// /sys
    pub(crate) sys: PathBuf,
    /// /dev
    pub(crate) dev: PathBuf,
    /// /run
    pub(crate) run: PathBuf,
    /// /lib/modules
    pub(crate) lib_modules: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            dev: "/dev".into(),
            run: "/run".into(),
            lib_modules: "/lib/modules".into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Hosts made up in a temporary folder, removed at the end.

    use std::fs;

    use tempfile::TempDir;

    use super::Roots;

    pub(crate) struct Folder {
        folder: TempDir,
        pub(crate) roots: Roots,
    }

    impl Folder {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let below = |name| folder.path().join(name);
            let roots = Roots {
                proc: below("proc"),
                sys: below("sys"),
                dev: below("dev"),
                run: below("run"),
                lib_modules: below("lib/modules"),
            };
            fs::create_dir_all(below("run")).unwrap();
            Self { folder, roots }
        }

        /// Writes a file and the folders that it is in.
        pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        /// Makes a symbolic link and the folders that it is in.
        pub(crate) fn link(&self, path: &str, target: &str) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }

        pub(crate) fn read(&self, path: &str) -> String {
            fs::read_to_string(self.folder.path().join(path)).unwrap()
        }

        pub(crate) fn has(&self, path: &str) -> bool {
            self.folder.path().join(path).exists()
        }
    }
}
