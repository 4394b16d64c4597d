//! Processes below /proc. Everything there is bytes: a comm is cut at 15 bytes, also within a character, and a program may put any bytes
//! into its arguments. They become text here and nowhere else; bytes that are no UTF-8 become replacement characters.

use std::{fs, io, path::Path};

/// The properties of a process by which it is named and recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// process id (thread group id)
    pub(crate) tgid: u32,
    /// process id of its parent; 0 for none
    pub(crate) parent: u32,
    /// start in clock ticks (USER_HZ) since boot; with `tgid` it distinguishes a process from a later one
    pub(crate) start_time_ticks: u64,
    /// comm: at most 15 bytes, without the newline
    pub(crate) comm: String,
    /// arguments, the program first; empty for kernel threads
    pub(crate) cmdline: Vec<String>,
    /// contents of /proc/PID/cgroup; empty where it cannot be read
    pub(crate) cgroup: String,
}

/// The text of a file of the kernel's, whatever its bytes.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Reads a process below `proc`, the root of procfs. `tgid` may be the id of any of its threads.
pub(crate) fn read_process(proc: &Path, tgid: u32) -> io::Result<Process> {
    let status = text(&proc.join(tgid.to_string()).join("status"))?;
    let tgid = number_of_status(&status, "Tgid:").ok_or_else(|| invalid("status without Tgid"))?;
    let dir = proc.join(tgid.to_string());
    let read = |file| text(&dir.join(file));
    let start_time_ticks = start_time_of_stat(&read("stat")?).ok_or_else(|| invalid("stat without start time"))?;
    Ok(Process {
        tgid,
        parent: number_of_status(&status, "PPid:").unwrap_or(0),
        start_time_ticks,
        comm: read("comm")?.trim_end_matches('\n').to_owned(),
        cmdline: split_cmdline(&read("cmdline")?),
        cgroup: read("cgroup").unwrap_or_default(),
    })
}

/// Ids of the processes below `proc`, the root of procfs.
pub(crate) fn ids(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A number in /proc/PID/status. The first line has the comm, in which a newline is escaped.
fn number_of_status(status: &str, field: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().parse().ok()
}

/// Field 22 of /proc/PID/stat. Field 2 is the comm in parentheses, which may hold spaces and parentheses itself.
fn start_time_of_stat(stat: &str) -> Option<u64> {
    let (_, from_field_3) = stat.rsplit_once(')')?;
    from_field_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn split_cmdline(cmdline: &str) -> Vec<String> {
    let arguments = cmdline.strip_suffix('\0').unwrap_or(cmdline);
    if arguments.is_empty() { Vec::new() } else { arguments.split('\0').map(str::to_owned).collect() }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Processes made up in a folder.

    use std::{fs, os::unix::fs::symlink, path::Path};

    /// A process, or a thread of one where `id` and `tgid` differ; its descriptors lead to `links`. It starts at tick 1000 + `id`.
    pub(crate) fn add(proc: &Path, [id, tgid, parent]: [u32; 3], cmdline: &[u8], comm: &[u8], links: &[&str]) {
        let dir = proc.join(id.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let status = [b"Name:\t", comm, format!("\nTgid:\t{tgid}\nPid:\t{id}\nPPid:\t{parent}\n").as_bytes()].concat();
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

    #[test]
    fn a_process_is_read_with_its_start_time_whatever_its_comm() {
        let proc = proc();
        add(proc.path(), [40, 40, 7], b"qemu\0-name\0web1\0\0", b"a) b", &[]);
        let process = read_process(proc.path(), 40).unwrap();
        assert_eq!((process.start_time_ticks, process.parent), (1040, 7));
        assert_eq!(process.comm, "a) b");
        assert_eq!(process.cmdline, ["qemu", "-name", "web1", ""]);
        assert_eq!(process.cgroup, "", "no cgroup file is no error");
    }

    #[test]
    fn a_comm_that_is_cut_within_a_character_is_no_error() {
        let proc = proc();
        add(proc.path(), [40, 40, 1], b"vmm\0--name\0w\xffb\0", b"vm-\xc3", &[]);
        fs::write(proc.path().join("40/cgroup"), b"0::/x\xfe\n").unwrap();
        let process = read_process(proc.path(), 40).unwrap();
        assert_eq!((process.comm.as_str(), process.start_time_ticks), ("vm-\u{fffd}", 1040));
        assert_eq!(process.cmdline[2], "w\u{fffd}b");
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
        assert_eq!(split_cmdline(""), Vec::<String>::new());
    }

    #[test]
    fn this_process_reads_itself() {
        let this = read_process(Path::new("/proc"), std::process::id()).unwrap();
        assert_eq!(this.tgid, std::process::id());
        assert!(this.start_time_ticks > 0 && this.parent > 0);
    }
}
