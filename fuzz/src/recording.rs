//! The target that takes a recording through every view, and mutations of one that keep it well-formed: its lines' checksums and
//! numbers, and histograms below base64 and deflate.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, Crc, read::ZlibDecoder, write::ZlibEncoder};
use vmentry::{
    fuzzing,
    model::figures::Column,
    recording::OnDamage,
    report::{Dimension, Report, View, claims, input::read_from, json, text},
};

use crate::{
    mutation::{Bytewise, ODD, Random},
    properties::printable,
};

/// Shows a recording in every way, and writes it again.
pub(crate) fn run(input: &[u8]) {
    show(input);
    if let Some((written, same)) = fuzzing::rewritten(input) {
        assert!(same, "a recording is read other than it was written");
        assert!(fuzzing::rewritten(&written).is_some_and(|(again, same)| same && again == written));
    }
}

/// Reads a recording, twice as two files, and shows it in every way.
pub(crate) fn show(input: &[u8]) {
    let mut report = Report::default();
    let mut whole = read(input, OnDamage::Refuse, &mut report);
    shown(&report, vec![Dimension::Vm, Dimension::Level, Dimension::Reason]);
    if !whole {
        report = Report::default();
        whole = read(input, OnDamage::Skip, &mut report);
        shown(&report, vec![Dimension::Host, Dimension::Vcpu, Dimension::Cause, Dimension::Entry]);
    }
    if whole {
        read(input, OnDamage::Skip, &mut report);
    }
    let evidence = claims::Evidence { whole: report, by_policy: BTreeMap::new() };
    printable("claims", &claims::text(&evidence));
}

/// Adds a recording to a report; returns whether it was read to its end. What was read before an error is shown nevertheless.
fn read(input: &[u8], on_damage: OnDamage, report: &mut Report) -> bool {
    let result = read_from(input, "x".into(), on_damage, report);
    // Printing replaces deceptive characters, but not line ends.
    result
        .map_err(|error| assert!(!format!("{error:#}").contains(['\n', '\r']), "an error of several lines: {error:#}"))
        .is_ok()
}

fn shown(report: &Report, by: Vec<Dimension>) {
    let view = View { by, filters: vec![], sort: Column::Entries, top: None };
    printable("text", &text::render(report, &view));
    // Its lines end as RFC 4180 says.
    printable("CSV", &fuzzing::csv(report, &view).replace("\r\n", "\n"));
    printable("OpenMetrics", &fuzzing::openmetrics(report, &view));
    printable("HTML", &fuzzing::html(report, &view));
    let json = serde_json::to_string_pretty(&json::render(report, &view, Some(&view.by))).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let series = |rows: &serde_json::Value| -> u64 {
        rows.as_array().into_iter().flatten().filter_map(|row| row["entries"].as_u64()).sum()
    };
    let delivered = parsed["totals"]["delivered"].as_u64().unwrap_or(0);
    assert!(series(&parsed["series"]) <= delivered, "more entries in the series than were delivered");
}

