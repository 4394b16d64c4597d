//! Checksums of a recording's lines. Each JSON line ends with the CRC-32 of all bytes since the previous JSON line and of its own up to
//! the checksum, so that no byte of a recording is unchecked. After the header, the digits of its `anchor.unix_ns` come first, so that
//! no line of another recording passes.

use flate2::Crc;

use super::header::Header;

const FIELD: &[u8] = b",\"crc32\":";

/// The braces that end a JSON line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Closing {
    /// of the header
    Header,
    /// of any other line, whose object is the value of its only key
    Note,
}

impl Closing {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::Header => b"}\n",
            Self::Note => b"}}\n",
        }
    }
}

/// The checksum of a recording's lines after the header, before the first of their bytes.
pub(super) fn begin(header: &Header) -> Crc {
    let mut crc = Crc::new();
    crc.update(header.anchor.unix_ns.to_string().as_bytes());
    crc
}

/// Puts the checksum of `text`'s lines after its first `sealed` bytes, which goes on with `crc`, into the last of them, a JSON line.
pub(super) fn seal(text: &mut Vec<u8>, sealed: usize, mut crc: Crc, closing: Closing) {
    debug_assert!(text.ends_with(closing.text()));
    text.truncate(text.len() - closing.text().len());
    crc.update(&text[sealed..]);
    text.extend(FIELD);
    text.extend(crc.sum().to_string().into_bytes());
    text.extend(closing.text());
}

/// A JSON line apart from its checksum, and the checksum; none where the line has none.
pub(super) fn split(line: &[u8], closing: Closing) -> Option<(&[u8], u32)> {
    let body = line.strip_suffix(closing.text())?;
    let at = body.windows(FIELD.len()).rposition(|window| window == FIELD)?;
    let digits = std::str::from_utf8(&body[at + FIELD.len()..]).ok()?;
    // Only the digits that `seal` writes: no sign and no leading zero.
    let crc: u32 = digits.parse().ok().filter(|crc: &u32| crc.to_string() == digits)?;
    Some((&body[..at], crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_breaks_the_seal() {
        let mut text = b"Tag=a\n#{\"end\":{\"x\":\"a,\\\"crc32\\\":5}}\"}}\n".to_vec();
        let line = text.len() - 1 - text.iter().rev().skip(1).position(|&b| b == b'\n').unwrap();
        let before = text[..line].to_vec();
        seal(&mut text, 0, Crc::new(), Closing::Note);
        let holds = |text: &[u8]| {
            let Some((own, sum)) = split(&text[line..], Closing::Note) else { return false };
            let mut crc = Crc::new();
            crc.update(&text[..line]);
            crc.update(own);
            crc.sum() == sum
        };
        assert!(holds(&text) && text.starts_with(&before));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert!(!holds(&changed), "byte {at}, bit {bit}");
            }
        }
        assert!(split(b"#{\"end\":{\"crc\":5}}\n", Closing::Note).is_none());
    }
}
