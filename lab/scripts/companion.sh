# Runs guests under both timer policies with the companion module, records pin writes from every source, and changes
# policy and module during recordings. Leaves results in $OUT, which `cargo xtask test` checks. /bin has
# kvm-intel-test.ko, the module whose timer can be made to run out early.
set -e
events=/sys/kernel/tracing/events
dmesg -c > /dev/null
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy

# Counts timer exits by cause and lateness until `causes NAME` writes the counts to NAME.causes.
count_causes() { echo 'hist:keys=cause,late' > $events/kvmvmx/kvm_preemption_timer_exit/trigger; }
causes() {
    cat $events/kvmvmx/kvm_preemption_timer_exit/hist > $OUT/$1.causes
    echo '!hist:keys=cause,late' > $events/kvmvmx/kvm_preemption_timer_exit/trigger
}

# NAME COMMAND...: records a command with every source of writes, while ftrace counts the companion's tracepoints.
verified() {
    name=$1
    shift
    echo 'hist:keys=field,vmcs02' > $events/kvmvmx/kvm_vmcs_write/trigger
    count_causes
    vmentry record --verify-writes -o $OUT/$name.hlog -- "$@" > $OUT/$name.guest 2> $OUT/$name.log
    cat $events/kvmvmx/kvm_vmcs_write/hist > $OUT/$name.writes
    echo '!hist:keys=field,vmcs02' > $events/kvmvmx/kvm_vmcs_write/trigger
    causes $name
    vmentry report $OUT/$name.hlog --format json > $OUT/$name.json
    vmentry report $OUT/$name.hlog > $OUT/$name.txt
}

