# Records guests with known exits while ftrace counts the same events, then provokes the faults that a recording must
# survive. Leaves results in $OUT, which `cargo xtask test` checks. MODULE is kvm_intel or kvm_amd.
set -e
events=/sys/kernel/tracing/events/kvm
MODULE=kvm_intel
[ -d /sys/module/kvm_amd ] && MODULE=kvm_amd

vmentry check --format json > $OUT/check.json

# The second witness: ftrace's own histograms of the two tracepoints.
echo 'hist:keys=exit_reason' > $events/kvm_exit/trigger
echo 'hist:keys=vcpu_id' > $events/kvm_entry/trigger

cat > /tmp/guests.sh <<'END'
set -e
exercise() { vmentry exercise "$@" --format json > $OUT/exercise-$1.json; }
exercise tsc-deadline --count 23
exercise cpuid --count 97
exercise out --count 31
exercise vmcall --count 11 --vcpus 2
exercise hlt --count 9
exercise spin --count 3
if [ $MODULE = kvm_intel ]; then
    exercise immediate --count 7
    exercise nested --count 13
    exercise nested-armed --count 17 --vcpus 2
fi
END
export MODULE
# Two recordings of the same guests: one from records, one aggregated in the kernel.
vmentry record -o $OUT/recording.hlog --label "known exits" --interval 1s -- \
    vmentry record --aggregate in-kernel -o $OUT/in-kernel.hlog -- sh /tmp/guests.sh
vmentry report $OUT/in-kernel.hlog --format json > $OUT/in-kernel.json

cat $events/kvm_exit/hist > $OUT/kvm_exit.hist
cat $events/kvm_entry/hist > $OUT/kvm_entry.hist
echo '!hist:keys=exit_reason' > $events/kvm_exit/trigger
echo '!hist:keys=vcpu_id' > $events/kvm_entry/trigger
vmentry report $OUT/recording.hlog --format json > $OUT/report.json
vmentry report $OUT/recording.hlog > $OUT/report.txt

# The calibration guest: ftrace counts its exits, and its instructions are known. vmentry must detect that its thread
# moves.
echo 'hist:keys=exit_reason' > $events/kvm_exit/trigger
vmentry calibrate --samples 97 --format json > $OUT/calibrate.json
cat $events/kvm_exit/hist > $OUT/calibrate.hist
echo '!hist:keys=exit_reason' > $events/kvm_exit/trigger
vmentry calibrate --samples 97 > $OUT/calibrate.txt
for work in 1 1000; do
    vmentry calibrate --samples 40 --exit cpuid --work $work --format json > $OUT/calibrate-$work.json
done
if [ $(nproc) -gt 1 ]; then
    vmentry calibrate --samples 30000 --exit cpuid --format json > $OUT/calibrate-moved.json 2> /dev/null &
    # Until it ends: the time that its start takes depends on the host.
    while kill -0 $! 2> /dev/null; do
        for mask in 1 2; do
            for task in /proc/$!/task/*; do
                grep -q "vcpu 0" $task/comm 2> /dev/null && taskset -p $mask ${task##*/} > /dev/null
            done
            sleep 0.1
        done
    done
    wait $!
fi

# Single events: a whole run, the time before a trigger, no file for an impossible trigger, and a full disk.
single() { name=$1; shift; vmentry record -o $OUT/$name.hlog --label $name "$@" -- vmentry exercise cpuid --count 97 > /dev/null 2> $OUT/$name.txt; }
single events --events $OUT/events.pftrace
vmentry report $OUT/events.hlog --format json > $OUT/events-report.json
single flight --flight-recorder 1h --trigger reason=CPUID --events $OUT/flight.pftrace
single impossible --flight-recorder 1s --trigger 'entry_to_exit_ns>1000s,reason=CPUID' --events $OUT/impossible.pftrace
[ ! -e $OUT/impossible.pftrace ]
mkdir /tmp/small
mount -t tmpfs -o size=8k none /tmp/small
! single full --events /tmp/small/full.pftrace
cp /tmp/small/full.pftrace $OUT/full.pftrace
umount /tmp/small
vmentry report $OUT/full.hlog --format json > $OUT/full-report.json

# Waits until a recording has written its first interval.
recording() { until grep -q '#{"interval"' $1 2> /dev/null; do sleep 0.1; done; }

# A ring of one page, and a collector that is stopped while the guest runs.
vmentry record --ring-kib 4 --interval 200ms -o $OUT/tiny.hlog 2> /dev/null &
recording $OUT/tiny.hlog
kill -STOP $!
vmentry exercise cpuid --count 5000 > /dev/null
kill -CONT $!
kill -TERM $!
wait $!
vmentry report $OUT/tiny.hlog > $OUT/tiny.txt
vmentry report $OUT/tiny.hlog --format json > $OUT/tiny.json

# A killed recorder.
vmentry record -o $OUT/killed.hlog --interval 200ms 2> /dev/null &
recording $OUT/killed.hlog
vmentry exercise cpuid --count 97 > /dev/null
sleep 0.5
kill -9 $!
vmentry report $OUT/killed.hlog --format json > $OUT/killed.json

# The wall clock is set back by a day and forward by a year while a recorder runs.
vmentry record --interval 200ms -o $OUT/stepped.hlog 2> /dev/null &
recording $OUT/stepped.hlog
now=$(date +%s)
for step in 0 -86400 31536000; do
    date -s @$((now + step)) > /dev/null
    vmentry exercise cpuid --count 97 --format json > $OUT/stepped-$step.json
    sleep 0.3
done
kill -TERM $!
wait $!
date -s @$now > /dev/null
vmentry report $OUT/stepped.hlog --format json > $OUT/stepped-report.json

# Without the KVM module.
rmmod $MODULE
! vmentry record -o $OUT/never.hlog 2> $OUT/no-module.txt
[ ! -e $OUT/never.hlog ]
