//! Checks what the package's maintainer scripts do to a host: the package is installed, upgraded, removed, installed again and purged
//! by the dpkg of a release of Debian, in a folder with its files.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, debian,
    process::{self, output},
};

/// Releases whose dpkg and whose scripts for systemd run the package.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
/// What dpkg and the scripts call; [`SYSTEMCTL`] stands for systemd.
const PACKAGES: [&str; 12] = [
    "base-files",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "init-system-helpers",
    "libc-bin",
    "perl-base",
    "sed",
    "tar",
];
/// Notes how it is called: no systemd runs in the folder.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >> /systemctl.log\n";
const SERVICE: &str = "vmentry-export.service";
const DEFAULTS: &str = "etc/default/vmentry-export";
const LINK: &str = "etc/systemd/system/multi-user.target.wants/vmentry-export.service";
/// What an administrator writes to [`DEFAULTS`].
const OWN: &str = "OPTIONS=\"--vm-labels name,pid\"\n";

/// Checks a package in each release.
pub(super) fn check(package: &Path) -> Result<()> {
    ensure!(
        process::is_root(),
        "try the maintainer scripts: only root can change the root folder; run the tests as root"
    );
    let older = older(package)?;
    RELEASES.iter().try_for_each(|release| {
        let host = Host::create(release)?;
        lives(&host, &older, package).with_context(|| format!("maintainer scripts on Debian {release}"))?;
        eprintln!("maintainer scripts on Debian {release}: installed, upgraded, removed, installed again, purged");
        Ok(())
    })
}

fn lives(host: &Host, older: &Path, package: &Path) -> Result<()> {
    let before = host.files()?;
    host.dpkg(&["--install"], older)?;
    let version = host.run(&["/usr/bin/vmentry", "--version"])?;
    ensure!(version.starts_with("vmentry "), "the installed binary prints {version}");
    ensure!(!host.has(LINK), "installing enables the service");
    let calls = host.calls()?;
    ensure!(calls.iter().all(|call| call.contains("daemon-reload")), "installing starts something: {calls:?}");

    host.enable()?;
    fs::write(host.root.join(DEFAULTS), OWN).context("write the administrator's options")?;
    host.dpkg(&["--force-confdef", "--force-confold", "--install"], package)?;
    host.keeps_options("upgrading")?;
    ensure!(host.has(LINK), "upgrading disables the service");
    let calls = host.calls()?;
    let restarts = |call: &String| call.contains("restart") && call.contains(SERVICE);
    ensure!(calls.iter().any(restarts), "upgrading does not restart the service: {calls:?}");
    ensure!(!host.has(OLD_PAGE), "upgrading leaves a file of the older version");

    host.run(&["dpkg", "--remove", "vmentry"])?;
    host.keeps_options("removing")?;
    ensure!(!host.has("usr/bin/vmentry"), "removing leaves the binary");
    let calls = host.calls()?;
    let stops = |call: &String| call.contains("stop") && call.contains(SERVICE);
    ensure!(calls.iter().any(stops), "removing does not stop the service: {calls:?}");

    host.dpkg(&["--install"], package)?;
    host.keeps_options("installing again")?;
    host.run(&["dpkg", "--purge", "vmentry"])?;
    let after = host.files()?;
    let differences: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(differences.is_empty(), "purging leaves or takes {differences:?}");
    Ok(())
}

/// A folder that stands for a host: files of a release, which are not set up, and an empty database of dpkg.
struct Host {
    root: PathBuf,
}