# The formats, by which perf and trace-cmd print events: they must name the values, not the constants of the source.
cat $events/kvmvmx/*/format > $OUT/formats

for p in soft hard; do
    vmentry policy $p > /dev/null
    verified deadline-$p vmentry exercise tsc-deadline --count 23
    verified nested-$p vmentry exercise nested --count 19
    verified armed-$p vmentry exercise nested-armed --count 19
done

# Without hooks on writes, under the hard policy: latencies, and the counts of the shadow copy.
vmentry record -o $OUT/hard.hlog -- sh -c 'vmentry exercise tsc-deadline --count 23; vmentry exercise nested-armed --count 19' > /dev/null
vmentry report $OUT/hard.hlog --format json > $OUT/hard.json
vmentry report $OUT/hard.hlog --claims > $OUT/claims-hard.txt
vmentry policy soft > /dev/null

# Switches the policy under a running guest: every timer must be delivered.
vmentry record -o $OUT/flips.hlog -- vmentry exercise tsc-deadline --count 7000 --delta 20000 > $OUT/flips.guest &
flips=0
while kill -0 $! 2> /dev/null; do
    echo hard > $policy
    echo soft > $policy
    flips=$((flips + 2))
    sleep 0.002
done
wait $!
echo $flips > $OUT/flips
vmentry report $OUT/flips.hlog --format json > $OUT/flips.json

# A policy set for the time of a command is restored, also after a signal. After SIGKILL, check reports the policy.
vmentry policy hard -- cat $policy > $OUT/during
vmentry policy hard -- sleep 100 2> /dev/null &
until [ "$(cat $policy)" = hard ]; do sleep 0.05; done
kill -TERM $!
wait $! || true
cat $policy > $OUT/after-sigterm
vmentry policy hard -- sleep 3 2> /dev/null &
until [ "$(cat $policy)" = hard ]; do sleep 0.05; done
kill -9 $!
wait $! 2> /dev/null || true
vmentry check --format json > $OUT/left-behind.json
vmentry policy soft > /dev/null
vmentry check --format json > $OUT/check.json
! echo bogus > $policy 2> /dev/null
cat $policy > $OUT/after-bogus

# Reloads the module during a recording, then loads another build of it.
companion=$(find /lib/modules -name kvm-intel.ko)
vmentry record --interval 200ms -o $OUT/reload.hlog 2> $OUT/reload.log &
until grep -q '#{"interval"' $OUT/reload.hlog 2> /dev/null; do sleep 0.1; done
vmentry exercise cpuid --count 97 > /dev/null
sleep 0.5
rmmod kvm_intel
sleep 0.5
insmod $companion
sleep 0.5
vmentry exercise cpuid --count 97 > /dev/null
sleep 0.5
rmmod kvm_intel
insmod /bin/kvm-intel-test.ko preemption_timer_soft_value=100000
wait $! && exit 1
vmentry report $OUT/reload.hlog --format json > $OUT/reload.json

# A soft-disabled timer that soon expires. VMWRITE sites are unknown, because this build is not the one on the disk.
for p in soft hard; do
    vmentry policy $p > /dev/null
    count_causes
    vmentry record -o $OUT/spurious-$p.hlog -- vmentry exercise spin --count 100 > /dev/null
    causes spurious-$p
    vmentry report $OUT/spurious-$p.hlog --format json > $OUT/spurious-$p.json
    vmentry report $OUT/spurious-$p.hlog > $OUT/spurious-$p.txt
done
vmentry policy soft > /dev/null

# Without the timer there is nothing to disable: hard is refused, and a module loaded with it falls back to soft.
rmmod kvm_intel
insmod $companion preemption_timer=0
! echo hard > $policy 2> $OUT/without-timer.error
cat $policy > $OUT/without-timer
rmmod kvm_intel
insmod $companion preemption_timer_policy=hard preemption_timer=0
cat $policy > $OUT/hard-without-timer

# A timer that runs out early with large values, as on CPUs with Intel's erratum EMR158: the CPU of the lab counts it in
# cycles of the TSC. Then the same guest when KVM never sets the timer to such a value, and a soft-disabled timer.
# NAME PARAMETER... -- COMMAND...: counts the causes of a command with a module that is loaded with parameters.
early() {
    name=$1 parameters=
    shift
    while [ $1 != -- ]; do parameters="$parameters $1"; shift; done
    shift
    rmmod kvm_intel
    insmod /bin/kvm-intel-test.ko $parameters
    count_causes
    "$@" > $OUT/$name.guest
    causes $name
}
# The recordings have two witnesses of early exits: the deadline that the programs read, and the tracepoint's lateness.
recorded() {
    name=$1
    shift
    vmentry record --exact-writes --with-latency -o $OUT/$name.hlog -- "$@"
    vmentry report $OUT/$name.hlog --format json > $OUT/$name.json
    vmentry report $OUT/$name.hlog > $OUT/$name.txt
}
early early preemption_timer_wrap=2097152 -- \
    recorded early vmentry exercise tsc-deadline --count 21 --delta 2297152
early capped preemption_timer_wrap=2097152 preemption_timer_max=2097151 -- \
    vmentry exercise tsc-deadline --count 21 --delta 2297152
cat /sys/module/kvm_intel/parameters/preemption_timer_cap > $OUT/capped.parameter 2> /dev/null || true
early early-soft preemption_timer_wrap=131072 -- recorded early-soft vmentry exercise spin --count 21 --delta 131071

# Whether far timers fire early, by a guest's own answer: they do (a recording has each); KVM stays below; they do not.
early probe-yes preemption_timer_wrap=8388608 -- vmentry record -o $OUT/probe-yes.hlog -- \
    vmentry exercise early --limit 8388608 --count 9 --format json
vmentry report $OUT/probe-yes.hlog --format json > $OUT/probe-yes.json
early probe-capped preemption_timer_wrap=8388608 preemption_timer_max=8388607 -- \
    vmentry exercise early --limit 8388608 --format json
early probe-no -- vmentry exercise early --limit 8388608 --format json

# Values that run out before the guest's first instruction would never come back. 2^32-1 is a multiple of 65537.
rmmod kvm_intel
for value in soft_value=65535 wrap=65535 wrap=65537 max=65535; do
    ! insmod /bin/kvm-intel-test.ko preemption_timer_$value 2> /dev/null
    [ ! -e $policy ]
done

dmesg | grep -iE 'warn|bug:|oops|call trace|rcu:' > $OUT/complaints || true
