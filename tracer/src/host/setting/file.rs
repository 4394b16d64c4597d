//! One file of the kernel's that holds a value: found without leaving /sys and /proc/sys, read, written, read back.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    host::roots::Roots,
    output::{MAX_NAME, printable, shown},
};

/// Most bytes of a value.
pub(super) const MOST_VALUE: usize = 1024;

/// File systems of the kernel's, by the magic number of statfs(2): sysfs, procfs, both versions of cgroups.
const KERNELS: [i64; 4] =
    [libc::SYSFS_MAGIC, libc::PROC_SUPER_MAGIC, libc::CGROUP_SUPER_MAGIC, libc::CGROUP2_SUPER_MAGIC];

/// A file below /sys or /proc/sys, on a file system of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelFile {
    /// without links
    path: PathBuf,
    /// the folder that the file is below: /sys or /proc/sys
    root: PathBuf,
}

/// The content of a kernel's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// the value in force
    pub(super) now: String,
    /// the values of a file that lists them all, e.g. "always [madvise] never"; empty for other files
    pub(super) choices: Vec<String>,
}

impl KernelFile {
    /// The file that a path leads to. Its links are followed, which sysfs has many of, but not out of /sys and /proc/sys.
    pub(super) fn find(roots: &Roots, path: &Path) -> Result<Self> {
        let name = shown(path);
        let real = path.canonicalize().with_context(|| format!("find {name}"))?;
        let Some(root) = roots_of(roots).find(|root| real.starts_with(root)) else {
            bail!("{name} leads to {}, out of /sys and /proc/sys", shown(&real));
        };
        ensure!(real.to_str().is_some(), "{name}: the path is not UTF-8");
        let file = Self { path: real, root };
        let about = file.path.metadata().with_context(|| format!("find {name}"))?;
        ensure!(about.is_file(), "{name} is no file");
        Ok(file)
    }

    /// The file that a note names: exactly there, and through no link. It may be gone.
    pub(super) fn of_note(roots: &Roots, path: &str) -> Option<Self> {
        let path = PathBuf::from(path);
        let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let root = roots_of(roots).find(|root| path.starts_with(root) && path != *root)?;
        let is_same = path.canonicalize().map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |real| real == path);
        (is_plain && is_same).then_some(Self { path, root })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's path as text, which it is by construction.
    pub(super) fn text(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Whether the file is not there any more: its module was unloaded, its control group removed.
    pub(super) fn is_gone(&self) -> bool {
        self.path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether nobody may write the file, which the kernel then refuses even to root.
    pub(super) fn is_read_only(&self) -> bool {
        self.path.metadata().is_ok_and(|about| about.mode() & 0o222 == 0)
    }

    pub(super) fn read(&self) -> io::Result<Content> {
        let mut bytes = Vec::new();
        let file = self.open(OpenOptions::new().read(true))?;
        file.take(MOST_VALUE as u64 + 1).read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text"))?;
        content(&text).map_err(io::Error::other)
    }

    /// Writes a value, and reads it back.
    pub(super) fn set(&self, value: &str) -> Result<()> {
        let (name, shown) = (shown(&self.path), printable(value, MAX_NAME));
        self.write(value).with_context(|| format!("write {shown} to {name}"))?;
        let now = self.read().with_context(|| format!("read {name}"))?.now;
        ensure!(
            is_same(&now, value),
            "write {shown} to {name}: it reads {0} afterwards\n  -> choose a value that the kernel takes as it is, e.g. {0}",
            printable(&now, MAX_NAME)
        );
        Ok(())
    }

    fn write(&self, value: &str) -> io::Result<()> {
        let mut file = self.open(OpenOptions::new().write(true))?;
        // As the shell's '>' does. A file of the kernel's has no length, but that of a made-up host has.
        let _ = file.set_len(0);
        file.write_all(value.as_bytes())
    }

    /// Opens the file through no link and without waiting; fails unless it is a regular file on a file system of the kernel's.
    fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.path)?;
        let kind = rustix::fs::fstatfs(&file)?.f_type;
        // The folders of a made-up host are on another file system.
        let is_kernels = KERNELS.contains(&kind) || rustix::fs::statfs(&self.root)?.f_type == kind;
        if file.metadata()?.is_file() && is_kernels {
            return Ok(file);
        }
        Err(io::Error::other("it is no file of sysfs, of /proc/sys or of a control group"))
    }
}

/// The folders that files may be below, without links.
fn roots_of(roots: &Roots) -> impl Iterator<Item = PathBuf> {
    [roots.sys.clone(), roots.proc.join("sys")].into_iter().filter_map(|root| root.canonicalize().ok())
}

/// The value and the choices in a file's text; the reason where it is not one value.
fn content(text: &str) -> Result<Content, String> {
    let text = text.strip_suffix('\n').unwrap_or(text).trim_end_matches(' ');
    if text.len() > MOST_VALUE {
        return Err(format!("it has more than {MOST_VALUE} bytes, and only files of one value can be switched"));
    }
    if text.is_empty() {
        return Err("it is empty, which cannot be restored".into());
    }
    let lines = text.lines().count();
    if lines > 1 {
        return Err(format!("it has {lines} lines, and only files of one value can be switched"));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let bracketed = |word: &&str| word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).map(str::to_owned);
    let mut chosen = words.iter().filter_map(bracketed);
    let (Some(now), None) = (chosen.next(), chosen.next()) else {
        return Ok(Content { now: text.to_owned(), choices: Vec::new() });
    };
    let choices = words.iter().map(|word| word.trim_matches(['[', ']']).to_owned()).collect();
    Ok(Content { now, choices })
}

