//! Draws the documentation's pictures, docs/pictures/*.svg, from committed recordings of the lab, and compares them with
//! the committed ones. `cargo xtask pictures` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

#[path = "pictures/live.rs"]
mod live;
#[path = "pictures/printed.rs"]
mod printed;
#[path = "pictures/round.rs"]
mod round;
#[path = "pictures/screen.rs"]
mod screen;

use std::{env, fs, path::Path};

/// Bytes of a picture that a reader of the README has to load.
const MOST_BYTES: usize = 60_000;
/// A recording of a lab with an emulated CPU, by lab/scripts/known-exits.sh: ftrace counts the same events beside vmentry,
/// which therefore marks it as SHARED.
const RECORDING: &str = "known-exits.hlog";

/// An experiment on a Debian guest under QEMU in a lab with an emulated CPU, by lab/scripts/guest-ab.sh.
const EXPERIMENT: &str = "soft-hard.hlog";

fn recordings() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

/// Each picture: its file's name and its content.
fn pictures() -> Vec<(&'static str, String)> {
    let mut pictures = live::pictures();
    pictures.extend(printed::pictures());
    pictures.push(("round.svg", round::picture()));
    pictures
}

#[test]
fn the_committed_pictures_are_what_the_program_draws() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    let pictures = pictures();
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, drawn) in &pictures {
            fs::write(folder.join(name), drawn).unwrap();
        }
    }
    for (name, drawn) in &pictures {
        let committed = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            *drawn == committed,
            "docs/pictures/{name} is not what vmentry draws: run 'cargo xtask pictures' and commit"
        );
    }
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    // The pages' pictures are the browser's.
    let svgs = files.filter(|file| !file.contains("-html."));
    let stray: Vec<_> = svgs.filter(|file| pictures.iter().all(|(name, _)| name != file)).collect();
    assert!(stray.is_empty(), "delete what nothing draws from docs/pictures: {stray:?}");
}

#[test]
fn each_picture_is_small_has_a_title_and_keeps_everything_within_its_frame() {
    for (name, drawn) in pictures() {
        assert!(drawn.len() < MOST_BYTES, "{name}: {} bytes", drawn.len());
        let tree = roxmltree::Document::parse(&drawn).unwrap();
        let root = tree.root_element();
        let frame: Vec<f64> = root.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(root.children().any(|n| n.has_tag_name("title") && n.text().is_some_and(|t| t.len() > 10)), "{name}");
        let texts: Vec<_> = tree.descendants().filter(|n| n.has_tag_name("text")).collect();
        assert!(texts.len() > 10, "{name}");
        for text in texts {
            let number = |name| text.attribute(name).map_or(0.0, |n| n.parse::<f64>().unwrap());
            assert!(number("x") + number("textLength") <= frame[2] && number("y") < frame[3], "{name}: {text:?}");
        }
    }
}

#[test]
fn each_picture_of_a_recording_says_that_its_cpu_was_emulated() {
    let drawn_by_hand = |name: &str| name == "round.svg";
    let recorded: Vec<_> = pictures().into_iter().filter(|(name, _)| !drawn_by_hand(name)).collect();
    assert_eq!(recorded.len(), 4);
    for (name, drawn) in recorded {
        assert!(drawn.contains("EMULATED"), "{name}");
    }
}
