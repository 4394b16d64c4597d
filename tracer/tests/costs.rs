//! The real binary's time and memory on recordings that cost far more than their bytes where a command is careless: many VMs, recordings
//! that alternate, histograms that compress well. The limits are set by the kernel: CPU time, so that a busy machine fails no test, and
//! address space. Each is several times what the command needs.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::Output,
};

use base64::Engine as _;
use binary::{Folder, command, err, out};
use flate2::{Compression, write::ZlibEncoder};
use serde_json::{Value, json};

/// The lab's recording, of which the header is used.
const LAB: &str = include_str!("data/lab.hlog");
/// Buckets of a histogram.
const BUCKETS: usize = 56_320;
/// Address space of the binary itself, with what its allocator reserves.
const BASE: u64 = 96 << 20;

/// What a command may take.
#[derive(Clone, Copy)]
struct Limits {
    cpu_s: u64,
    bytes: u64,
}

/// Runs `vmentry`; the kernel ends it at the limits.
fn limited(args: &[&str], limits: Limits) -> Output {
    let mut command = command(args);
    let set = move |resource, most: u64| {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: setrlimit reads one rlimit, which is a local that outlives the call.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec, the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set(libc::RLIMIT_CPU, limits.cpu_s)?;
            set(libc::RLIMIT_AS, limits.bytes)
        });
    }
    command.output().unwrap()
}

/// Like [`limited`]; the command must succeed.
fn cheap(args: &[&str], limits: Limits) -> String {
    let output = limited(args, limits);
    let ended = (output.status.code(), output.status.signal());
    assert_eq!(
        ended,
        (Some(0), None),
        "{args:?}: over {} s or {} MiB? {}",
        limits.cpu_s,
        limits.bytes >> 20,
        err(&output)
    );
    out(&output)
}

/// A recording that is being made up, as version 1 wrote it: without checksums.
struct Made {
    text: String,
    /// counts of the interval's lines
    entries: usize,
    intervals: u64,
}

impl Made {
    /// A recording of another host than that of any other name.
    fn new(name: &str) -> Self {
        Self::with_header(&header(name))
    }

    fn with_header(header: &Value) -> Self {
        Self { text: format!("#{header}\n"), entries: 0, intervals: 0 }
    }

    fn vm(&mut self, id: usize, name: &str, tgid: usize) {
        let vm = json!({ "vm": { "id": id, "name": name, "tgid": tgid, "start_ticks": 1, "ordinal": id } });
        writeln!(self.text, "#{vm}").unwrap();
    }

    /// A histogram of a series with the reason CPUID.
    fn line(&mut self, vm: usize, vcpu: usize, histogram: &Encoded) {
        self.line_of(vm, vcpu, 10, histogram);
    }

    fn line_of(&mut self, vm: usize, vcpu: usize, reason: u32, histogram: &Encoded) {
        let Encoded { text, count } = histogram;
        self.entries += count;
        writeln!(
            self.text,
            "Tag=vm={vm};vcpu={vcpu};level=L1;isa=vmx;reason={reason};entry=unknown;figure=entry_to_exit_ns,1.000,1.000,1.000,{text}"
        )
        .unwrap();
    }

    /// Ends an interval of a second, after which there is a gap of one.
    fn interval(&mut self) {
        self.interval_with(json!({}));
    }

    /// Like [`Self::interval`], with more fields.
    fn interval_with(&mut self, more: Value) {
        let n = std::mem::take(&mut self.entries);
        let mut interval = json!({
            "start_ns": 20_000_000_000_u64 + self.intervals * 2_000_000_000,
            "length_ns": 1_000_000_000,
            "totals": { "entries": n, "delivered": n, "dropped": 0, "unmatched": 0, "malformed": 0, "not_kept": 0, "td_entries": 0 },
        });
        interval.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        writeln!(self.text, "#{}", json!({ "interval": interval })).unwrap();
        self.intervals += 1;
    }

    /// Writes the file; its path.
    fn write(&self, folder: &Folder, name: &str) -> String {
        let path = folder.file(name);
        fs::write(&path, &self.text).unwrap();
        path
    }
}

fn header(name: &str) -> Value {
    let mut header: Value = serde_json::from_str(LAB.lines().next().unwrap().trim_start_matches('#')).unwrap();
    (header["host"]["name"], header["host"]["boot_id"]) = (name.into(), name.into());
    header
}

/// A histogram as a recording has it, and the number of its values.
struct Encoded {
    text: String,
    count: usize,
}