/// Whether a file that reads `now` has the value: word by word, numbers by their value, and Y and N of a module's parameter in every way
/// that it takes.
pub(super) fn is_same(now: &str, value: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(canonical).collect::<Vec<_>>();
    words(now) == words(value)
        || match now {
            "Y" => ["y", "1", "on"].contains(&value.to_ascii_lowercase().as_str()),
            "N" => ["n", "0", "off"].contains(&value.to_ascii_lowercase().as_str()),
            _ => false,
        }
}

/// A word, or the decimal form of a number.
fn canonical(word: &str) -> String {
    let number = match word.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => word.parse::<i128>(),
    };
    number.map_or_else(|_| word.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    fn of(now: &str, choices: &[&str]) -> Result<Content, String> {
        Ok(Content { now: now.into(), choices: choices.iter().map(|&choice| choice.into()).collect() })
    }

    #[test]
    fn the_bracketed_word_of_a_list_is_the_value() {
        assert_eq!(content("always [madvise] never\n"), of("madvise", &["always", "madvise", "never"]));
        assert_eq!(content("200000\n"), of("200000", &[]));
        assert_eq!(content("max 100000\n"), of("max 100000", &[]));
        assert_eq!(content("[a] [b]"), of("[a] [b]", &[]), "no list");
    }

    #[test]
    fn a_file_without_one_value_is_refused() {
        assert!(content("\n").unwrap_err().contains("it is empty"));
        assert!(content("a\nb\n").unwrap_err().contains("2 lines"));
        assert!(content(&"x".repeat(MOST_VALUE + 1)).unwrap_err().contains("1024 bytes"));
    }

    #[test]
    fn a_value_is_told_by_what_it_means() {
        for (now, value) in [("Y", "1"), ("Y", "y"), ("N", "0"), ("16", "0x10"), ("4096\t8", "4096 8"), ("a", "a")] {
            assert!(is_same(now, value), "{now} {value}");
        }
        for (now, value) in [("Y", "0"), ("N", "1"), ("16", "10"), ("4096 8", "4096"), ("always", "never")] {
            assert!(!is_same(now, value), "{now} {value}");
        }
    }

    #[test]
    fn links_are_followed_within_sys_but_not_out_of_it() {
        let host = Folder::new();
        host.write("sys/devices/x/weight", "1\n");
        host.link("sys/class/x", "../devices/x");
        host.write("elsewhere/file", "1\n");
        host.link("sys/out", "../elsewhere/file");
        host.link("sys/folder", "../elsewhere");
        host.write("proc/7/mem", "1\n");
        let find = |path: &str| KernelFile::find(&host.roots, &host.roots.sys.join(path));
        assert_eq!(find("class/x/weight").unwrap(), find("devices/x/weight").unwrap());
        for out in ["out", "folder/file", "../elsewhere/file", "../proc/7/mem"] {
            assert!(find(out).unwrap_err().to_string().contains("out of /sys"), "{out}");
        }
        assert!(find("devices/x").unwrap_err().to_string().contains("is no file"));
    }

    #[test]
    fn a_file_that_became_a_link_or_a_pipe_is_not_written() {
        let host = Folder::new();
        host.write("sys/a", "1\n");
        host.write("elsewhere", "precious\n");
        let file = KernelFile::find(&host.roots, &host.roots.sys.join("a")).unwrap();
        std::fs::remove_file(file.path()).unwrap();
        host.link("sys/a", "../elsewhere");
        assert!(file.set("2").is_err());
        assert_eq!(host.read("elsewhere"), "precious\n");
        std::fs::remove_file(file.path()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, file.path(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(file.set("2").is_err() && file.read().is_err(), "a pipe holds nobody up");
    }

    #[test]
    fn a_note_names_files_below_sys_exactly_and_through_no_link() {
        let host = Folder::new();
        host.write("sys/a", "1\n");
        host.write("proc/sys/kernel/b", "1\n");
        host.write("proc/7/mem", "1\n");
        host.write("elsewhere", "1\n");
        host.link("sys/link", "../elsewhere");
        let base = host.roots.sys.parent().unwrap().canonicalize().unwrap();
        let is_taken = |path: &str| KernelFile::of_note(&host.roots, base.join(path).to_str().unwrap()).is_some();
        assert!(is_taken("sys/a") && is_taken("proc/sys/kernel/b"));
        assert!(is_taken("sys/gone"), "its module was unloaded");
        for path in
            ["sys", "sys/link", "sys/../elsewhere", "sys/x/../a", "elsewhere", "proc/7/mem", "proc/sys/../7/mem"]
        {
            assert!(!is_taken(path), "{path}");
        }
        assert!(KernelFile::of_note(&host.roots, "sys/a").is_none(), "a relative path");
    }
}
