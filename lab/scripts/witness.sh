# Continues known-exits.sh: a calibration, traces, and the faults that a recording must survive. Leaves results in $OUT,
# which `cargo xtask test` checks. MODULE is kvm_intel or kvm_amd.

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
                # It may end after grep has seen it.
                grep -q "vcpu 0" $task/comm 2> /dev/null \
                    && { taskset -p $mask ${task##*/} > /dev/null 2>&1 || [ ! -e $task ]; }
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
