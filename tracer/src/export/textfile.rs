//! A file of metrics for node_exporter's textfile collector, replaced atomically.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    exporter::Exporter,
    text::{self, Dialect},
};
use crate::{
    output::{self, Draft, Spot},
    say,
};

/// A file for node_exporter.
pub(crate) struct Textfile {
    path: PathBuf,
    /// the file as last written, or as it was before, which is locked; none where there was none
    current: Option<File>,
    /// the last problem, which is said once
    problem: Option<String>,
}

impl Textfile {
    /// Accepts a name that ends in .prom, and that no other exporter writes; writes nothing yet.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path.extension().is_none_or(|e| e != "prom") {
            bail!("--textfile {}: node_exporter reads only names that end in .prom", output::shown(path));
        }
        let spot = output::spot(path)?;
        // A link, or whatever else is no file, will be replaced.
        let current = spot.open_file();
        current.as_ref().map_or(Ok(()), |file| output::lock(file, &spot))?;
        Ok(Self { path: path.to_owned(), current, problem: None })
    }

    /// Replaces the file atomically. Links are not followed.
    pub(crate) fn write(&mut self, exporter: &Exporter) -> Result<()> {
        let text = text::encode(&exporter.families(), Dialect::Classic);
        let file = self.replace(text.as_bytes()).with_context(|| format!("write {}", output::shown(&self.path)))?;
        self.current = Some(file);
        Ok(())
    }

    fn replace(&self, text: &[u8]) -> io::Result<File> {
        // The folder may be another one than at the last time.
        let spot = Spot::of(&self.path)?;
        let mut draft = Draft::beside(&spot)?;
        let mut file = draft.file().try_clone()?;
        file.write_all(text)?;
        // node_exporter's user must be able to read it, whatever the umask.
        file.set_permissions(Permissions::from_mode(0o644))?;
        draft.take_place(&spot)?;
        Ok(file)
    }

    /// Writes the file; says each problem once and goes on, because a full disk may get free again.
    pub(crate) fn try_write(&mut self, exporter: &Exporter) {
        let problem = self.write(exporter).err().map(|e| format!("{e:#}"));
        if let Some(problem) = problem.as_ref().filter(|p| self.problem.as_ref() != Some(p)) {
            say!("{problem}");
        }
        self.problem = problem;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        thread::sleep,
        time::{Duration, Instant},
    };

    use super::{super::exporter::tests::exporter, *};

    #[test]
    fn a_textfile_is_replaced_atomically_and_no_link_is_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let (file, secret) = (dir.join("vmentry.prom"), dir.join("secret"));
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        let mut textfile = Textfile::new(&file).unwrap();
        assert!(textfile.current.is_none(), "the link's target is not opened");
        textfile.write(&exporter(&[])).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("vmentry_ring_entries_total 0\n") && !text.contains("process_"), "{text}");
        assert_eq!(fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "no draft is left");
        for _ in 0..2 {
            let second = Textfile::new(&file).err().unwrap().to_string();
            assert!(second.contains("is writing it"), "{second}");
            textfile.write(&exporter(&[])).unwrap();
        }
        drop(textfile);
        // A test that forks has all descriptors for a moment, and with them the lock.
        let start = Instant::now();
        while Textfile::new(&file).is_err() {
            assert!(start.elapsed() < Duration::from_secs(5));
            sleep(Duration::from_millis(1));
        }
        // Whatever else stands there is replaced, and nobody is waited for.
        let fifo = dir.join("fifo.prom");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(Textfile::new(&fifo).unwrap().current.is_none());
        assert!(Textfile::new(Path::new("/tmp/vmentry.txt")).is_err());
    }
}
