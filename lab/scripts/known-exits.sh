# Records guests with known exits while ftrace counts the same events: the first part of every script that `cargo xtask
# test` and `cargo xtask kernels` run on a kernel of the distribution. Leaves results in $OUT.
set -e
events=/sys/kernel/tracing/events/kvm
MODULE=kvm_intel
[ -d /sys/module/kvm_amd ] && MODULE=kvm_amd

# The error of a kernel that vmentry refuses becomes its row in docs/kernels.md.
vmentry check --format json > $OUT/check.json || {
    vmentry record -o /tmp/refused.hlog -- true 2> $OUT/refusal.txt || true
    exit 1
}

# The second witness: ftrace's own histograms of the two tracepoints.
echo 'hist:keys=exit_reason' > $events/kvm_exit/trigger
echo 'hist:keys=vcpu_id' > $events/kvm_entry/trigger
# What KVM emulated, by MSR, leaf and port.
details='kvm_msr:write,ecx kvm_cpuid:function kvm_pio:rw,port'
for detail in $details; do
    echo "hist:keys=${detail#*:}:size=4096" > $events/${detail%%:*}/trigger
done

cat > /tmp/guests.sh <<'END'
set -e
exercise() {
    vmentry exercise "$@" --format json > $OUT/exercise-$1.json 2> /tmp/exercise.txt && return
    cat /tmp/exercise.txt >&2
    # Once in hundreds of guests, on a busy host, one of QEMU's emulation of SVM took a timer interrupt too many. Another guest
    # then runs: both witnesses have counted the exits of the first one, too.
    [ $MODULE = kvm_amd ] && grep -q 'guest took' /tmp/exercise.txt
    vmentry exercise "$@" --format json > $OUT/exercise-$1.json
}
exercise tsc-deadline --count 23
exercise cpuid --count 97
exercise out --count 31
exercise vmcall --count 11 --vcpus 2
exercise hlt --count 9
exercise spin --count 3
exercise irq-window --count 19
exercise nmi-window --count 15
exercise pause --count 2
exercise mmio --count 41
exercise cr4 --count 43
exercise dr0 --count 37
exercise triple-fault --count 5
if [ $MODULE = kvm_intel ]; then
    # QEMU's emulation of SVM does not intercept XSETBV.
    exercise xsetbv --count 47
    exercise failed-entry --count 21
    exercise immediate --count 7
    exercise nested --count 13
    exercise nested-armed --count 17 --vcpus 2
fi
END
export MODULE
# Two recordings of the same guests: one from records, one aggregated in the kernel.
vmentry record --detail -o $OUT/recording.hlog --label "known exits" --interval 1s -- \
    vmentry record --aggregate in-kernel -o $OUT/in-kernel.hlog -- sh /tmp/guests.sh
vmentry report $OUT/in-kernel.hlog --format json > $OUT/in-kernel.json

cat $events/kvm_exit/hist > $OUT/kvm_exit.hist
cat $events/kvm_entry/hist > $OUT/kvm_entry.hist
echo '!hist:keys=exit_reason' > $events/kvm_exit/trigger
echo '!hist:keys=vcpu_id' > $events/kvm_entry/trigger
for detail in $details; do
    cat $events/${detail%%:*}/hist > $OUT/${detail%%:*}.hist
    echo "!hist:keys=${detail#*:}" > $events/${detail%%:*}/trigger
done
vmentry report $OUT/recording.hlog --format json > $OUT/report.json
vmentry report $OUT/recording.hlog --by vm,vcpu,reason,detail --format json > $OUT/details.json
vmentry report $OUT/recording.hlog > $OUT/report.txt
