//! A server of a test: a process with its talk in a file, that ends with its value.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::prometheus::http;

/// A running server.
pub struct Server {
    /// where it listens, on 127.0.0.1
    pub port: u16,
    child: Child,
    log: PathBuf,
}

/// A port that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

impl Server {
    /// Starts a server and waits until it answers at `ready`.
    pub fn start(command: &mut Command, port: u16, log: PathBuf, ready: &str) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("run {}", command.get_program().display()))?;
        let mut server = Self { port, child, log };
        let start = Instant::now();
        while let Err(error) = http::get(port, ready, "*/*") {
            if let Some(status) = server.child.try_wait()? {
                bail!("{}: {status}: {}", command.get_program().display(), server.said());
            }
            ensure!(start.elapsed() < Duration::from_secs(30), "{error:#}: {}", server.said());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// A page of it.
    pub fn get(&self, path: &str) -> Result<String> {
        http::get(self.port, path, "text/plain")
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end with SIGTERM, which must be in order.
    pub fn stop(mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id()).context("read a process id")?;
        // SAFETY: kill has no memory preconditions; the child was not waited for, so the id is its own.
        ensure!(unsafe { libc::kill(pid, libc::SIGTERM) } == 0, "end process {pid}");
        let status = self.child.wait().context("wait for a server")?;
        ensure!(status.success(), "after SIGTERM: {status}: {}", self.said());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
