//! Sets the folder of the eBPF objects: the committed ones, or those of a folder that is to be tested.

fn main() {
    println!("cargo:rerun-if-env-changed=VMENTRY_BPF_DIR");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf/dist");
    let folder = std::env::var("VMENTRY_BPF_DIR").unwrap_or_else(|_| committed.to_owned());
    println!("cargo:rerun-if-changed={folder}");
    println!("cargo:rustc-env=VMENTRY_BPF_DIR={folder}");
}
