# Runs the companion module with the stopwatch: first off, to calibrate both policies, then on. ftrace counts the same
# events. Leaves results in $OUT, which `cargo xtask test` checks.
set -e
events=/sys/kernel/tracing/events
parameters=/sys/module/kvm_intel/parameters
module=$(find /lib/modules -name kvm-intel.ko)
dmesg -c > /dev/null

# Both policies alternately. ftrace counts the writes, so each write also costs the work of ftrace.
echo 'hist:keys=field' > $events/kvmvmx/kvm_vmcs_write/trigger
vmentry calibrate --samples 96 --exit cpuid --format json > $OUT/policies.json
cat $events/kvmvmx/kvm_vmcs_write/hist > $OUT/policies.writes
echo '!hist:keys=field' > $events/kvmvmx/kvm_vmcs_write/trigger
cat $parameters/preemption_timer_policy > $OUT/after-calibrate
vmentry calibrate --samples 96 --exit cpuid --format json > $OUT/undisturbed.json
# A signal under the hard policy.
vmentry calibrate --samples 5000 --exit cpuid > $OUT/stopped.txt 2> $OUT/stopped.log &
until [ "$(cat $parameters/preemption_timer_policy)" = hard ]; do sleep 0.05; done
kill -TERM $!
code=0
wait $! || code=$?
echo $code > $OUT/stopped.code
cat $parameters/preemption_timer_policy > $OUT/after-signal
vmentry check > $OUT/check-off.txt
vmentry record -o $OUT/off.hlog -- vmentry exercise immediate --count 7 > /dev/null 2>&1
vmentry report $OUT/off.hlog --format json > $OUT/off.json

rmmod kvm_intel
insmod $module nested=1 preemption_timer_stopwatch=1
! echo hard > $parameters/preemption_timer_policy 2> /dev/null
cat $parameters/preemption_timer_policy > $OUT/policy-on
vmentry check > $OUT/check-on.txt

# NAME COMMAND...: records a command while ftrace counts exits, the stopwatch's events and the causes of timer exits.
timed() {
    name=$1
    shift
    echo 'hist:keys=exit_reason' > $events/kvm/kvm_exit/trigger
    echo 'hist:keys=vcpu_id' > $events/kvmvmx/kvm_guest_time/trigger
    echo 'hist:keys=cause' > $events/kvmvmx/kvm_preemption_timer_exit/trigger
    vmentry record -o $OUT/$name.hlog -- "$@" > $OUT/$name.guest 2> $OUT/$name.log
    cat $events/kvm/kvm_exit/hist > $OUT/$name.exits
    cat $events/kvmvmx/kvm_guest_time/hist > $OUT/$name.times
    cat $events/kvmvmx/kvm_preemption_timer_exit/hist > $OUT/$name.causes
    for trigger in kvm/kvm_exit:exit_reason kvmvmx/kvm_guest_time:vcpu_id kvmvmx/kvm_preemption_timer_exit:cause; do
        echo "!hist:keys=${trigger#*:}" > $events/${trigger%:*}/trigger
    done
    vmentry report $OUT/$name.hlog --format json > $OUT/$name.json
    vmentry report $OUT/$name.hlog > $OUT/$name.txt
}

# The two guests differ only in the time they spin, by a factor of 1000.
timed spin-1000 vmentry exercise spin --count 20 --delta 1000
timed spin-1000000 vmentry exercise spin --count 20 --delta 1000000
timed cpuid vmentry exercise cpuid --count 97
timed deadline vmentry exercise tsc-deadline --count 23
timed immediate vmentry exercise immediate --count 7
timed hlt vmentry exercise hlt --count 9
timed armed vmentry exercise nested-armed --count 19
vmentry report $OUT/cpuid.hlog --by reason,entry > $OUT/cpuid-entry.txt
vmentry report $OUT/cpuid.hlog --format html > $OUT/cpuid.html
# Measures the same rounds with the guest's stamps and with the stopwatch.
vmentry calibrate --samples 97 --exit cpuid,vmcall,msr --format json > $OUT/calibrate-on.json
vmentry calibrate --samples 40 --exit cpuid > $OUT/calibrate-on.txt
# A second recording with the stopwatch.
vmentry record -o $OUT/again.hlog -- vmentry exercise cpuid --count 97 > /dev/null 2>&1

rmmod kvm_intel
insmod $module preemption_timer_stopwatch=1 preemption_timer=0
cat $parameters/preemption_timer_stopwatch > $OUT/without-timer
rmmod kvm_intel
! insmod $module preemption_timer_stopwatch=1 preemption_timer_policy=hard 2> /dev/null
! insmod $module preemption_timer_policy=hard preemption_timer_stopwatch=1 2> /dev/null
[ ! -e $parameters ]
dmesg | grep -iE 'warn|bug:|oops|call trace|rcu:' > $OUT/complaints || true
