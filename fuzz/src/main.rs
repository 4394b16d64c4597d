//! The fuzzer of all targets: libFuzzer, with the target that VMENTRY_FUZZ_TARGET names. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use fuzz::{Target, mutation::Random};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("VMENTRY_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("VMENTRY_FUZZ_TARGET: there is no target '{name}'"))
});

/// CPU time of an input that is worth changing.
const FAST: Duration = Duration::from_millis(100);

/// Whether slower inputs are left alone, which would take most of the time.
static FAST_ONLY: LazyLock<bool> = LazyLock::new(|| std::env::var_os("VMENTRY_FUZZ_FAST_ONLY").is_some());

// The first run makes what later ones share, which is not what an input reaches.
fuzz_target!(init: TARGET.run(&[]), |input: &[u8]| -> Corpus {
    if TARGET.run(input) <= FAST || !*FAST_ONLY { Corpus::Keep } else { Corpus::Reject }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut bytes = data[..size].to_vec();
    TARGET.mutate(&mut bytes, &mut Random::new(seed.into()), &mut |bytes| {
        let size = bytes.len().min(max_size);
        bytes.resize(max_size, 0);
        let size = fuzzer_mutate(bytes, size, max_size);
        bytes.truncate(size);
    });
    let size = bytes.len().min(max_size);
    data[..size].copy_from_slice(&bytes[..size]);
    size
});
