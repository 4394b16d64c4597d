"""Minimal time measurement with bcc: ns from kvm_exit to kvm_entry in powers of two, by raw tracepoints, without exit reasons."""

from time import sleep

from bcc import BPF

PROGRAMS = """
BPF_HASH(exits, u32, u64);
BPF_PERCPU_ARRAY(histogram, u64, 64);

RAW_TRACEPOINT_PROBE(kvm_exit) {
    u32 thread = bpf_get_current_pid_tgid();
    u64 now = bpf_ktime_get_ns();
    exits.update(&thread, &now);
    return 0;
}

RAW_TRACEPOINT_PROBE(kvm_entry) {
    u32 thread = bpf_get_current_pid_tgid();
    u64 *at = exits.lookup(&thread);
    if (at && *at) {
        int bucket = bpf_log2l(bpf_ktime_get_ns() - *at) & 63;
        u64 *count = histogram.lookup(&bucket);
        *at = 0;
        if (count)
            (*count)++;
    }
    return 0;
}
"""

bpf = BPF(text=PROGRAMS)
print("ready")
try:
    sleep(1000)
except KeyboardInterrupt:
    pass
counts = [sum(bpf["histogram"][bpf["histogram"].Key(bucket)]) for bucket in range(64)]
for bucket, count in enumerate(counts):
    if count:
        print(f"below {2 ** bucket} ns: {count}")
print(f"all {sum(counts)}")
