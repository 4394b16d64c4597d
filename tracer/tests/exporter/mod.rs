//! A running `vmentry export` and requests to it.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
    time::Duration,
};

use crate::binary::command as vmentry;

pub const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");

pub struct Exporter {
    pub child: Child,
    /// where it serves: IP address and port, or the path of a socket
    pub addresses: Vec<String>,
    stderr: BufReader<ChildStderr>,
}

impl Exporter {
    pub fn start(args: &[&str]) -> Self {
        Self::run(&mut vmentry(&[&["export", "--listen", "127.0.0.1:0"], args].concat()), 1)
    }

    /// Starts it by a command, and waits until it has said where it serves, on so many sockets.
    pub fn run(command: &mut Command, sockets: usize) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut addresses = Vec::new();
        while addresses.len() < sockets {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some(place) = line.trim().strip_prefix("metrics on ") {
                let tcp = place.strip_prefix("http://").and_then(|l| l.strip_suffix("/metrics"));
                addresses.push(tcp.or(place.split(": ").next()).unwrap().to_owned());
            }
        }
        Self { child, addresses, stderr }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addresses[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends bytes as they are; what comes back until the other side closes.
    pub fn send(&self, request: &[u8]) -> Vec<u8> {
        exchange(self.connect(), request)
    }

    /// Status line and headers, and the body.
    pub fn get(&self, path: &str, accept: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        let answer = self.send(request.as_bytes());
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
    }

    pub fn text(&self, accept: &str) -> String {
        String::from_utf8(self.get("/metrics", accept).1).unwrap()
    }

    pub fn value(&self, name: &str) -> f64 {
        sum(&self.text(""), name)
    }

    /// Asks it to end; its code and what it said.
    pub fn end(mut self, signal: i32) -> (Option<i32>, String) {
        // SAFETY: the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes as they are; what comes back until the other side closes.
pub fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Vec<u8> {
    // The other side may refuse before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Sum of all samples of a name, in text.
pub fn sum(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