/// A value in each of these buckets, which ascend.
fn values_in(buckets: impl IntoIterator<Item = usize>) -> Encoded {
    let (mut counts, mut next, mut count) = (Vec::new(), 0, 0);
    for bucket in buckets {
        // A run of empty buckets is a negative number; numbers of either sign are written as zigzag varints.
        let mut run = (2 * (bucket - next)).saturating_sub(1);
        while run > 0 {
            counts.push((run & 0x7f) as u8 | if run > 0x7f { 0x80 } else { 0 });
            run >>= 7;
        }
        counts.push(2);
        (next, count) = (bucket + 1, count + 1);
    }
    let mut plain = Vec::new();
    for word in [0x1c84_9313, counts.len() as u32, 0, 3] {
        plain.extend(word.to_be_bytes());
    }
    plain.extend([1u64, u64::MAX, 1.0f64.to_bits()].map(u64::to_be_bytes).concat());
    plain.extend(counts);
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&plain).unwrap();
    let deflated = deflate.finish().unwrap();
    let bytes = [&0x1c84_9314_u32.to_be_bytes()[..], &(deflated.len() as u32).to_be_bytes(), &deflated].concat();
    Encoded { text: base64::engine::general_purpose::STANDARD.encode(bytes), count }
}

/// A recording with an entry of each of many VMs.
fn vms(host: &str, name: impl Fn(usize) -> String, tgid: impl Fn(usize) -> usize) -> Made {
    let one = values_in([100]);
    let mut made = Made::new(host);
    for id in 0..3000 {
        made.vm(id, &name(id), tgid(id));
        made.line(id, 0, &one);
    }
    made.interval();
    made
}

#[test]
fn each_vm_costs_the_same_however_many_there_are() {
    let folder = Folder::new("vms");
    let limits = Limits { cpu_s: 10, bytes: 1 << 30 };
    let of_host = |host| vms(host, |id| format!("vm{id}"), |id| 1000 + id).write(&folder, host);
    let [a, b] = ["a", "b"].map(of_host);
    for format in ["text", "json", "html", "csv", "openmetrics"] {
        cheap(&["report", &a, "--format", format], limits);
    }
    cheap(&["report", &a, "--claims"], limits);
    cheap(&["report", &a, &b, "--filter", "vm=vm1,vm2", "--by", "host,vm,vcpu"], limits);
    cheap(&["merge", "-o", &folder.file("merged"), &a, &b], limits);
    cheap(&["compare", &a, &b], limits);
}

#[test]
fn vms_of_one_name_in_one_process_cost_no_more() {
    let folder = Folder::new("namesakes");
    let path = vms("a", |_| "same".into(), |_| 7).write(&folder, "a");
    let report = cheap(&["report", &path, "--filter", "vm=same", "--top", "all"], Limits { cpu_s: 10, bytes: 1 << 30 });
    assert!(report.contains("same#2999"), "{report}");
}

#[test]
fn vms_are_not_held_against_each_stretch_of_time() {
    let folder = Folder::new("stretches");
    let one = values_in([100]);
    let mut made = Made::new("a");
    for id in 0..3000 {
        made.vm(id, &format!("vm{id}"), 1000 + id);
        made.line(id, 0, &one);
        made.interval();
    }
    cheap(&["report", &made.write(&folder, "a.hlog")], Limits { cpu_s: 10, bytes: 1 << 30 });
}

#[test]
fn recordings_that_alternate_in_a_merge_cost_no_more_than_one_after_the_other() {
    let folder = Folder::new("alternate");
    let source = |name: &str| json!({ "name": name, "header": header(name), "end": null, "torn": false, "intervals": 0, "length_ns": 0 });
    let mut header = header("merge");
    header["sources"] = json!([source("a"), source("b")]);
    let mut made = Made::with_header(&header);
    (0..12_000).for_each(|n| made.interval_with(json!({ "source": n % 2 })));
    cheap(&["report", &made.write(&folder, "a.hlog")], Limits { cpu_s: 10, bytes: 1 << 30 });
}

#[test]
fn a_merge_that_lists_one_recording_many_times_is_refused() {
    let folder = Folder::new("listed");
    let source =
        json!({ "name": "a", "header": header("a"), "end": null, "torn": false, "intervals": 0, "length_ns": 0 });
    let mut header = header("merge");
    header["sources"] = vec![source; 300].into();
    let made = Made::with_header(&header);
    let output = limited(&["report", &made.write(&folder, "a.hlog")], Limits { cpu_s: 10, bytes: 1 << 30 });
    assert!(output.status.code() == Some(1) && err(&output).contains("a is in more than 256 files"), "{output:?}");
}

