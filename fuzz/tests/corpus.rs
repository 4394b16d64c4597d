//! The committed corpus, and some changes of each of its inputs: every target keeps its properties and limits.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use fuzz::{
    TARGETS, Target,
    mutation::{Random, change},
};

/// Bytes of all inputs at most.
const MOST_BYTES: usize = 1 << 20;

fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    let mut inputs: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    inputs.sort();
    inputs
}

/// Runs an input; keeps it, and says which one it was, where it fails.
fn run(target: &Target, input: &[u8], what: &str, failed: &mut Vec<String>) {
    if std::panic::catch_unwind(|| target.run(input)).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failed-{}", target.name, failed.len()));
        fs::write(&kept, input).unwrap();
        failed.push(format!("{}: {what} (kept in {})", target.name, kept.display()));
    }
}

/// One test: the memory of an input is counted for the whole process.
#[test]
fn every_target_keeps_its_properties_and_limits_on_the_corpus_and_on_changes_of_it() {
    let (mut bytes, mut failed) = (0, Vec::new());
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{}: no inputs", target.name);
        let start = Instant::now();
        for (path, input) in &inputs {
            bytes += input.len();
            run(target, input, &path.display().to_string(), &mut failed);
        }
        let mut seed = 0;
        while seed < target.changed && failed.len() < 20 {
            let mut random = Random::new(seed);
            let (path, mut input) = inputs[random.below(inputs.len())].clone();
            for _ in 0..=random.below(4) {
                let mut bytewise = Random::new(seed);
                target.mutate(&mut input, &mut random, &mut |bytes| change(bytes, &mut bytewise));
            }
            run(target, &input, &format!("{}, changed with seed {seed}", path.display()), &mut failed);
            seed += 1;
        }
        println!(
            "{}: {} inputs, {seed} changed ones in {:.1} s",
            target.name,
            inputs.len(),
            start.elapsed().as_secs_f64()
        );
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(bytes <= MOST_BYTES, "the corpus has {bytes} bytes: minimise it");
}
