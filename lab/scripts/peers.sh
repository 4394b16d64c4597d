# Runs a guest that only makes exits, alternately untraced and under each tool. Times are counts of instructions,
# because QEMU's clock counts them (-icount shift=0). Leaves the guest's figures and the tool's counts in
# $OUT/ROUND-NUMBER-TOOL.*, which `cargo xtask bench peers` summarizes. The caller sets COUNT, ROUNDS and TOOLS; to
# measure the wall clock of this host instead, also HERE, the folder of the
# scripts.
set -e
tracing=/sys/kernel/tracing
PATH=$PATH:/usr/bin:/usr/sbin

guest() { vmentry exercise cpuid --count $COUNT --format json > $1.guest; }
# Waits until a tool has started, or ended, so that this work does not count as the guest's.
settle() { sleep 1; }

# WORD FILE OUTPUT: waits until the file has the word. Fails if the last started process ends first, and prints its
# output.
await() {
    until grep -q "$1" $2 2> /dev/null; do
        kill -0 $! || { cat $3 >&2; return 1; }
        sleep 0.1
    done
}
# NAME WORD OUTPUT: waits for the word in the output of the last started process, runs the guest, and ends the process.
guest_beside() {
    await $2 $3 $3 || return 1
    settle
    guest $1
    kill -INT $! || return 1
    wait $! || true
    settle
}

tool_untraced() { guest $1; }

tool_record() { record $1; }
tool_record_no_phases() { record $1 --no-phases; }
tool_record_detail() { record $1 --detail; }
tool_in_kernel() { record $1 --aggregate in-kernel; }
tool_in_kernel_no_phases() { record $1 --aggregate in-kernel --no-phases; }
# NAME [OPTION..]: starts a recording and waits until it has begun; $! is its process.
start_recording() {
    name=$1
    shift
    vmentry record "$@" -o $name.hlog 2> $name.log &
    await '#{"interval"' $name.hlog $name.log
}
record() {
    start_recording "$@" || return 1
    guest $1
    kill -TERM $!
    wait $!
    vmentry report $1.hlog --format json > $1.report
    wc -c < $1.hlog > $1.bytes
    rm $1.hlog
    # The kernel frees the maps after the last program has ended, which must not count for the next run.
    settle
}

tool_live() {
    vmentry live > $1.live &
    settle
    settle
    guest $1
    settle
    kill -TERM $!
    wait $! || true
    settle
}

tool_ftrace_hist() {
    echo 'hist:keys=exit_reason' > $tracing/events/kvm/kvm_exit/trigger
    settle
    guest $1
    cat $tracing/events/kvm/kvm_exit/hist > $1.hist
    echo '!hist:keys=exit_reason' > $tracing/events/kvm/kvm_exit/trigger
}

tool_ftrace_buffer() {
    echo > $tracing/trace
    echo 1 > $tracing/events/kvm/kvm_entry/enable
    echo 1 > $tracing/events/kvm/kvm_exit/enable
    settle
    guest $1
    echo 0 > $tracing/events/kvm/kvm_entry/enable
    echo 0 > $tracing/events/kvm/kvm_exit/enable
    grep -h '^overrun\|^entries' $tracing/per_cpu/cpu0/stats > $1.buffer
    echo > $tracing/trace
}

# Counts of exits, and times by exit reason, written as its users do. bpftrace is ready when its interval timer first
# prints.
tool_bpftrace_count() { with_bpftrace $1 'tracepoint:kvm:kvm_exit { @[args->exit_reason] = count(); }'; }
tool_bpftrace_host() {
    with_bpftrace $1 '
        tracepoint:kvm:kvm_exit { @at[tid] = nsecs; @reason[tid] = args->exit_reason; }
        tracepoint:kvm:kvm_entry /@at[tid]/ { @[@reason[tid]] = hist(nsecs - @at[tid]); delete(@at[tid]); }
        END { clear(@at); clear(@reason); }'
}
tool_bpftrace_guest() {
    with_bpftrace $1 '
        tracepoint:kvm:kvm_entry { @at[tid] = nsecs; }
        tracepoint:kvm:kvm_exit /@at[tid]/ { @[args->exit_reason] = hist(nsecs - @at[tid]); delete(@at[tid]); }
        END { clear(@at); }'
}
with_bpftrace() {
    bpftrace -e "$2 interval:s:1 { printf(\"ready\\n\"); }" > $1.bpftrace 2>&1 &
    guest_beside $1 ready $1.bpftrace
}

