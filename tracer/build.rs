//! Sets the folder of the eBPF objects: the committed ones, or those of a folder that is to be tested. Packs the pages of docs/ for
//! `vmentry help`. Both folders are links, so that the package on crates.io has their files.

use std::{env, fs, io::Write, path::Path};

use flate2::{Compression, write::DeflateEncoder};

fn main() {
    println!("cargo:rerun-if-env-changed=VMENTRY_BPF_DIR");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");
    let other = env::var("VMENTRY_BPF_DIR").ok();
    if let Some(folder) = &other {
        println!(
            "cargo:warning=VMENTRY_BPF_DIR is set: this build has the eBPF objects of {folder}, not the committed ones"
        );
    }
    let folder = other.unwrap_or_else(|| committed.to_owned());
    println!("cargo:rerun-if-changed={folder}");
    println!("cargo:rustc-env=VMENTRY_BPF_DIR={folder}");
    pack_pages();
}

/// Writes the pages as one compressed text: the name of each and its Markdown, each with a NUL after it.
fn pack_pages() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    println!("cargo:rerun-if-changed={folder}");
    let mut pages: Vec<_> =
        fs::read_dir(folder).expect("read docs/").map(|entry| entry.expect("read docs/").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let to = Path::new(&env::var_os("OUT_DIR").expect("OUT_DIR is set")).join("pages.deflate");
    let mut packed = DeflateEncoder::new(fs::File::create(to).expect("create pages.deflate"), Compression::best());
    for path in &pages {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        write!(packed, "{name}\0{text}\0").expect("write pages.deflate");
    }
    packed.finish().expect("write pages.deflate");
}