#[test]
fn a_merge_of_many_recordings_costs_each_of_them_once() {
    let folder = Folder::new("many");
    let source = |n: usize| {
        let header = json!({
            "format": "vmentry-recording", "version": 1, "tool": "", "command": [], "label": null, "interval_ns": 1, "ring_bytes": 1,
            "anchor": { "monotonic_ns": n, "unix_ns": n }, "host": { "name": "a", "kernel": "", "cpu": "", "microcode": null, "cpus": 1,
            "vendor": null, "build_ids": {}, "parameters": {}, "emulated": false, "virtualized": null, "boot_id": n.to_string() },
            "policy": "soft", "pin_writes_source": "none", "missing": [],
        });
        json!({ "name": "a", "header": header, "end": null, "torn": false, "intervals": 0, "length_ns": 0 })
    };
    let mut header = header("merge");
    header["sources"] = (0..4000).map(source).collect();
    let mut made = Made::with_header(&header);
    (0..8000).for_each(|n| made.interval_with(json!({ "source": n % 4000 })));
    let path = made.write(&folder, "a.hlog");
    cheap(&["report", &path, "--format", "csv"], Limits { cpu_s: 12, bytes: 1 << 30 });
}

#[test]
fn few_buckets_are_merged_into_many_without_moving_the_many_for_each() {
    let folder = Folder::new("few");
    let mut made = Made::new("a");
    made.vm(0, "vm0", 7);
    let even = values_in((0..BUCKETS).step_by(2));
    (0..80).for_each(|vcpu| made.line(0, vcpu, &even));
    made.interval();
    for part in 0..8 {
        let odd = values_in((BUCKETS / 8 * part..BUCKETS / 8 * (part + 1)).filter(|bucket| bucket % 2 == 1));
        (0..80).for_each(|vcpu| made.line(0, vcpu, &odd));
        made.interval();
    }
    let path = made.write(&folder, "a.hlog");
    cheap(&["report", &path, "--by", "vcpu"], Limits { cpu_s: 7, bytes: 1 << 30 });
}

#[test]
fn series_whose_keys_would_have_one_hash_are_found_as_fast_as_others() {
    let folder = Folder::new("hash");
    // The multiplier of rustc-hash: with it, the keys' two words would add up to the same.
    const K: u32 = 0x2e62_a9c5;
    let one = values_in([100]);
    let mut made = Made::new("a");
    for id in 0..12_000u32 {
        made.vm(id as usize, &format!("vm{id}"), 7);
        made.line_of(id as usize, 0, id.wrapping_mul(K).wrapping_neg(), &one);
    }
    made.interval();
    cheap(&["report", &made.write(&folder, "a.hlog"), "--by", "level"], Limits { cpu_s: 10, bytes: 1 << 30 });
}

/// A recording of `intervals` with a histogram of every bucket, 900 kB in memory, of each of `vcpus`; of other vCPUs in each interval.
fn wide(host: &str, intervals: usize, vcpus: usize) -> Made {
    let full = values_in(0..BUCKETS);
    let mut made = Made::new(host);
    made.vm(0, "vm0", 7);
    for interval in 0..intervals {
        (0..vcpus).for_each(|vcpu| made.line_of(0, interval * vcpus + vcpu, (interval * vcpus + vcpu) as u32, &full));
        made.interval();
    }
    assert!(made.text.len() < 400 * intervals * vcpus + 4096);
    made
}

#[test]
fn histograms_that_take_too_much_memory_are_refused_with_the_limit_the_line_and_the_flag() {
    let folder = Folder::new("wide");
    let [a, b] = ["a", "b"].map(|host| wide(host, 12, 30).write(&folder, host));
    let limits = Limits { cpu_s: 60, bytes: BASE + (128 << 20) };
    for args in [&["report", &a][..], &["report", &a, "--claims"], &["compare", &a, &b]] {
        let output = limited(&[args, &["--max-buckets", "2000000"]].concat(), limits);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("line 64: ") || said.contains("line 33: "), "{args:?}: {said}");
        assert!(
            said.contains("more than 2000000 buckets") && said.contains("--max-buckets 4000000"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn an_interval_at_a_time_is_kept_where_no_more_is_needed() {
    let folder = Folder::new("one");
    let path = wide("a", 24, 8).write(&folder, "a.hlog");
    // All intervals take 173 MB, and one 7 MB.
    let limits = Limits { cpu_s: 60, bytes: BASE + (64 << 20) };
    cheap(&["merge", "-o", &folder.file("merged.hlog"), &path], limits);
    assert_eq!(cheap(&["live", "--format", "jsonl", &path], limits).lines().count(), 24);
}
