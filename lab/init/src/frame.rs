//! The stream from guest to host: frames of one tag byte, a length (u32, little endian) and the content.

use std::fmt;

/// One message of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of what the script prints.
    Output(Vec<u8>),
    /// A piece of the tar stream of the files that the script left.
    Files(Vec<u8>),
    /// Why the guest could not do its work.
    Failure(String),
    /// The script's exit code. The last frame: a stream without it is cut off.
    Exit(u8),
}

/// A stream that no guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The first byte of the offending frame.
    pub tag: u8,
    /// The length it claims.
    pub length: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "frame with tag {:#04x} and {} bytes", self.tag, self.length)
    }
}

impl std::error::Error for Malformed {}

const OUTPUT: u8 = b'o';
const FILES: u8 = b'f';
const FAILURE: u8 = b'!';
const EXIT: u8 = b'x';
const HEADER: usize = 5;
/// Writers send less; a larger length means that the stream is out of step.
const LENGTH_MAX: usize = 1 << 20;

impl Frame {
    /// The frame as it is sent. Content beyond a megabyte is cut off: send more frames instead.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, content) = match self {
            Frame::Output(content) => (OUTPUT, &content[..]),
            Frame::Files(content) => (FILES, &content[..]),
            Frame::Failure(message) => (FAILURE, message.as_bytes()),
            Frame::Exit(code) => (EXIT, std::slice::from_ref(code)),
        };
        let content = &content[..content.len().min(LENGTH_MAX)];
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(content);
        bytes
    }
}

/// Takes a stream apart, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next frame, if it has arrived as a whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(&[tag, a, b, c, d]) = self.pending.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let malformed = Malformed { tag, length };
        if length > LENGTH_MAX {
            return Err(malformed);
        }
        let Some(content) = self.pending.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = match (tag, content) {
            (OUTPUT, content) => Frame::Output(content.to_vec()),
            (FILES, content) => Frame::Files(content.to_vec()),
            (FAILURE, content) => Frame::Failure(String::from_utf8_lossy(content).into_owned()),
            (EXIT, &[code]) => Frame::Exit(code),
            _ => return Err(malformed),
        };
        self.pending.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let frames = [
            Frame::Output(b"hello\n".to_vec()),
            Frame::Output(Vec::new()),
            Frame::Files((0..=255).collect()),
            Frame::Failure("no modules".into()),
            Frame::Exit(7),
        ];
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for size in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    decoded.push(frame);
                }
            }
            assert_eq!(decoded, frames, "pieces of {size} bytes");
        }
    }

    #[test]
    fn a_cut_off_stream_has_no_last_frame() {
        let mut decoder = Decoder::default();
        decoder.push(&Frame::Output(vec![1, 2, 3]).encode()[..7]);
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn what_no_guest_writes_is_an_error() {
        for bytes in [&b"z\0\0\0\0"[..], b"x\0\0\0\0", b"o\xff\xff\xff\xff"] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.next_frame().is_err(), "{bytes:?}");
        }
    }
}
