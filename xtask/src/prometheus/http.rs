//! HTTP GET. HTTP/1.0 has neither chunks nor persistent connections.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Returns the body of a page of 127.0.0.1.
pub(super) fn get(port: u16, path: &str, accept: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("connect to port {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read {path}"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("read {path}: the answer is not HTTP"))?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "get {path}: {status}: {body}");
    Ok(body.to_owned())
}

/// Returns `data` of an answer of Prometheus's API. Escapes the parameters.
pub(super) fn api(port: u16, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let body = get(port, &format!("/api/v1/{path}?{}", query.join("&")), "application/json")?;
    let mut answer: Value = serde_json::from_str(&body).with_context(|| format!("read {path}"))?;
    ensure!(answer["status"] == "success", "ask Prometheus for {path}: {body}");
    Ok(answer["data"].take())
}

/// Returns the result of a query now: a vector.
pub(super) fn query(port: u16, expr: &str) -> Result<Value> {
    Ok(api(port, "query", &[("query", expr)])?["result"].take())
}

/// Escapes the value of a URL's parameter.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_but_letters_digits_and_three_signs_are_escaped() {
        assert_eq!(super::escaped("a{b=~\".*\"} + 1"), "a%7Bb%3D~%22.%2A%22%7D%20%2B%201".replace('~', "%7E"));
    }
}
