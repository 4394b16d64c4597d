//! Processes below /proc. Everything there is bytes, and as many as a process likes: its arguments may be any memory of its own. They become
//! text here and nowhere else, by one reader that cuts them; bytes that are no UTF-8 become replacement characters.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Most bytes that are read of a file; the rest is cut.
const MOST: usize = 16 << 10;
/// Most bytes that are read of a file whose length depends on the hardware only, as /proc/cpuinfo with 2 KB for each CPU.
const MOST_OF_HARDWARE: usize = 64 << 20;

/// The properties of a process by which it is named and recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// process id (thread group id)
    pub(crate) tgid: u32,
    /// process id of its parent; 0 for none
    pub(crate) parent: u32,
    /// effective user id, as this process's user namespace shows it; none where it is not told
    pub(crate) uid: Option<u32>,
    /// start in clock ticks (USER_HZ) since boot; with `tgid` it distinguishes a process from a later one
    pub(crate) start_time_ticks: u64,
    /// comm as the process chose it, without the newline: at most 15 bytes in the kernel, not fit to be printed
    pub(crate) comm: String,
    /// as the process chose them; empty for kernel threads
    pub(crate) arguments: Arguments,
    /// beginning of /proc/PID/cgroup; empty where it cannot be read
    pub(crate) cgroup: String,
}

/// The first arguments of a process, up to 16 KiB, the program first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// the arguments, with a NUL between two
    text: String,
    /// more arguments follow
    is_cut: bool,
}

impl Arguments {
    /// The arguments in the bytes of /proc/PID/cmdline. An argument that is cut is left out unless it is the only one.
    pub(super) fn of_cmdline(bytes: &[u8]) -> Self {
        let is_cut = bytes.len() > MOST;
        let kept = &bytes[..bytes.len().min(MOST)];
        let whole = kept.iter().rposition(|&byte| byte == 0).filter(|at| is_cut || at + 1 == kept.len());
        Self { text: String::from_utf8_lossy(&kept[..whole.unwrap_or(kept.len())]).into_owned(), is_cut }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The arguments in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.split('\0').skip(usize::from(self.is_empty()))
    }

    /// The last argument; none where it was cut.
    pub(crate) fn last(&self) -> Option<&str> {
        if self.is_cut { None } else { self.iter().last() }
    }
}

/// The beginning of a file as text, up to 16 KiB, whatever its bytes: for every file that another process or user can make longer, and every
/// short one of the kernel's.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let mut bytes = beginning(path, MOST)?;
    bytes.truncate(MOST);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file as text whose length depends on the hardware only.
pub(super) fn text_of_hardware(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&beginning(path, MOST_OF_HARDWARE)?).into_owned())
}