# The tool as it is rejects AMD and knows 69 exit reasons (76 in Debian 13). That of Debian 12 takes, in its raw
# tracepoint, the vCPU's address for the exit reason.
tool_bcc_kvmexit() {
    sed -e 's/if b"Intel" in arch_info:/if True:/' \
        -e 's/#define REASON_NUM [0-9]*/#define REASON_NUM 128/' \
        -e 's/if BPF.support_raw_tracepoint_in_module():/if False:/' \
        -e 's/^# Do some checks/exit_reasons = tuple(exit_reasons) + tuple("SVM_%d" % n for n in range(len(exit_reasons), 128))/' \
        /usr/sbin/kvmexit-bpfcc > $OUT/kvmexit
    with_bcc $1 Ctrl-C $OUT/kvmexit
}
tool_bcc_histogram() {
    with_bcc $1 ready ${HERE:-/bin}/bcc_histogram.py
}
# Background processes of the shell ignore SIGINT, which Python does not change by itself.
with_bcc() {
    /usr/bin/python3 -u -c '
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' $3 > $1.bcc 2>&1 &
    guest_beside $1 $2 $1.bcc
}

# NAME LOG: runs the guest while the last started process records, and ends the process. Fails if it ends first, and
# prints its log.
guest_recorded() {
    settle
    settle
    kill -0 $! || { cat $2 >&2; return 1; }
    guest $1
    kill -INT $! || return 1
    wait $! || true
}

tool_perf_stat() {
    perf stat -a -e kvm:kvm_entry,kvm:kvm_exit -x , -o $1.stat > $1.stat-log 2>&1 &
    guest_recorded $1 $1.stat-log
}

tool_perf_kvm() {
    perf kvm --host stat record -a -o $1.perf > $1.perf-log 2>&1 &
    guest_recorded $1 $1.perf-log || return 1
    wc -c < $1.perf > $1.bytes
    rm $1.perf
}

tool_trace_cmd() {
    trace-cmd record -e kvm:kvm_entry -e kvm:kvm_exit -o $1.dat > $1.dat-log 2>&1 &
    guest_recorded $1 $1.dat-log || return 1
    wc -c < $1.dat > $1.bytes
    rm -f $1.dat
}

# A first run is left out: caches are cold and the kernel is still starting up.
settle
settle
guest $OUT/first

for round in $(seq $ROUNDS); do
    number=0
    for tool in $TOOLS; do
        for step in untraced $tool; do
            number=$((number + 1))
            tool_$step $OUT/$round-$(printf %02d $number)-$step || echo "$step failed" >> $OUT/failed
        done
    done
    number=$((number + 1))
    tool_untraced $OUT/$round-$(printf %02d $number)-untraced
done

# The kernel's statistics of each eBPF program, in runs of their own, because the kernel reads the clock twice per
# program for them.
for tool in $TOOLS; do
    case $tool in
    record) start_recording $OUT/stats ;;
    record_no_phases) start_recording $OUT/stats --no-phases ;;
    record_detail) start_recording $OUT/stats --detail ;;
    in_kernel) start_recording $OUT/stats --aggregate in-kernel ;;
    in_kernel_no_phases) start_recording $OUT/stats --aggregate in-kernel --no-phases ;;
    *) continue ;;
    esac
    were=$(cat /proc/sys/kernel/bpf_stats_enabled)
    echo 1 > /proc/sys/kernel/bpf_stats_enabled
    guest $OUT/stats
    echo $were > /proc/sys/kernel/bpf_stats_enabled
    cat /proc/$!/fdinfo/* 2> /dev/null | grep '^run_time_ns\|^run_cnt' > $OUT/$tool.programs
    kill -TERM $!
    wait $!
    rm $OUT/stats.hlog
done

# What was measured.
{
    vmentry --version
    echo "Linux $(uname -r)"
    for tool in $TOOLS; do
        case $tool in
        perf_*) perf --version ;;
        trace_cmd) trace-cmd --version 2>&1 | grep -m 1 version ;;
        bpftrace_*) bpftrace --version ;;
        bcc_*) echo "bcc $(/usr/bin/python3 -c 'import bcc; print(bcc.__version__)')" ;;
        esac
    done | awk '!seen[$0]++'
} > $OUT/versions
