//! The guest's report through the parallel port: output while it runs, files and exit code at the end.

use anyhow::{Context, Result, bail, ensure};
use lab_init::frame::{Decoder, Frame};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A report that is still being written.
#[derive(Debug)]
pub(crate) struct Report {
    stream: File,
    decoder: Decoder,
    output: File,
    echo: bool,
    files: Vec<u8>,
    exit_code: Option<u8>,
}

impl Report {
    /// Follows a stream that is still being written. The script's output goes to the file `output` and, with `echo`, to
    /// stdout.
    pub(crate) fn follow(stream: File, output: &Path, echo: bool) -> Result<Report> {
        let output = File::create(output).with_context(|| format!("create file {}", output.display()))?;
        Ok(Report { stream, decoder: Decoder::default(), output, echo, files: Vec::new(), exit_code: None })
    }

    /// Reads everything that has arrived since the last call. Fails if the guest reports a failure.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let mut arrived = Vec::new();
        self.stream.read_to_end(&mut arrived).context("read report")?;
        self.decoder.push(&arrived);
        while let Some(frame) = self.decoder.next_frame().context("read report")? {
            match frame {
                Frame::Output(piece) => self.print(&piece)?,
                Frame::Files(piece) => self.files.extend_from_slice(&piece),
                Frame::Failure(message) => bail!("guest: {message}"),
                Frame::Exit(code) => self.exit_code = Some(code),
            }
        }
        Ok(())
    }

    /// Exit code of the script; none until the report is complete.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// Unpacks the files that the script left in `$OUT`.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<()> {
        // tar itself refuses absolute paths and paths that lead out of the folder.
        let mut tar = Command::new("tar")
            .args(["--extract", "--no-same-owner", "--no-overwrite-dir", "--touch", "--file=-", "--directory"])
            .arg(folder)
            .stdin(Stdio::piped())
            .spawn()
            .context("run tar")?;
        let written = tar.stdin.take().map(|mut stdin| stdin.write_all(&self.files));
        let status = tar.wait().context("wait for tar")?;
        ensure!(status.success(), "unpack files into {}: {status}", folder.display());
        written.context("run tar: no pipe")?.context("write to tar")
    }

    fn print(&mut self, piece: &[u8]) -> Result<()> {
        self.output.write_all(piece).context("write output")?;
        if self.echo {
            let mut stdout = io::stdout().lock();
            let echoed = stdout.write_all(piece).and_then(|()| stdout.flush());
            // If the reader of stdout is gone, the run continues without echo.
            self.echo = echoed.is_ok();
        }
        Ok(())
    }
}