/// Up to `most` bytes of a file, and one more where it is longer.
fn beginning(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a process below `proc`, the root of procfs. `tgid` may be the id of any of its threads.
pub(crate) fn read_process(proc: &Path, tgid: u32) -> io::Result<Process> {
    let status = text(&proc.join(tgid.to_string()).join("status"))?;
    let tgid = number_of_status(&status, "Tgid:").ok_or_else(|| invalid("status without Tgid"))?;
    let dir = proc.join(tgid.to_string());
    let read = |file| text(&dir.join(file));
    Ok(Process {
        tgid,
        parent: number_of_status(&status, "PPid:").unwrap_or(0),
        uid: numbers_of_status(&status, "Uid:").nth(1),
        start_time_ticks: start_time(proc, tgid)?,
        comm: read("comm")?.trim_end_matches('\n').to_owned(),
        arguments: Arguments::of_cmdline(&beginning(&dir.join("cmdline"), MOST)?),
        cgroup: read("cgroup").unwrap_or_default(),
    })
}

/// Start of a process in clock ticks (USER_HZ) since boot.
pub(crate) fn start_time(proc: &Path, tgid: u32) -> io::Result<u64> {
    let stat = text(&proc.join(tgid.to_string()).join("stat"))?;
    start_time_of_stat(&stat).ok_or_else(|| invalid("stat without start time"))
}

/// Process id of a process's parent; none without such a process.
pub(super) fn parent(proc: &Path, tgid: u32) -> Option<u32> {
    number_of_status(&text(&proc.join(tgid.to_string()).join("status")).ok()?, "PPid:")
}

/// Ids of the processes below `proc`, the root of procfs.
pub(crate) fn ids(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The first number of a field in /proc/PID/status.
fn number_of_status(status: &str, field: &str) -> Option<u32> {
    numbers_of_status(status, field).next()
}

/// The numbers of a field in /proc/PID/status. The first line has the comm, in which a newline is escaped.
fn numbers_of_status(status: &str, field: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_ascii_whitespace().map_while(|number| number.parse().ok())
}

/// Field 22 of /proc/PID/stat. Field 2 is the comm in parentheses, which may hold spaces and parentheses itself.
fn start_time_of_stat(stat: &str) -> Option<u64> {
    let (_, from_field_3) = stat.rsplit_once(')')?;
    from_field_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Processes made up in a folder.

    use std::{fs, os::unix::fs::symlink, path::Path};

    /// A process of user 64055, or a thread of one where `id` and `tgid` differ; its descriptors lead to `links`. It starts at tick 1000 + `id`.
    pub(crate) fn add(proc: &Path, [id, tgid, parent]: [u32; 3], cmdline: &[u8], comm: &[u8], links: &[&str]) {
        let dir = proc.join(id.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let status = [
            b"Name:\t",
            comm,
            format!("\nTgid:\t{tgid}\nPid:\t{id}\nPPid:\t{parent}\nUid:\t0\t64055\t0\t0\n").as_bytes(),
        ]
        .concat();
        fs::write(dir.join("status"), status).unwrap();
        let zeros = "0 ".repeat(18);
        let stat = [format!("{id} (").as_bytes(), comm, format!(") S {zeros}{} 0 0\n", 1000 + id).as_bytes()].concat();
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("comm"), [comm, b"\n"].concat()).unwrap();
        fs::write(dir.join("cmdline"), cmdline).unwrap();
        for (number, link) in links.iter().enumerate() {
            symlink(link, dir.join("fd").join(number.to_string())).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{made_up::add, *};

    fn proc() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn arguments(process: &Process) -> Vec<&str> {
        process.arguments.iter().collect()
    }

    #[test]
    fn a_process_is_read_with_its_start_time_whatever_its_comm() {
        let proc = proc();
        add(proc.path(), [40, 40, 7], b"qemu\0-name\0web1\0\0", b"a) b", &[]);
        let process = read_process(proc.path(), 40).unwrap();
        assert_eq!((process.start_time_ticks, process.parent, process.uid), (1040, 7, Some(64055)));
        assert_eq!(process.comm, "a) b");
        assert_eq!(arguments(&process), ["qemu", "-name", "web1", ""]);
        assert_eq!(process.cgroup, "", "no cgroup file is no error");
    }

    #[test]
    fn a_comm_that_is_cut_within_a_character_is_no_error() {
        let proc = proc();
        add(proc.path(), [40, 40, 1], b"vmm\0--name\0w\xffb\0", b"vm-\xc3", &[]);
        fs::write(proc.path().join("40/cgroup"), b"0::/x\xfe\n").unwrap();
        let process = read_process(proc.path(), 40).unwrap();
        assert_eq!((process.comm.as_str(), process.start_time_ticks), ("vm-\u{fffd}", 1040));
        assert_eq!(arguments(&process)[2], "w\u{fffd}b");
        assert_eq!(process.cgroup, "0::/x\u{fffd}\n");
    }

    #[test]
    fn a_thread_leads_to_its_process() {
        let proc = proc();
        add(proc.path(), [40, 40, 1], b"qemu\0-name\0web1\0", b"qemu", &[]);
        add(proc.path(), [43, 40, 1], b"", b"CPU 0/KVM", &[]);
        assert_eq!(read_process(proc.path(), 43).unwrap(), read_process(proc.path(), 40).unwrap());
    }

    #[test]
    fn kernel_threads_have_no_arguments() {
        let none = Arguments::of_cmdline(b"");
        assert!(none.is_empty() && none.last().is_none() && none.iter().next().is_none());
    }

    #[test]
    fn files_of_any_length_are_read_up_to_a_bound_and_arguments_that_are_cut_are_left_out() {
        let proc = proc();
        let long = |first: &[u8], rest: u8| [first, &vec![rest; 3 * MOST][..]].concat();
        add(proc.path(), [40, 40, 1], &long(b"qemu\0-name\0web1\0", b'x'), b"qemu", &[]);
        fs::write(proc.path().join("40/cgroup"), long(b"0::/", b'y')).unwrap();
        let status = long(b"Tgid:\t40\nPPid:\t1\nGroups:\t", b'7');
        fs::write(proc.path().join("40/status"), status).unwrap();
        let process = read_process(proc.path(), 40).unwrap();
        assert_eq!((process.tgid, process.parent, process.cgroup.len()), (40, 1, MOST));
        assert_eq!((arguments(&process), process.arguments.last()), (vec!["qemu", "-name", "web1"], None));
        fs::write(proc.path().join("40/cmdline"), long(b"", 0)).unwrap();
        let empty = read_process(proc.path(), 40).unwrap();
        assert_eq!(arguments(&empty).len(), MOST, "each is empty");
        fs::write(proc.path().join("40/cmdline"), long(b"/", b'x')).unwrap();
        assert_eq!(arguments(&read_process(proc.path(), 40).unwrap())[0].len(), MOST);
    }

    #[test]
    fn this_process_reads_itself() {
        let this = read_process(Path::new("/proc"), std::process::id()).unwrap();
        assert_eq!(this.tgid, std::process::id());
        assert!(this.start_time_ticks > 0 && this.parent > 0);
    }
}
