//! A server of a test: a process whose output goes to a file, and that ends when its value is dropped.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::prometheus::http;

/// A running server.
pub(crate) struct Server {
    /// TCP port on 127.0.0.1.
    pub(crate) port: u16,
    child: Child,
    log: PathBuf,
}

/// Returns a TCP port that no process listens on now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

impl Server {
    /// Starts a server and waits until the page `ready` answers.
    pub(crate) fn start(command: &mut Command, port: u16, log: PathBuf, ready: &str) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("run {}", command.get_program().display()))?;
        let mut server = Self { port, child, log };
        let start = Instant::now();
        while let Err(error) = http::get(port, ready, "*/*") {
            if let Some(status) = server.child.try_wait()? {
                bail!("{}: {status}: {}", command.get_program().display(), server.output());
            }
            ensure!(start.elapsed() < Duration::from_secs(30), "{error:#}: {}", server.output());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the body of a page.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        http::get(self.port, path, "text/plain")
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the server with SIGTERM. Fails if its exit status is not 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("end the server by SIGTERM")?;
        let status = self.child.wait().context("wait for the server")?;
        ensure!(status.success(), "end the server by SIGTERM: {status}: {}", self.output());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
