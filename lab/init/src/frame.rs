//! The stream from guest to host. A frame is one tag byte, a length (u32, little endian) and the content.

use std::fmt;

/// One message of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of the script's output.
    Output(Vec<u8>),
    /// A piece of the tar stream of the files that the script left.
    Files(Vec<u8>),
    /// The error of a guest that could not run the script.
    Failure(String),
    /// Exit code of the script. This is the last frame; a stream without it is truncated.
    Exit(u8),
}

/// An invalid frame, which no guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFrame {
    /// First byte of the frame.
    pub tag: u8,
    /// Length in its header.
    pub length: usize,
}

impl fmt::Display for InvalidFrame {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "frame with tag {:#04x} and {} bytes", self.tag, self.length)
    }
}

impl std::error::Error for InvalidFrame {}

const OUTPUT: u8 = b'o';
const FILES: u8 = b'f';
const FAILURE: u8 = b'!';
const EXIT: u8 = b'x';
const HEADER: usize = 5;
/// Longest content. A larger length means that the stream is corrupt.
const LENGTH_MAX: usize = 1 << 20;

impl Frame {
    /// Returns the bytes of the frame. Truncates content of more than 1 MiB, which needs several frames.
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

/// Splits a stream into frames; the stream may come in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds a piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Returns the next frame if all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, InvalidFrame> {
        let Some(&[tag, a, b, c, d]) = self.pending.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let invalid = InvalidFrame { tag, length };
        if length > LENGTH_MAX {
            return Err(invalid);
        }
        let Some(content) = self.pending.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = match (tag, content) {
            (OUTPUT, content) => Frame::Output(content.to_vec()),
            (FILES, content) => Frame::Files(content.to_vec()),
            (FAILURE, content) => Frame::Failure(String::from_utf8_lossy(content).into_owned()),
            (EXIT, &[code]) => Frame::Exit(code),
            _ => return Err(invalid),
        };
        self.pending.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_decoded_from_pieces_of_any_size() {
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
    fn a_truncated_stream_has_no_last_frame() {
        let mut decoder = Decoder::default();
        decoder.push(&Frame::Output(vec![1, 2, 3]).encode()[..7]);
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn an_unknown_tag_or_a_wrong_length_is_an_error() {
        for bytes in [&b"z\0\0\0\0"[..], b"x\0\0\0\0", b"o\xff\xff\xff\xff"] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.next_frame().is_err(), "{bytes:?}");
        }
    }
}
