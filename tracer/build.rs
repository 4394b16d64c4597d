//! Sets the folder of the eBPF objects: the committed ones, or those of a folder that is to be tested.

fn main() {
    println!("cargo:rerun-if-env-changed=VMENTRY_BPF_DIR");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf/dist");
    let other = std::env::var("VMENTRY_BPF_DIR").ok();
    if let Some(folder) = &other {
        println!(
            "cargo:warning=VMENTRY_BPF_DIR is set: this build has the eBPF objects of {folder}, not the committed ones"
        );
    }
    let folder = other.unwrap_or_else(|| committed.to_owned());
    println!("cargo:rerun-if-changed={folder}");
    println!("cargo:rustc-env=VMENTRY_BPF_DIR={folder}");
}