/// Changes a recording at one place, and mostly makes it well-formed again.
pub(crate) fn mutate(input: &mut Vec<u8>, random: &mut Random, bytewise: Bytewise<'_>) {
    match random.below(10) {
        0..2 => bytewise(input),
        2..5 => change_histogram(input, random, bytewise),
        5..7 => change_lines(input, random),
        7 => change_number(input, random),
        8 => change_text(input, random),
        _ => change_one_line(input, random, bytewise),
    }
    if random.below(8) > 0 {
        number(input);
        seal(input);
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
}

/// Repeats, removes or moves a line.
fn change_lines(input: &mut Vec<u8>, random: &mut Random) {
    let mut lines = lines(input);
    if lines.is_empty() {
        return;
    }
    let (at, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => lines.insert(to, lines[at].clone()),
        1 => drop(lines.remove(at)),
        _ => lines.swap(at, to),
    }
    *input = lines.concat();
}

fn change_one_line(input: &mut Vec<u8>, random: &mut Random, bytewise: Bytewise<'_>) {
    let mut lines = lines(input);
    if !lines.is_empty() {
        let at = random.below(lines.len());
        bytewise(&mut lines[at]);
        *input = lines.concat();
    }
}

/// Replaces a number, of a tag, a JSON line or the header.
fn change_number(input: &mut Vec<u8>, random: &mut Random) {
    let begins = |&at: &usize| input[at].is_ascii_digit() && b":=[,;".contains(&input[at - 1]);
    let numbers: Vec<_> = (1..input.len()).filter(begins).collect();
    if numbers.is_empty() {
        return;
    }
    let at = numbers[random.below(numbers.len())];
    let end = at + input[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let other = numbers[random.below(numbers.len())];
    let number = match random.below(2) {
        0 => random.one_of(ODD).bytes().collect(),
        _ => input[other..].iter().take_while(|b| b.is_ascii_digit()).copied().collect::<Vec<_>>(),
    };
    input.splice(at..end, number);
}

/// Puts something odd into a JSON string, escaped as JSON or as it is.
fn change_text(input: &mut Vec<u8>, random: &mut Random) {
    let quotes: Vec<_> = (0..input.len()).filter(|&at| input[at] == b'"').collect();
    if quotes.is_empty() {
        return;
    }
    let at = quotes[random.below(quotes.len())] + 1;
    let odd = random.one_of(ODD);
    let escaped: String = odd.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let text = if random.below(4) == 0 { odd.to_owned() } else { escaped };
    input.splice(at..at, text.into_bytes());
}

/// Changes a histogram's words or counts, below base64 and deflate.
fn change_histogram(input: &mut Vec<u8>, random: &mut Random, bytewise: Bytewise<'_>) {
    const HEADER: usize = 40;
    const LENGTH: std::ops::Range<usize> = 4..8;
    let mut lines = lines(input);
    let with: Vec<_> = (0..lines.len()).filter(|&at| lines[at].starts_with(b"Tag=")).collect();
    if with.is_empty() {
        return;
    }
    let line = &mut lines[with[random.below(with.len())]];
    let Some(comma) = line.iter().rposition(|&b| b == b',') else { return };
    let Ok(encoded) = STANDARD.decode(line[comma + 1..].trim_ascii()) else { return };
    let mut plain = Vec::new();
    let inflated = ZlibDecoder::new(encoded.get(8..).unwrap_or_default()).take(64 << 10).read_to_end(&mut plain);
    if inflated.is_err() || plain.len() < HEADER {
        return;
    }
    if random.below(8) == 0 {
        bytewise(&mut plain);
    } else {
        let mut counts = plain.split_off(HEADER);
        match random.below(4) {
            // Many buckets in few bytes.
            0 => counts = counts.repeat(1 + random.below(64)),
            1 => counts.extend(std::iter::repeat_n([1, 2, 3][random.below(3)], random.below(4096))),
            _ => bytewise(&mut counts),
        }
        plain.extend(counts);
        let length = u32::try_from(plain.len() - HEADER).unwrap_or(u32::MAX);
        plain[LENGTH].copy_from_slice(&length.to_be_bytes());
    }
    let mut deflated = ZlibEncoder::new(encoded[..8].to_vec(), Compression::best());
    deflated.write_all(&plain).unwrap();
    let mut encoded = deflated.finish().unwrap();
    let length = u32::try_from(encoded.len() - 8).unwrap_or(u32::MAX);
    encoded[LENGTH].copy_from_slice(&length.to_be_bytes());
    line.truncate(comma + 1);
    line.extend(STANDARD.encode(encoded).bytes().chain(*b"\n"));
    *input = lines.concat();
}

/// Replaces the digits of a field in a JSON line, where it has the field.
fn set(line: &mut Vec<u8>, field: &str, value: u64) {
    let Some(at) = line.windows(field.len()).rposition(|window| window == field.as_bytes()) else { return };
    let at = at + field.len();
    let end = at + line[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    line.splice(at..end, value.to_string().into_bytes());
}

/// Numbers the intervals from 1.
fn number(input: &mut Vec<u8>) {
    let mut lines = lines(input);
    let mut intervals = 0;
    for line in &mut lines {
        if line.starts_with(b"#{\"interval\":") {
            intervals += 1;
            set(line, ",\"number\":", intervals);
        } else if line.starts_with(b"#{\"end\":") {
            set(line, ",\"intervals\":", intervals);
        }
    }
    *input = lines.concat();
}

/// Corrects the checksums of a recording whose header has one, as docs/formats.md defines them.
pub(crate) fn seal(input: &mut Vec<u8>) {
    const FIELD: &str = ",\"crc32\":";
    let mut lines = lines(input);
    let Some(header) = lines.first_mut() else { return };
    let Some(at) = header.windows(FIELD.len()).rposition(|window| window == FIELD.as_bytes()) else { return };
    let checksum = |mut crc: Crc, text: &[u8]| {
        crc.update(text);
        u64::from(crc.sum())
    };
    let sum = checksum(Crc::new(), &header[..at]);
    set(header, FIELD, sum);
    let anchor: Option<serde_json::Value> = serde_json::from_slice(header.strip_prefix(b"#").unwrap_or(header)).ok();
    let unix_ns = anchor.and_then(|header| header["anchor"]["unix_ns"].as_u64()).unwrap_or(0).to_string();
    let begin = || {
        let mut crc = Crc::new();
        crc.update(unix_ns.as_bytes());
        crc
    };
    let mut crc = begin();
    for line in &mut lines[1..] {
        if !line.starts_with(b"#{") {
            crc.update(line);
            continue;
        }
        if let Some(at) = line.windows(FIELD.len()).rposition(|window| window == FIELD.as_bytes()) {
            let sum = checksum(crc, &line[..at]);
            set(line, FIELD, sum);
        }
        crc = begin();
    }
    *input = lines.concat();
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A check that was added later once refused most of them, so that nothing of what they were made for was shown any more.
    #[test]
    fn seeds_are_read_to_their_end_unless_their_name_says_that_they_are_refused() {
        let is_found = |name: &str| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/recording")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let read =
                read_from(fs::read(&path).unwrap().as_slice(), "x".into(), OnDamage::Refuse, &mut Report::default());
            let is_refused = read.is_err();
            assert!(is_found(name) || is_refused == name.starts_with("refused-"), "{name}: {read:?}");
        }
    }
}