impl Host {
    fn create(release: &str) -> Result<Self> {
        let files = debian::root(release, &PACKAGES)?;
        let root = build::target_dir().join("deb").join(release);
        output(Command::new("cp").arg("--archive").arg(files).arg(&root))?;
        for folder in ["info", "updates", "triggers", "alternatives"] {
            let folder = root.join("var/lib/dpkg").join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
        }
        // deb-systemd-invoke asks systemd only where it runs.
        for folder in ["run/systemd/system", "etc/systemd/system"] {
            fs::create_dir_all(root.join(folder)).with_context(|| format!("create folder {folder}"))?;
        }
        fs::write(root.join("var/lib/dpkg/status"), "").context("create dpkg's database")?;
        // One of these is a link to the other where both are one folder.
        let systemctl = root.join("usr/bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).context("write systemctl")?;
        output(Command::new("chmod").arg("755").arg(&systemctl))?;
        Ok(Self { root })
    }

    /// Runs a command with this root, and without other processes in sight.
    fn run(&self, command: &[&str]) -> Result<String> {
        let mut run = Command::new("unshare");
        run.args(["--mount", "--pid", "--fork", "--kill-child", "chroot"]).arg(&self.root);
        run.args([
            "env",
            "--ignore-environment",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        output(run.args(command))
    }

    /// Enables the service as `systemctl enable` does.
    fn enable(&self) -> Result<()> {
        let link = self.root.join(LINK);
        fs::create_dir_all(link.parent().context("folder of the link")?).context("create the folder of the link")?;
        symlink(Path::new("/lib/systemd/system").join(SERVICE), link).context("enable the service")
    }

    /// Runs dpkg on a package, and forgets the calls of systemctl that were before.
    fn dpkg(&self, arguments: &[&str], package: &Path) -> Result<()> {
        fs::copy(package, self.root.join("package.deb")).context("copy the package")?;
        let _ = fs::remove_file(self.root.join("systemctl.log"));
        // Nothing here is installed for dpkg, and the package must need nothing.
        let mut command = vec!["dpkg"];
        command.extend(arguments);
        command.push("/package.deb");
        self.run(&command)?;
        fs::remove_file(self.root.join("package.deb")).context("remove the copy of the package")
    }

    /// How systemctl was called.
    fn calls(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(self.root.join("systemctl.log")).context("read the calls of systemctl")?;
        Ok(log.lines().map(str::to_owned).collect())
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    fn keeps_options(&self, what: &str) -> Result<()> {
        let options =
            fs::read_to_string(self.root.join(DEFAULTS)).with_context(|| format!("{what} takes {DEFAULTS}"))?;
        ensure!(options == OWN, "{what} changes {DEFAULTS}: {options}");
        Ok(())
    }

    /// All files and folders but dpkg's own records, the log of systemctl, and /dev/null, which is a file in a folder without devices.
    fn files(&self) -> Result<BTreeSet<String>> {
        let list = output(Command::new("find").args([".", "-printf", "%P %y %l\n"]).current_dir(&self.root))?;
        let is_record = |line: &&str| {
            ["var/lib/dpkg/", "var/log/", "systemctl.log", "dev/null"].iter().any(|own| line.starts_with(own))
        };
        Ok(list.lines().filter(|line| !is_record(line)).map(str::to_owned).collect())
    }
}

/// A file that only the older version has.
const OLD_PAGE: &str = "usr/share/doc/vmentry/docs/of-the-older-version.md";

/// Makes an older version of a package: with other options, and with a page more.
fn older(package: &Path) -> Result<PathBuf> {
    let folder = build::target_dir().join("deb/older");
    output(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&folder))?;
    let control = folder.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("read the package's fields")?;
    let is_version = |line: &&str| line.starts_with("Version: ");
    let version = text.lines().find(is_version).context("find the package's version")?;
    fs::write(&control, text.replace(version, "Version: 0.0.1-1")).context("write the package's fields")?;
    fs::write(folder.join(DEFAULTS), "OPTIONS=\"\"\n").context("write the older options")?;
    fs::write(folder.join(OLD_PAGE), "An older page\n").context("write an older page")?;
    let older = build::target_dir().join("deb/older.deb");
    output(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&folder).arg(&older))?;
    Ok(older)
}
