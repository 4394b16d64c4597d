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

    use std::{
        fs,
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::Roots;

    pub(crate) struct Folder {
        path: PathBuf,
        pub(crate) roots: Roots,
    }

    impl Folder {
        pub(crate) fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let name = format!("vmentry-host-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
            let path = std::env::temp_dir().join(name);
            let below = |name| path.join(name);
            let roots = Roots {
                proc: below("proc"),
                sys: below("sys"),
                dev: below("dev"),
                run: below("run"),
                lib_modules: below("lib/modules"),
            };
            fs::create_dir_all(below("run")).unwrap();
            Self { path, roots }
        }

        /// Writes a file and the folders that it is in.
        pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
            let path = self.path.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        /// Makes a symbolic link and the folders that it is in.
        pub(crate) fn link(&self, path: &str, target: &str) {
            let path = self.path.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }

        pub(crate) fn read(&self, path: &str) -> String {
            fs::read_to_string(self.path.join(path)).unwrap()
        }

        pub(crate) fn has(&self, path: &str) -> bool {
            self.path.join(path).exists()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
